"""A run that gives tags, in memory."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.backends.interface import Backend
from charlm.backends.kernel_library import useful_threads
from charlm.backends.native import WEIGHTS_PER_THREAD
from charlm.backends.numpy_backend import NumpyBackend
from charlm.backends.tagger_weights import CHARACTERS, CRF, letter_settings
from charlm.backends.weights import BACKWARD, HEAD, Weights, encoder_weights
from charlm.config.model import ModelSettings
from charlm.errors import CorpusError, UsageError, check_count, named
from charlm.inference.crf import Answers, Transitions, answers, tag_nats
from charlm.inference.tag_counts import Known, TagCounts
from charlm.inference.tagging import ArrayTagReader, Letters, TagReader
from charlm.runs import layout
from charlm.runs.engines import chosen_engine, compiled_backend, unchanged
from charlm.runs.run import check_weights, checked_vocabulary, model_settings
from charlm.runs.weights import load_arrays
from charlm.text.encoded import read_encoded
from charlm.text.labels import Labels, Targets, read_targets
from charlm.text.sentence_files import read_kept
from charlm.text.sentences import Sentences, encode_sentences
from charlm.text.spans import legal
from charlm.text.tokenizers.vocabulary import Vocabulary, load_vocabulary

Arrays = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True)
class TagRun:
    """A tagger with its vocabularies and tags, in memory."""

    path: Path
    config: dict[str, Any]
    vocabulary: Vocabulary
    labels: Labels
    reader: TagReader
    steps: Transitions | None
    """Scores of steps from tag to tag, of a CRF."""
    scale: float
    """Factor on all scores that calibration found, or 1."""

    @property
    def engine(self) -> str:
        """Name of the reader."""
        return self.reader.name

    def encode(self, sentences: Iterable[Sequence[str]]) -> Sentences:
        """Encode sentences, each a sequence of words."""
        return encode_sentences(sentences, self.vocabulary)

    def answers(self, sentences: Sentences) -> Answers:
        """Return the tags of all words, and the probabilities of all tags."""
        emissions = self.reader.emissions(sentences)
        return answers(emissions, sentences.ends, self.steps, self.scale)

    def counts(
        self, sentences: Sentences, targets: Targets, known: Known | None = None
    ) -> tuple[TagCounts, Answers]:
        """Return the figures of sentences whose words have these tags (W,), and the answers.

        `known` is what the training text has.
        """
        emissions, ends = self.reader.emissions(sentences), sentences.ends
        found = answers(emissions, ends, self.steps, self.scale, targets)
        counts = TagCounts.of_sentences(
            found,
            targets,
            sentences,
            self.labels.names,
            known=known,
            raw_nats=float(tag_nats(emissions, targets, ends, self.steps).sum()),
            scale=self.scale,
        )
        return counts, found

    def kept(self, name: str) -> tuple[Sentences, Targets] | None:
        """Return a split of the run's text (train, valid, test) and its tags, or None.

        Raises CorpusError if it is damaged or does not fit the vocabulary or the tags.
        """
        folder = self.path / "data" / name
        if not (folder / "counts.json").exists():
            return None
        text = read_encoded(folder)
        if not text.fits(len(self.vocabulary)):
            raise CorpusError(f"{folder}: ids that tokenizer.json does not have; delete the folder")
        sentences = read_kept(folder, text)
        return sentences, read_targets(folder, len(sentences.spelling), len(self.labels))


def load_tag_run(path: Path, *, engine: str = "auto", threads: int | None = None) -> TagRun:
    """Load the run in a folder, as in `load_task_run`."""
    if threads is not None:
        check_count("threads", threads, 1)
    config = layout.read_config(path)
    vocabulary = checked_vocabulary(path, config)
    settings, task = model_settings(config, path), config[layout.TASK]
    check_weights(path)
    letters = load_vocabulary(path / layout.LETTERS) if task["letter_width"] else None
    arrays = load_arrays(path / layout.WEIGHTS, settings, config["vocab_size"], task)
    labels = Labels(tuple(task["labels"]))
    steps = None
    if task["output"] == CRF:
        between, first, last = (arrays[f"{HEAD}{key}"] for key in ("transitions", "first", "last"))
        steps = Transitions.of(between, first, last, legal(labels.names))
    return TagRun(
        path=path,
        config=config,
        vocabulary=vocabulary,
        labels=labels,
        reader=_reader(path / layout.WEIGHTS, settings, config, arrays, letters, engine, threads),
        steps=steps,
        scale=float(config.get(layout.LOGIT_SCALE, 1.0)),
    )


def _reader(
    path: Path,
    settings: ModelSettings,
    config: Mapping[str, Any],
    arrays: Arrays,
    letters: Vocabulary | None,
    engine: str,
    threads: int | None,
) -> TagReader:
    """Return what computes with the weights in a file; words with letters are read by numpy.

    Raises UsageError for words with letters and the native engine.
    """
    engine = chosen_engine(settings, engine)
    task, size = config[layout.TASK], config["vocab_size"]
    if engine == "torch":
        return _torch_reader(settings, config, arrays, letters, threads)
    if letters and engine == "native":
        raise UsageError(
            f"{named('engine')} native with run {path.parent.name}, which reads the letters of "
            f"words; expected auto, numpy or torch. Leave out {named('engine')}"
        )
    check = unchanged(path)

    def reread(prefix: str) -> Weights:
        """Read the weights again. Raises RunError if the file is no longer the same."""
        check()
        return encoder_weights(settings, load_arrays(path, settings, size, task), prefix)

    def half(prefix: str) -> Backend | Weights:
        """Return what computes the encoder whose tensors have this prefix."""
        plain = encoder_weights(settings, arrays, prefix)
        if letters:
            return plain
        if engine == "numpy":
            return NumpyBackend(plain)
        required = engine == "native"
        return compiled_backend(plain, "fp32", threads, partial(reread, prefix), required=required)

    spelled = None
    if letters:
        own = letter_settings(settings, task["letter_width"])
        forward, backward = (
            encoder_weights(own, arrays, prefix)
            for prefix in (CHARACTERS, f"{CHARACTERS}{BACKWARD}")
        )
        spelled = Letters(vocabulary=letters, forward=forward, backward=backward)
    return ArrayTagReader(
        halves=tuple(half(prefix) for prefix in ("", BACKWARD)[: 1 + task["both_ways"]]),
        weight=arrays[f"{HEAD}weight"],
        bias=arrays[f"{HEAD}bias"],
        letters=spelled,
    )


def _torch_reader(
    settings: ModelSettings,
    config: Mapping[str, Any],
    arrays: Arrays,
    letters: Vocabulary | None,
    threads: int | None,
) -> TagReader:
    """Return a reader of torch with these weights, and set the number of torch's threads."""
    import torch

    from charlm.nn.tagger import Tagger, TorchTagReader

    model = Tagger.of_task(settings, config["vocab_size"], config[layout.TASK])
    model.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    work = sum(tensor.numel() for tensor in model.layers.parameters())
    torch.set_num_threads(threads or useful_threads(work, WEIGHTS_PER_THREAD))
    return TorchTagReader(model.requires_grad_(False), letters)
