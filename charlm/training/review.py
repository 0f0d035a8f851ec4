"""Review a finished run: is it over- or under-fitted, what would help, what did it memorise?"""

import math

import numpy as np

from charlm.backends.interface import Backend
from charlm.inference.adapt.calibration import sample_of
from charlm.inference.generation import generate
from charlm.inference.likelihood import evaluate
from charlm.ngrams.overlap import SEPARATOR, longest_overlap, novel_fraction
from charlm.phases import advance, phase
from charlm.text.dataset import Dataset
from charlm.text.documents import END
from charlm.text.encoded import EncodedText
from charlm.text.tokenizers.tokenizer_json import EOS
from charlm.training.fit import Course, Fit, Floor, Limits, judged
from charlm.training.records import Memory, Review
from charlm.training.trainer import Trainer

SAMPLES, SAMPLE_TOKENS = 8, 250
TRAINING_SAMPLE = 20_000
MAX_COMPARED = 5_000_000
"""Tokens of the training text that samples are compared with."""
NGRAM = 8
LIMITS = Limits(small_gap=0.048, large_gap=0.153, almost_nothing=0.02, worse=0.002)
"""Limits of a `Fit`, for nats per token."""
MUCH_WORSE = 1.1
"""Factor by which a network must be worse than n-grams to count as under-fitted. One that has read
its text once or twice and one that fits well are nearer to them, or better."""


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
    fit = language_fit(train, valid_nats, ngram_nats, Course.of(trainer))
    model = trainer.model.settings
    memory = None
    if model.direction != "backward" and dataset.train.firsts is None:
        with phase("checking what was memorised"):
            memory = memory_of(backend, dataset)
    return Review(train={fit.key: train}, advice=judged(fit), memory=memory)


def language_fit(train: float, valid: float | None, ngrams: float | None, course: Course) -> Fit:
    """Return the facts for the review of a language model.

    `train` and `valid` are nats per token without dropout; `ngrams` are the nats per token of
    n-grams on the same text as `valid`.
    """
    floors = []
    if valid is not None and ngrams is not None:
        gain = MUCH_WORSE * ngrams - valid
        figures = f"{ngrams:.3f} nats/token, the network {valid:.3f}"
        floors.append(Floor(name="its n-grams", figures=figures, low=gain, high=gain))
    return Fit(
        key="nats_per_token", figure="{} nats/token", train=train, new=valid, limits=LIMITS,
        floors=floors, course=course,
    )  # fmt: skip


def end_of(text: EncodedText, most: int) -> EncodedText:
    """Return about `most` tokens of a text: documents from all of it, or the end of a stream.

    The end of a stream is nearest to a validation text that was cut off after it.
    """
    if not text.is_stream or len(text.ids) <= most:
        return sample_of(text, most)
    return EncodedText.stream(text.ids[-most:])


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
