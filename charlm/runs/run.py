"""A run in memory, loaded from its model files."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from charlm.backends.interface import Backend
from charlm.backends.ngram_backend import NgramBackend
from charlm.commands import command
from charlm.config.model import ModelSettings
from charlm.config.settings import settings_from
from charlm.errors import CorpusError, RunError, UsageError, check_count
from charlm.runs import layout
from charlm.runs.built_in import shipped_sources
from charlm.runs.conditions import check_condition, condition_number, conditions_of, documents_of
from charlm.runs.engines import file_stamp
from charlm.runs.networks import load_backend, torch_network
from charlm.runs.ngrams import read_ngrams
from charlm.runs.weights import load_arrays
from charlm.text.boundaries import Boundaries
from charlm.text.direction import BackwardVocabulary, mirrored
from charlm.text.encoded import EncodedText, encode_text, read_encoded
from charlm.text.tokenizers.vocabulary import Vocabulary, load_vocabulary

if TYPE_CHECKING:
    from charlm.nn.model import RecurrentLanguageModel
    from charlm.text.corpus import Corpus
    from charlm.text.dataset import Dataset


@dataclass(frozen=True, kw_only=True)
class Run:
    """A trained model with its vocabulary, in memory.

    `boundaries` are the rules about documents that the model was trained with. `load_scaled` loads
    the backend of a network with another factor on all logits. `condition` is that with which the
    model begins texts; None is none.
    """

    path: Path
    backend: Backend
    vocabulary: Vocabulary
    boundaries: Boundaries
    config: dict[str, Any]
    load_scaled: Callable[[float], Backend] | None = None
    condition: str | None = None

    @property
    def unk_types(self) -> float:
        """Estimated number of types that UNK stands for, at least 1.

        Recorded when the run is made (see `estimate_unk_types`); for runs that do not record it,
        the number of entries of the vocabulary.
        """
        if self.vocabulary.spec.byte_level:
            return 1.0
        entries = len(self.vocabulary) - 2
        return float(max(1.0, self.config.get("unk_types", entries)))

    @property
    def unk_types_recorded(self) -> bool:
        """True if `unk_types` is the estimate of this run."""
        return "unk_types" in self.config or self.vocabulary.spec.byte_level

    @property
    def unk_penalty(self) -> float:
        """Nats that an unknown token costs beyond -ln P(UNK): ln `unk_types`.

        P(UNK) is the probability of all types that UNK stands for together; divided evenly among
        them it is the probability of one, so that texts with and without UNK can be compared.
        """
        return math.log(self.unk_types)

    @property
    def kind(self) -> str:
        """Kind of the model: "network" or "ngram"."""
        return str(layout.kind_of(self.config))

    def check_network(self, use: str) -> None:
        """Raise UsageError for an n-gram model; `use` says what needs a network."""
        if self.kind == layout.NGRAM:
            raise no_network(self.path, use)

    @property
    def backward(self) -> bool:
        """True if the model reads from the end of the text to its beginning."""
        return isinstance(self.vocabulary, BackwardVocabulary)

    @property
    def text_vocabulary(self) -> Vocabulary:
        """Vocabulary in the order of the text, in whichever direction the model reads."""
        vocabulary = self.vocabulary
        return vocabulary.inner if isinstance(vocabulary, BackwardVocabulary) else vocabulary

    def encode(self, corpus: "Corpus") -> EncodedText:
        """Encode a text in the order in which the model reads it."""
        return self.as_read(encode_text(corpus.chunks, self.text_vocabulary, corpus.document))

    def encode_text(self, text: str) -> EncodedText:
        """Encode one text, which is cut into documents as in training."""
        from charlm.text.corpus import Corpus

        rules = self.boundaries
        return self.encode(Corpus.from_text(text, rules.document, keep_cr=rules.crlf))

    def kept(self, name: str) -> EncodedText | None:
        """Return a split of the run's text (train, valid, test) as the model reads it, or None.

        The text is kept with the run or ships with it; of a run with conditions, it is the texts
        of this one. Raises CorpusError if it is damaged or does not fit the vocabulary.
        """
        folder = layout.home(self.path) / "data" / name
        if (text := kept_text(folder, self.vocabulary)) is None:
            split = self.dataset.split(name) if shipped_sources(layout.home(self.path)) else None
            return split and self.as_read(split)
        if names := conditions_of(self.config):
            number = condition_number(self.path, self.config, self.condition)
            text = documents_of(folder, text, self.vocabulary, len(names), number)
            return text if text.documents else None
        return self.as_read(text)

    @cached_property
    def dataset(self) -> "Dataset":
        """Text of the run in its own order: kept with the run, or read again from its sources.

        Raises RunError or CorpusError if the text is gone or has changed.
        """
        from charlm.runs.data import read_data

        home = layout.home(self.path)
        record = layout.read_record(home)
        settings = settings_from(record["settings"])
        return read_data(home, settings, self.text_vocabulary, record)

    def as_read(self, text: EncodedText) -> EncodedText:
        """Return an encoded text, reversed for a model that reads backward."""
        return mirrored(text) if self.backward else text


def kept_text(folder: Path, vocabulary: Vocabulary) -> EncodedText | None:
    """Return the encoded text that a run keeps in a folder, or None.

    Raises CorpusError if it is damaged or does not fit the vocabulary.
    """
    if not (folder / "counts.json").exists():
        return None
    text = read_encoded(folder)
    if not text.fits(len(vocabulary)):
        raise CorpusError(f"{folder}: ids that tokenizer.json does not have; delete the folder")
    return text


def load_run(
    path: Path,
    *,
    engine: str = "auto",
    weights: str = "fp32",
    threads: int | None = None,
    condition: str | None = None,
) -> Run:
    """Load the run in a folder. Raises RunError if files are missing, damaged or do not match.

    `engine` and `weights` are as in `load_backend`; they have no effect on an n-gram model.
    `condition` is that with which the model begins texts. Raises UsageError for an unknown one.
    """
    if threads is not None:
        check_count("threads", threads, 1)
    config = layout.read_config(path)
    if layout.TASK in config:
        raise layout.no_text(path)
    number = condition_number(path, config, condition)
    vocabulary = checked_vocabulary(path, config)
    backend: Backend
    load: Callable[..., Backend] | None = None
    if layout.kind_of(config) == layout.NGRAM:
        order, direction = config["model"]["order"], config["model"]["direction"]
        backend = NgramBackend(read_ngrams(path / layout.NGRAMS, order, len(vocabulary)))
    else:
        settings = model_settings(config, path)
        direction = settings.direction
        check_weights(path)
        load = partial(
            load_backend, path / layout.WEIGHTS, settings, len(vocabulary), engine,
            weights=weights, threads=threads, conditions=len(conditions_of(config)), first=number,
        )  # fmt: skip
        backend = load(logit_scale=config.get(layout.LOGIT_SCALE))
    backward = direction == "backward"
    return Run(
        path=path,
        backend=backend,
        vocabulary=BackwardVocabulary(vocabulary) if backward else vocabulary,
        boundaries=Boundaries.from_config(config, vocabulary),
        config=config,
        load_scaled=None if load is None else lambda scale: load(logit_scale=scale),
        condition=condition,
    )


def checked_vocabulary(path: Path, config: Mapping[str, Any]) -> Vocabulary:
    """Return the vocabulary of a run. Raises RunError if it has not the size in config.json."""
    vocabulary = load_vocabulary(layout.home(path) / layout.TOKENIZER)
    if len(vocabulary) != config["vocab_size"]:
        raise RunError(
            f"{path}: tokenizer.json has {len(vocabulary)} entries, config.json expects "
            f"{config['vocab_size']}. The run's files do not match"
        )
    return vocabulary


def check_weights(path: Path) -> None:
    """Raise RunError if a network has no weights yet."""
    if not (path / layout.WEIGHTS).exists():
        raise RunError(
            f"{path}: has no {layout.WEIGHTS} yet; resume training with: "
            + command("train", "--resume", run=path)
        )


def run_stamp(path: Path) -> tuple[int, ...]:
    """Return the stamps of a run's model and config.json, which change when it is trained."""
    return file_stamp(layout.model_file(path)) + file_stamp(path / layout.CONFIG)


def read_embedding(path: Path) -> NDArray[np.float32]:
    """Return the embedding of a run, shape (V, E). Raises RunError for damaged files."""
    _, arrays = _settings_and_arrays(path, layout.read_config(path))
    return arrays["embedding.weight"]


def torch_model(path: Path) -> "RecurrentLanguageModel":
    """Load the model of a run in torch, on the CPU, uncalibrated.

    Raises RunError, or UsageError for a run whose texts all begin with a condition.
    """
    check_condition(path, layout.read_config(path), None)
    return stored_model(path)


def stored_model(path: Path) -> "RecurrentLanguageModel":
    """Load the model of a run in torch with its conditions, on the CPU, uncalibrated."""
    config = layout.read_config(path)
    settings, arrays = _settings_and_arrays(path, config)
    return torch_network(settings, config["vocab_size"], arrays, None, len(conditions_of(config)))


def _settings_and_arrays(
    path: Path, config: Mapping[str, Any]
) -> tuple[ModelSettings, dict[str, NDArray[np.float32]]]:
    settings, size = model_settings(config, path), config["vocab_size"]
    number = len(conditions_of(config))
    return settings, load_arrays(path / layout.WEIGHTS, settings, size, None, number)


def no_network(path: Path, use: str) -> UsageError:
    """Return the error for an n-gram run where a network is needed."""
    return UsageError(
        f"{path.name} is an n-gram run, and {use} needs a network; expected the run of a network. "
        "Name one with --run"
    )


def model_settings(config: Mapping[str, Any], path: Path) -> ModelSettings:
    """Return the settings of a network in the content of config.json.

    Raises RunError, or UsageError for an n-gram model.
    """
    if layout.kind_of(dict(config)) == layout.NGRAM:
        raise no_network(path, "this")
    model = config.get("model")
    try:
        return settings_from({"model": model}, str(path / layout.CONFIG)).model  # type: ignore[dict-item]
    except UsageError as error:
        raise RunError(str(error)) from error
