"""A run that gives labels, in memory."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from charlm.backends.weights import HEAD
from charlm.inference.counts import LabelCounts
from charlm.inference.labelling import ArrayReader, LabelReader, MixedReader
from charlm.runs import layout
from charlm.runs.bag import read_bag
from charlm.runs.engines import uses_torch
from charlm.runs.task_run import TaskRun
from charlm.runs.task_weights import TaskWeights
from charlm.text.encoded import EncodedText, TextCounts
from charlm.text.labelled import encode_texts, shortened
from charlm.text.labels import Labels, Targets, read_targets
from charlm.text.tokenizers.spans import token_spans
from charlm.text.tokenizers.tokenizer_json import EOS


@dataclass(frozen=True, kw_only=True)
class LabelRun(TaskRun[tuple[EncodedText, Targets]]):
    """A classifier with its vocabulary and labels, in memory."""

    labels: Labels
    reader: LabelReader

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.path.name

    def encode(self, texts: Iterable[str]) -> EncodedText:
        """Encode texts as one document each; long ones are cut as in training."""
        task = self.config[layout.TASK]
        return encode_texts(texts, self.vocabulary, task["max_tokens"], task["kept_part"])

    def prefixes(self, text: str) -> tuple[list[tuple[int, int]], EncodedText]:
        """Return the characters of each token that is read, and the texts up to each token.

        Of a text that is longer than the model reads, the tokens are those that it keeps.
        """
        task, ids = self.config[layout.TASK], self.vocabulary.encode(text)
        starts, ends = token_spans(self.vocabulary, text, ids)
        kept = shortened(np.arange(len(ids)), task["max_tokens"], task["kept_part"])
        prefixes = [np.append(ids[kept][:count], EOS) for count in range(1, len(kept) + 1)]
        encoded = EncodedText(
            ids=np.concatenate([*prefixes, np.empty(0, ids.dtype)]),
            ends=np.cumsum([len(prefix) for prefix in prefixes], dtype=np.int64),
            counts=TextCounts(),
            is_stream=False,
        )
        return list(zip(starts[kept].tolist(), ends[kept].tolist(), strict=True)), encoded

    def counts(self, logits: NDArray[np.float64], targets: Targets) -> LabelCounts:
        """Count the answers of the reader's logits, shape (N, K), to texts with these targets."""
        scale = _scale(self.config)
        return LabelCounts.of(logits / scale, targets, scale)

    def beside(self, name: str, text: EncodedText) -> tuple[EncodedText, Targets]:
        """Return the kept texts of a split with their targets."""
        return text, read_targets(self.path / "data" / name, text.documents, len(self.labels))


def load_label_run(path: Path, *, engine: str = "auto", threads: int | None = None) -> LabelRun:
    """Load the run in a folder. Raises RunError if files are missing, damaged or do not match.

    `engine` is as in `runs.networks.load_backend`. Raises UsageError for a language model.
    """
    weights = TaskWeights.load(path, engine, threads)
    config, vocabulary = weights.config, weights.vocabulary
    labels = Labels(tuple(weights.task["labels"]))
    reader = _reader(weights)
    if features := config.get(layout.BAG_FEATURES):
        bag = read_bag(path, features, len(labels), len(vocabulary))
        reader = MixedReader(network=reader, bag=bag.times(_scale(config)))
    return LabelRun(path=path, config=config, vocabulary=vocabulary, labels=labels, reader=reader)


def _scale(config: Mapping[str, Any]) -> float:
    """Return the factor on all logits that calibration found, or 1."""
    return float(config.get(layout.LOGIT_SCALE, 1.0))


def _reader(weights: TaskWeights) -> LabelReader:
    """Return what computes with weights."""
    scale = _scale(weights.config)
    if uses_torch(weights.engine):
        from charlm.nn.classifier import Classifier, TorchReader

        return TorchReader(cast(Classifier, weights.torch_model()), scale)
    return ArrayReader(
        halves=tuple(map(weights.backend, weights.prefixes)),
        weight=weights.arrays[f"{HEAD}weight"],
        bias=weights.arrays[f"{HEAD}bias"],
        pooling=weights.task["pooling"],
        scale=scale,
    )
