"""A run that gives translations, in memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from charlm.backends.translator_weights import DECODER_LAYERS, decoder_settings
from charlm.config.fields import MAX_COUNT
from charlm.errors import CorpusError, RunError
from charlm.inference.search import BEAM, Steps, forced_nats
from charlm.inference.translating import NOTHING, ArraySteps, Languages, Text, translations
from charlm.inference.translation_counts import TranslationCounts
from charlm.runs import layout
from charlm.runs.engines import uses_torch
from charlm.runs.task_run import TaskRun
from charlm.runs.task_weights import TaskWeights
from charlm.text.encoded import EncodedText
from charlm.text.groups import text_lengths
from charlm.text.labelled import encode_texts
from charlm.text.tokenizers.vocabulary import load_vocabulary

MAX_TOKENS = 1000
"""Maximum length of a text that is translated."""


@dataclass(frozen=True, kw_only=True)
class EncodedPairs:
    """Texts and their translations, encoded and as they were read.

    The training text that is kept with a run is there only encoded.
    """

    sources: EncodedText
    targets: EncodedText
    pairs: Sequence[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class TranslateRun(TaskRun[EncodedPairs]):
    """A translator with its two vocabularies, in memory."""

    languages: Languages
    reader: Steps

    def beside(self, name: str, text: EncodedText) -> EncodedPairs:
        """Return the kept texts of a split with their translations."""
        from charlm.text.parallel import PARALLEL, Parallel

        beside = cast(Parallel, PARALLEL.read(self.path, self.config, {name: text}))
        pairs = beside.pairs.get(name, ())
        return EncodedPairs(sources=text, targets=beside.texts[name], pairs=pairs)

    def encoded(self, pairs: Sequence[tuple[str, str]]) -> EncodedPairs:
        """Encode texts and their translations. Raises CorpusError for long ones."""
        sources, targets = (
            encode_texts([pair[side] for pair in pairs], vocabulary, MAX_COUNT, "start")
            for side, vocabulary in enumerate((self.languages.source, self.languages.target))
        )
        for side, encoded in enumerate((sources, targets)):
            _check_lengths([pair[side] for pair in pairs], encoded)
        return EncodedPairs(sources=sources, targets=targets, pairs=pairs)

    def translate(self, texts: Sequence[str], beam: int = BEAM) -> list[Text]:
        """Return the translation of each text; that of a text without words is empty.

        Raises CorpusError for a text of more than MAX_TOKENS tokens.
        """
        numbers = [number for number, text in enumerate(texts) if text.strip()]
        given = [texts[number] for number in numbers]
        encoded = encode_texts(given, self.vocabulary, MAX_COUNT, "start")
        _check_lengths(given, encoded)
        found = translations(self.reader, self.languages, given, encoded, beam)
        answers = dict(zip(numbers, found, strict=True))
        return [answers.get(number, NOTHING) for number in range(len(texts))]

    def evaluate(
        self, pairs: EncodedPairs, beam: int = BEAM
    ) -> tuple[TranslationCounts, list[Text]]:
        """Translate texts and return the figures of the outputs, and the outputs without attention.

        Blanks at the ends of references do not count.
        """
        sources, references = zip(*pairs.pairs, strict=True)
        found = translations(
            self.reader, self.languages, sources, pairs.sources, beam, with_attention=False
        )
        counts = TranslationCounts.of(
            [each.text for each in found],
            [reference.strip() for reference in references],
            [[token.text for token in each.tokens] for each in found],
            nats=float(forced_nats(self.reader, pairs.sources, pairs.targets).sum()),
            tokens=len(pairs.targets.ids),
            copied=sum(each.copied for each in found),
        )
        return counts, found


def _check_lengths(texts: Sequence[str], encoded: EncodedText) -> None:
    """Raise CorpusError for a text with more than MAX_TOKENS tokens."""
    sizes = text_lengths(encoded) - 1
    long = int(sizes.argmax()) if len(sizes) else 0
    if len(sizes) and sizes[long] > MAX_TOKENS:
        raise CorpusError(
            f"the text {texts[long]!r:.60}... has {sizes[long]:,} tokens; expected at most "
            f"{MAX_TOKENS:,}, as translators are trained on sentences or short texts. Cut it"
        )


def load_translate_run(
    path: Path, *, engine: str = "auto", threads: int | None = None
) -> TranslateRun:
    """Load the run in a folder. Raises RunError if files are missing, damaged or do not match.

    `engine` is as in `runs.networks.load_backend`.
    """
    weights = TaskWeights.load(path, engine, threads)
    target, size = load_vocabulary(path / layout.TARGET), weights.task["target_size"]
    if len(target) != size:
        raise RunError(
            f"{path}: {layout.TARGET} has {len(target)} entries, config.json expects {size}. The "
            "run's files do not match"
        )
    return TranslateRun(
        path=path,
        config=weights.config,
        vocabulary=weights.vocabulary,
        languages=Languages(source=weights.vocabulary, target=target),
        reader=_steps(weights),
    )


def _steps(weights: TaskWeights) -> Steps:
    """Return what computes with weights."""
    if uses_torch(weights.engine):
        from charlm.nn.translator import Translator
        from charlm.nn.translator_steps import TorchSteps

        return TorchSteps(cast(Translator, weights.torch_model("")))
    both_ways = bool(weights.task["both_ways"])
    decoder = decoder_settings(weights.settings, both_ways)
    return ArraySteps.of(
        weights.arrays,
        both_ways,
        lambda prefix: weights.backend(prefix, decoder if prefix == DECODER_LAYERS else None),
    )
