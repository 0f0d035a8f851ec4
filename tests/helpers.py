"""Tiny models, vocabularies and texts that the tests share."""

import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from charlm.config.corpus import VocabularySettings
from charlm.config.model import ModelSettings
from charlm.config.settings import Settings, find_setting, settings_from
from charlm.nn.model import RecurrentLanguageModel
from charlm.nn.torch_backend import TorchBackend
from charlm.text.corpus import Corpus
from charlm.text.encoded import EncodedText, TextCounts
from charlm.text.tokenizers.building import build_vocabulary
from charlm.text.tokenizers.vocabulary import Vocabulary
from charlm.training.session import Session
from charlm.training.start import start

torch.set_num_threads(1)  # tensors of three units are too small to share

Call = Callable[..., tuple[int, str, str]]
"""The fixture `call`: runs a command, gives its exit code, stdout and stderr."""

CORPUS = "the cat sat on the mat.\nthe dog sat on the log!\nÄh, don't – naïve 猫 👩‍🚀\r\n"


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


STRUCTURES: dict[str, dict] = {
    "skip": {"skip": True},
    "one-hot": {"one_hot": True, "embedding_size": 5},
    "learnt state": {"learned_state": True},
    "learnt state of a GRU": {"learned_state": True, "cell": "gru"},
    "mixture": {"mixture": 3},
    "tied mixture": {"mixture": 2, "tie_weights": True},
    "zoneout": {"zoneout": 0.3, "zoneout_cell": 0.2},
    "zoneout of an RNN": {"zoneout": 0.3, "cell": "rnn"},
    "relu": {"cell": "rnn", "nonlinearity": "relu"},
    "narrow QRNN": {"cell": "qrnn", "qrnn_window": 1},
    "capped mogrifier": {"cell": "mogrifier", "cap_input_gate": True},
    "narrow last layer": {"last_hidden_size": 2},
    "tied narrow last layer": {"last_hidden_size": 4, "tie_weights": True},
    "low-rank mogrifier": {"cell": "mogrifier", "mogrifier_rounds": 2, "mogrifier_rank": 2},
}
"""Settings of models beside their cell, for vocabularies of five."""


def tiny_model(
    cell: str = "lstm",
    vocab_size: int = 5,
    *,
    seed: int = 0,
    scale: float = 1.0,
    conditions: int = 0,
    **settings,
) -> RecurrentLanguageModel:
    """Return a model of two layers of three units, with output weights multiplied by `scale`.

    `cell` may also name one of STRUCTURES. A learnt state and conditions are random, or they would
    be zero and copies of EOS.
    """
    named = STRUCTURES.get(cell, {"cell": cell})
    values = {"num_layers": 2, "hidden_size": 3, "embedding_size": 4} | named | settings
    model = RecurrentLanguageModel(ModelSettings(**values), vocab_size, conditions)
    model.reset_parameters(seeded(seed))
    generator = seeded(seed + 1)
    with torch.no_grad():
        if scale != 1.0:
            model.output.weight.mul_(scale)
        for part in model.first_state:
            part.normal_(generator=generator)
        if model.conditions is not None:
            model.conditions.weight.normal_(generator=generator)
    return model.eval()


def engine(model: RecurrentLanguageModel) -> TorchBackend:
    """Return the backend that computes with a model."""
    return TorchBackend(model)


def uniform_model(vocab_size: int = 5, cell: str = "gru") -> RecurrentLanguageModel:
    """Return a model whose output weights are zero, so every token has probability 1 / V."""
    return tiny_model(cell, vocab_size, scale=0.0)


def remembering_model(vocab_size: int = 5) -> RecurrentLanguageModel:
    """Return an LSTM that never forgets: its cells accumulate everything that it reads."""
    model = tiny_model("lstm", vocab_size, num_layers=1, scale=3.0)
    with torch.no_grad():
        model.layers[0].rnn.bias_ih_l0[3:6] = 100.0
    return model


def nested(**values) -> dict[str, dict]:
    """Return settings, given by name alone, by section."""
    sections: dict[str, dict] = {}
    for name, value in values.items():
        sections.setdefault(find_setting(name).section, {})[name] = value
    return sections


def for_each(values: Iterable[Any]) -> Callable[[Callable[[Any], None]], Callable[[], None]]:
    """Make one test of a quick check of many values, which names each value that fails.

    A parametrised test would need several times the time of such a check.
    """

    def decorate(check: Callable[[Any], None]) -> Callable[[], None]:
        def test() -> None:
            failures = []
            for value in values:
                try:
                    check(value)
                except Exception as error:
                    failures.append(f"{value}: {type(error).__name__}: {error}")
            assert not failures, "\n".join(failures)

        test.__name__, test.__doc__, test.__module__ = (
            check.__name__,
            check.__doc__,
            check.__module__,
        )
        return test

    return decorate


SHORT_TEXT = "abc abd\nab ca\n" * 8


def tiny_settings(**changes) -> Settings:
    """Return the settings of a run of three steps on one thread, with changes by name."""
    values = {
        "steps": 3, "batch_size": 2, "bptt": 4, "seed": 1, "threads": 1, "precision": "fp32",
        "hidden_size": 3, "embedding_size": 2, "num_layers": 1,
    } | changes  # fmt: skip
    if "epochs" in changes:
        values["steps"] = None
    return settings_from(nested(**values))


def started(
    folder: Path,
    name: str | None = "x",
    *,
    text: str = SHORT_TEXT,
    document: str = "stream",
    **changes,
) -> Session:
    """Start a run with tiny settings on a text in memory."""
    corpus = Corpus.from_text(text, document)
    return start(tiny_settings(**changes), folder, name=name, corpus=corpus)


def vocabulary_of(text: str = CORPUS, unit: str = "char", **settings) -> Vocabulary:
    settings = VocabularySettings(unit=unit, **settings)
    return build_vocabulary(lambda: [text], settings).vocabulary


def corpus_of(text: str, document: str = "stream", chunk: int = 1 << 20) -> Corpus:
    """Return a corpus in memory that is read in chunks of about `chunk` characters."""
    corpus = Corpus.from_text(text, document)
    corpus._chunk_chars = chunk
    return corpus


def encoded_stream(ids: Iterable[int]) -> EncodedText:
    """Return one stream of tokens; arrays of millions are quick."""
    ids = np.array(ids if isinstance(ids, np.ndarray) else list(ids), np.uint8)
    return _encoded(ids, [len(ids)], is_stream=True)


def encoded_documents(documents: list[list[int]], is_stream: bool = False) -> EncodedText:
    """Return encoded documents, each with the EOS that it was given, or one stream."""
    ids = [index for document in documents for index in document]
    return _encoded(np.array(ids, np.uint8), [len(document) for document in documents], is_stream)


def _encoded(ids: np.ndarray, lengths: list[int], is_stream: bool) -> EncodedText:
    return EncodedText(
        ids=ids,
        ends=np.cumsum(lengths, dtype=np.int64),
        counts=TextCounts(chars=len(ids), bytes=2 * len(ids), words=3),
        is_stream=is_stream,
    )


def naive_nats(
    model: RecurrentLanguageModel, ids: Iterable[int], state=None, first_input: int = 1
) -> list[float]:
    """Return the nats of one token at a time, with the softmax written out in Python floats."""
    nats = []
    with torch.no_grad():
        for index in ids:
            logits, state = model(torch.tensor([[first_input]]), state)
            values = logits[0, 0].double().tolist()
            top = max(values)
            total = math.fsum(math.exp(value - top) for value in values)
            nats.append(top + math.log(total) - values[int(index)])
            first_input = int(index)
    return nats


def chi_square_fits(counts: np.ndarray, expected: np.ndarray) -> bool:
    """Return whether counts fit the expected ones: at most five standard deviations off."""
    freedom = len(counts) - 1
    statistic = float(((counts - expected) ** 2 / expected).sum())
    return statistic < freedom + 5 * math.sqrt(2 * freedom)


def oracle_file(name: str) -> Path:
    """Return a file of the folder named by CHARLM_ORACLES; skip the test without that folder."""
    folder = os.environ.get("CHARLM_ORACLES")
    if not folder:
        pytest.skip("CHARLM_ORACLES does not name a folder of golden files")
    return Path(folder) / name


CPU_FULL = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you "
    "tried to allocate 1073741824 bytes. Error code 12 (Cannot allocate memory)"
)
"""Message of torch 2.13 on Linux below a limit of memory."""


def memory_errors() -> list[Exception]:
    """Return the errors of a full memory: of a processor, a GPU, MPS, numpy and the kernels."""
    return [
        RuntimeError(CPU_FULL),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9.07 GB)"),
        MemoryError(),
    ]
