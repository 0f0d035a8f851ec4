"""A run that gives labels, in memory."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from charlm.backends.interface import Backend
from charlm.backends.kernel_library import useful_threads
from charlm.backends.native import WEIGHTS_PER_THREAD
from charlm.backends.numpy_backend import NumpyBackend
from charlm.backends.weights import BACKWARD, HEAD, Weights, encoder_weights
from charlm.config.model import ModelSettings
from charlm.errors import CorpusError, check_count
from charlm.inference.counts import LabelCounts
from charlm.inference.labelling import ArrayReader, LabelReader, MixedReader
from charlm.runs import layout
from charlm.runs.bag import read_bag
from charlm.runs.engines import chosen_engine, compiled_backend, unchanged
from charlm.runs.run import check_weights, checked_vocabulary, model_settings
from charlm.runs.weights import load_arrays
from charlm.text.encoded import EncodedText, read_encoded
from charlm.text.labelled import encode_texts
from charlm.text.labels import Labels, Targets, read_targets
from charlm.text.tokenizers.vocabulary import Vocabulary


@dataclass(frozen=True, kw_only=True)
class LabelRun:
    """A classifier with its vocabulary and labels, in memory."""

    path: Path
    config: dict[str, Any]
    vocabulary: Vocabulary
    labels: Labels
    reader: LabelReader

    @property
    def engine(self) -> str:
        """Name of the reader."""
        return self.reader.name

    def encode(self, texts: Iterable[str]) -> EncodedText:
        """Encode texts as one document each; long ones are cut as in training."""
        task = self.config[layout.TASK]
        return encode_texts(texts, self.vocabulary, task["max_tokens"], task["kept_part"])

    def counts(self, logits: NDArray[np.float64], targets: Targets) -> LabelCounts:
        """Count the answers of the reader's logits, shape (N, K), to texts with these targets."""
        scale = _scale(self.config)
        return LabelCounts.of(logits / scale, targets, scale)

    def kept(self, name: str) -> tuple[EncodedText, Targets] | None:
        """Return a split of the run's text (train, valid, test) and its targets, or None.

        Raises CorpusError if it is damaged or does not fit the vocabulary or the labels.
        """
        folder = self.path / "data" / name
        if not (folder / "counts.json").exists():
            return None
        text = read_encoded(folder)
        if not text.fits(len(self.vocabulary)):
            raise CorpusError(f"{folder}: ids that tokenizer.json does not have; delete the folder")
        return text, read_targets(folder, text.documents, len(self.labels))


def load_label_run(path: Path, *, engine: str = "auto", threads: int | None = None) -> LabelRun:
    """Load the run in a folder. Raises RunError if files are missing, damaged or do not match.

    `engine` is as in `runs.run.load_backend`. Raises UsageError for a language model.
    """
    if threads is not None:
        check_count("threads", threads, 1)
    config = layout.read_config(path)
    if layout.TASK not in config:
        raise layout.no_labels(path)
    vocabulary = checked_vocabulary(path, config)
    settings = model_settings(config, path)
    check_weights(path)
    labels = Labels(tuple(config[layout.TASK]["labels"]))
    reader = _reader(path / layout.WEIGHTS, settings, config, engine, threads)
    if features := config.get(layout.BAG_FEATURES):
        bag = read_bag(path, features, len(labels), len(vocabulary))
        reader = MixedReader(network=reader, bag=bag.times(_scale(config)))
    return LabelRun(path=path, config=config, vocabulary=vocabulary, labels=labels, reader=reader)


def _scale(config: Mapping[str, Any]) -> float:
    """Return the factor on all logits that calibration found, or 1."""
    return float(config.get(layout.LOGIT_SCALE, 1.0))


def _reader(
    path: Path,
    settings: ModelSettings,
    config: Mapping[str, Any],
    engine: str,
    threads: int | None,
) -> LabelReader:
    """Return what computes with the weights in a file."""
    engine = chosen_engine(settings, engine)
    task, size = config[layout.TASK], config["vocab_size"]
    scale = _scale(config)
    check = unchanged(path)
    arrays = load_arrays(path, settings, size, task)
    if engine == "torch":
        return _torch_reader(settings, config, arrays, scale, threads)

    def reread(prefix: str) -> Weights:
        """Read the weights again. Raises RunError if the file is no longer the same."""
        check()
        return encoder_weights(settings, load_arrays(path, settings, size, task), prefix)

    def half(prefix: str) -> Backend:
        """Return the backend of the encoder whose tensors have this prefix."""
        plain = encoder_weights(settings, arrays, prefix)
        if engine == "numpy":
            return NumpyBackend(plain)
        required = engine == "native"
        return compiled_backend(plain, "fp32", threads, partial(reread, prefix), required=required)

    return ArrayReader(
        halves=tuple(half(prefix) for prefix in ("", BACKWARD)[: 1 + task["both_ways"]]),
        weight=arrays[f"{HEAD}weight"],
        bias=arrays[f"{HEAD}bias"],
        pooling=task["pooling"],
        scale=scale,
    )


def _torch_reader(
    settings: ModelSettings,
    config: Mapping[str, Any],
    arrays: Mapping[str, NDArray[np.float32]],
    scale: float,
    threads: int | None,
) -> LabelReader:
    """Return a reader of torch with these weights, and set the number of torch's threads."""
    import torch

    from charlm.nn.classifier import Classifier, TorchReader
    from charlm.nn.task_models import build_model

    model = cast(Classifier, build_model(settings, config["vocab_size"], config[layout.TASK]))
    model.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    work = sum(tensor.numel() for tensor in model.layers.parameters())
    torch.set_num_threads(threads or useful_threads(work, WEIGHTS_PER_THREAD))
    return TorchReader(model.requires_grad_(False), scale)
