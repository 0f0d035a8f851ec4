"""Review a finished run: is it over- or under-fitted, what would help, what did it memorise?"""

import math
from collections.abc import Sequence

import numpy as np

from charlm.backends.interface import Backend
from charlm.errors import named
from charlm.inference.adapt.calibration import sample_of
from charlm.inference.generation import generate
from charlm.inference.likelihood import evaluate
from charlm.ngrams.overlap import SEPARATOR, longest_overlap, novel_fraction
from charlm.phases import advance, phase
from charlm.text.dataset import Dataset
from charlm.text.documents import END
from charlm.text.encoded import EncodedText
from charlm.text.tokenizers.tokenizer_json import EOS
from charlm.training.records import Memory, Review
from charlm.training.trainer import Trainer

SAMPLES, SAMPLE_TOKENS = 8, 250
TRAINING_SAMPLE = 20_000
MAX_COMPARED = 5_000_000
"""Tokens of the training text that samples are compared with."""
NGRAM = 8
SMALL_GAP, LARGE_GAP = 0.05, 0.18
"""Fractions by which new text costs more nats than training text: below, the model is
under-fitted; above, it has memorised."""
ALMOST_NOTHING = 0.02
"""Nats per token on new text below which there is no more to learn."""
MUCH_WORSE = 1.1
"""Factor by which a network must be worse than n-grams to count as under-fitted. One that has read
its text once or twice and one that fits well are nearer to them, or better."""
WORSE = 0.002
"""Fraction by which the last validation must be worse than the best to count as over-fitted."""


def review(
    trainer: Trainer,
    dataset: Dataset,
    backend: Backend,
    valid_nats: float | None,
    ngram_nats: float | None = None,
) -> Review:
    """Review a finished run, whose best weights `backend` computes with.

    `ngram_nats` are the nats per token of its n-grams on the validation text, if it has any.
    """
    sample = end_of(dataset.train, TRAINING_SAMPLE)
    with phase("evaluating a part of the training text", total=len(sample.ids)):
        train = evaluate(backend, sample).nats_per_token
    model = trainer.model.settings
    advice = diagnosis(
        train,
        valid_nats,
        trainer.counters.validation_nats,
        trainer.passes,
        model.dropout or 0.0,
        ngram_nats,
    )
    memory = None
    if model.direction != "backward" and dataset.train.firsts is None:
        with phase("checking what was memorised"):
            memory = memory_of(backend, dataset)
    return Review(train_nats_per_token=train, advice=advice, memory=memory)


def end_of(text: EncodedText, most: int) -> EncodedText:
    """Return about `most` tokens of a text: documents from all of it, or the end of a stream.

    The end of a stream is nearest to a validation text that was cut off after it.
    """
    if not text.is_stream or len(text.ids) <= most:
        return sample_of(text, most)
    return EncodedText.stream(text.ids[-most:])


def diagnosis(
    train: float,
    valid: float | None,
    validations: Sequence[float],
    passes: float,
    dropout: float,
    ngrams: float | None = None,
) -> list[str]:
    """Return sentences about the fit of a run and what would help most.

    `train` and `valid` are nats per token without dropout; `validations` are the sums of nats of
    all validations; `ngrams` are the nats per token of n-grams on the same text as `valid`.
    """
    if valid is None:
        return ["no text was held out, so its quality on new text is not known"]
    gap = (valid - train) / max(train, 1e-9)
    figures = f"{train:.3f} nats/token on training text, {valid:.3f} on new text"
    if max(train, valid) < ALMOST_NOTHING:
        return [
            f"learned: the text is predicted almost without error ({figures})",
            "check that the text is the one you meant: hardly any real text is so regular",
        ]
    if passes < 1.0:
        return [
            f"under-fitted: the run has read {100 * passes:.0f} % of its training text ({figures})",
            f"what helps most: more time ({named('minutes')})",
        ]
    best = min(range(len(validations)), key=lambda at: validations[at], default=0)
    late = len(validations) - 1 - best
    if late > 0 and validations[-1] > (1.0 + WORSE) * validations[best]:
        percent = 100.0 * (best + 1) / len(validations)
        return [
            f"over-fitted: validation was best after {percent:.0f} % of the run and got worse "
            f"since ({figures})",
            f"what helps most: {_against_memory(dropout)}, or fewer passes",
        ]
    if gap > LARGE_GAP:
        return [
            f"the model predicts its training text {100 * gap:.0f} % better than new text "
            f"({figures})",
            f"what helps most: {_against_memory(dropout)}; a larger model would not",
        ]
    if ngrams is not None and valid > MUCH_WORSE * ngrams:
        return [
            f"under-fitted: the network predicts new text worse than its n-grams do "
            f"({ngrams:.3f} nats/token; network {figures})",
            f"what helps most: {_less(dropout)}more time ({named('minutes')})",
        ]
    if gap < SMALL_GAP:
        return [
            "under-fitted: training text is predicted barely better than new text "
            f"({figures}), after {passes:.1f} passes",
            f"what helps most: {_less(dropout)}more time ({named('minutes')}), and a larger "
            "model with it",
        ]
    return [
        f"well fitted ({figures}), after {passes:.1f} passes",
        f"what helps most: more time ({named('minutes')}), or more text",
    ]


def _less(dropout: float) -> str:
    return "less dropout, then " if dropout > 0.1 else ""


def _against_memory(dropout: float) -> str:
    if dropout < 0.45:
        more = f"{named('dropout')} {min(dropout + 0.15, 0.5):.2g}"
        return f"more text, then more dropout ({more})"
    return "more text, or a smaller model"


def memory_of(backend: Backend, dataset: Dataset, seed: int = 1) -> Memory:
    """Compare samples of a model with its training text."""
    vocabulary, train = dataset.vocabulary, np.asarray(dataset.train.ids[:MAX_COMPARED])
    texts, boundaries = [""] * SAMPLES, dataset.boundaries
    pieces = generate(
        backend, vocabulary, length=SAMPLE_TOKENS, samples=SAMPLES, seed=seed, boundaries=boundaries
    )
    with phase("generating samples", total=SAMPLES * SAMPLE_TOKENS):
        for piece in pieces:
            text = piece.text
            if boundaries.resets and piece.id == EOS:  # the separator would be other tokens
                text = text.removesuffix(boundaries.separator) + END
            texts[piece.sample] += text
            advance()
    samples = [vocabulary.encode_marked(text)[0].astype(np.int64) for text in texts]
    joined = np.concatenate([np.append(ids, SEPARATOR) for ids in samples])
    length, place = longest_overlap(joined, train)
    novel = novel_fraction(joined, train, NGRAM)
    held = dataset.valid.ids[:TRAINING_SAMPLE] if dataset.valid is not None else ()
    held_out = novel_fraction(np.asarray(held, np.int64), train, NGRAM)
    return Memory(
        overlap=length,
        text=vocabulary.decode(joined[place : place + length]),
        novel=None if math.isnan(novel) else novel,
        novel_held_out=None if math.isnan(held_out) else held_out,
    )
