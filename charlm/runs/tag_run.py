"""A run that gives tags, in memory."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from charlm.backends.interface import Backend
from charlm.backends.tagger_weights import CHARACTERS, CRF, letter_settings
from charlm.backends.weights import BACKWARD, HEAD, Weights, encoder_weights
from charlm.errors import UsageError, assigned, named
from charlm.inference.crf import Answers, Transitions, answers
from charlm.inference.tag_counts import Known, TagCounts, counted_tags
from charlm.inference.tagging import ArrayTagReader, Letters, TagReader
from charlm.runs import layout
from charlm.runs.engines import uses_torch
from charlm.runs.task_run import TaskRun
from charlm.runs.task_weights import TaskWeights
from charlm.text.encoded import EncodedText
from charlm.text.labels import Labels, Targets, read_targets
from charlm.text.sentence_files import read_kept
from charlm.text.sentences import Sentences, encode_sentences
from charlm.text.spans import legal
from charlm.text.tokenizers.vocabulary import Vocabulary, load_vocabulary


@dataclass(frozen=True, kw_only=True)
class TagRun(TaskRun[tuple[Sentences, Targets]]):
    """A tagger with its vocabularies and tags, in memory."""

    labels: Labels
    reader: TagReader
    steps: Transitions | None
    """Scores of steps from tag to tag, of a CRF."""
    scale: float
    """Factor on all scores that calibration found, or 1."""

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
        return counted_tags(
            self.reader.emissions(sentences),
            targets,
            sentences,
            self.labels.names,
            self.steps,
            scale=self.scale,
            known=known,
        )

    def beside(self, name: str, text: EncodedText) -> tuple[Sentences, Targets]:
        """Return the kept sentences of a split with the tags of their words."""
        folder = self.path / "data" / name
        sentences = read_kept(folder, text)
        return sentences, read_targets(folder, len(sentences.spelling), len(self.labels))


def load_tag_run(path: Path, *, engine: str = "auto", threads: int | None = None) -> TagRun:
    """Load the run in a folder, as in `load_task_run`."""
    weights = TaskWeights.load(path, engine, threads)
    config, task, arrays = weights.config, weights.task, weights.arrays
    if task["letter_width"] and engine == "native":
        raise UsageError(
            f"{assigned('engine', 'native')} with run {path.name}, which reads the letters of "
            f"words; expected auto, numpy or torch. Leave out {named('engine')}"
        )
    letters = load_vocabulary(path / layout.LETTERS) if task["letter_width"] else None
    labels = Labels(tuple(task["labels"]))
    steps = None
    if task["output"] == CRF:
        between, first, last = (arrays[f"{HEAD}{key}"] for key in ("transitions", "first", "last"))
        steps = Transitions.of(between, first, last, legal(labels.names))
    return TagRun(
        path=path,
        config=config,
        vocabulary=weights.vocabulary,
        labels=labels,
        reader=_reader(weights, letters),
        steps=steps,
        scale=float(config.get(layout.LOGIT_SCALE, 1.0)),
    )


def _reader(weights: TaskWeights, letters: Vocabulary | None) -> TagReader:
    """Return what computes with weights; words with letters are read by numpy or torch."""
    if uses_torch(weights.engine):
        from charlm.nn.tagger import Tagger, TorchTagReader

        return TorchTagReader(cast(Tagger, weights.torch_model()), letters)
    settings, arrays = weights.settings, weights.arrays
    halves: tuple[Backend | Weights, ...]
    spelled = None
    if letters:
        halves = tuple(encoder_weights(settings, arrays, prefix) for prefix in weights.prefixes)
        own = letter_settings(settings, weights.task["letter_width"])
        forward, backward = (
            encoder_weights(own, arrays, prefix)
            for prefix in (CHARACTERS, f"{CHARACTERS}{BACKWARD}")
        )
        spelled = Letters(vocabulary=letters, forward=forward, backward=backward)
    else:
        halves = tuple(map(weights.backend, weights.prefixes))
    return ArrayTagReader(
        halves=halves,
        weight=arrays[f"{HEAD}weight"],
        bias=arrays[f"{HEAD}bias"],
        letters=spelled,
    )
