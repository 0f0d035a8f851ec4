"""The training step: parts of a batch add up to the whole, for every task."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from helpers import encoded_documents, encoded_stream, seeded, tiny_model, vocabulary_of

from charlm.config.model import ModelSettings
from charlm.config.training import TrainingSettings
from charlm.nn.classifier import Classifier
from charlm.nn.devices import Precision
from charlm.nn.encoder import Encoder
from charlm.nn.series import SeriesModel
from charlm.nn.tagger import Tagger
from charlm.nn.translator import Translator
from charlm.tasks.classify import ClassifyLoss
from charlm.tasks.language_model import LanguageModelLoss
from charlm.tasks.series import SeriesLoss
from charlm.tasks.tag import TagLoss
from charlm.tasks.task import Loss, Task
from charlm.tasks.translate import TranslateLoss
from charlm.text.batches import PADDING, Batch, Batches, BatchSpec, Position
from charlm.text.encoded import EncodedText
from charlm.text.groups import LabelGroups
from charlm.text.pair_batches import pair_batch
from charlm.text.sentences import encode_sentences
from charlm.text.series import Scales
from charlm.text.series_batches import SeriesBatch, SeriesBatches
from charlm.text.word_batches import word_batch
from charlm.training.step import Step
from charlm.training.train_state import TrainState

V = 60
SIZES = {"num_layers": 1, "hidden_size": 16, "embedding_size": 4}
EXACT = Precision(name="fp32", reason="test")
Case = tuple[Encoder, Loss, Batch]


def texts(count: int, seed: int = 0, size: int = V) -> EncodedText:
    """Return documents of 1 to 7 tokens and an end."""
    draws = np.random.default_rng(seed)
    return encoded_documents(
        [[*draws.integers(2, size, draws.integers(1, 8)).tolist(), 1] for _ in range(count)]
    )


def window(text: EncodedText, batch_size: int = 4, bptt: int = 6) -> Batch:
    spec = BatchSpec(batch_size=batch_size, bptt=bptt)
    return next(Batches(text, spec).epoch(Position()))


def language(batch: Batch, kind: str = "lstm", **settings: float) -> Case:
    adaptive = {"adaptive_softmax": True} if kind == "adaptive" else {}
    cell = "lstm" if adaptive else kind
    model = tiny_model(cell, V, **SIZES, **adaptive)
    chosen = TrainingSettings(learning_rate=0.1, **settings)
    return model, LanguageModelLoss(chosen, EXACT), batch


def classified(**more: Any) -> Case:
    task = {"labels": ["a", "b", "c"], "pooling": "mean", "both_ways": True}
    model = Classifier.of_task(ModelSettings(**SIZES), V, task)
    targets = np.arange(4, dtype=np.int32) % 3
    batch = LabelGroups(texts(4), targets, 4, 0).batch(np.arange(4), Position())
    return model, ClassifyLoss(precision=EXACT, **more), batch


def tagged(output: str, smoothing: float = 0.0) -> Case:
    words = [["The", "cat"], ["a", "dog", "sat", "there"], ["cat"], ["A", "cat", "sat"]]
    vocabulary = vocabulary_of("The cat a dog sat there A", "word", words="whitespace")
    sentences = encode_sentences(words, vocabulary)
    table = {"name": "tag", "labels": ["x", "y", "O"], "spans": False, "both_ways": True,
             "output": output, "letter_width": 0, "letters": 0}  # fmt: skip
    model = Tagger.of_task(ModelSettings(**SIZES), len(vocabulary), table)
    targets = np.arange(10, dtype=np.int32) % 3
    loss = TagLoss(precision=EXACT, smoothing=smoothing, sentences=sentences)
    return model, loss, word_batch(sentences, np.arange(4), targets)


def translated(smoothing: float) -> Case:
    task = {"target_size": 9, "both_ways": True}
    model = Translator.of_task(ModelSettings(**SIZES, tie_weights=False), V, task)
    batch = pair_batch(texts(4), texts(4, 1, size=9), np.arange(4))
    return model, TranslateLoss(precision=EXACT, smoothing=smoothing), batch


def series() -> Case:
    values = np.sin(np.arange(30.0))
    text = EncodedText.stream(np.ones(29, np.uint8))
    spec = BatchSpec(batch_size=4, bptt=6)
    *_, batch = SeriesBatches(text, values, Scales.of(values), spec).epoch(Position())
    return SeriesModel(ModelSettings(**SIZES), 2), SeriesLoss(EXACT, math.log(3.0)), batch


PENALTIES = {"activation_penalty": 2.0, "slowness_penalty": 30.0}
CASES: dict[str, Callable[[], Case]] = {
    "stream": lambda: language(window(encoded_stream(np.arange(2, 58)))),
    "lines": lambda: language(window(texts(4))),
    "penalties of lines": lambda: language(window(texts(4)), **PENALTIES),
    "smoothing of lines": lambda: language(window(texts(4)), label_smoothing=0.3),
    "one step": lambda: language(window(texts(4), bptt=1), slowness_penalty=9.0),
    "mixture": lambda: language(window(texts(4)), "mixture", label_smoothing=0.1),
    "adaptive": lambda: language(window(texts(4)), "adaptive"),
    "classify": lambda: classified(smoothing=0.1, weights=torch.tensor([0.5, 1.0, 1.5])),
    "tag": lambda: tagged("softmax", 0.1),
    "tag crf": lambda: tagged("crf"),
    "translate": lambda: translated(0.2),
    "series": series,
}  # fmt: skip


def fill(model: Any) -> None:
    """Give a model random weights; until then, some have no set values."""
    model.reset_parameters(seeded(3))
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.3 * torch.randn(weight.shape, generator=seeded(weight.ndim)))


def gradients(case: Case, parts: int) -> tuple[list[torch.Tensor], float]:
    """Return the gradients of a batch that is read in parts, and its nats."""
    model, loss, batch = case
    fill(model)
    state = TrainState(model, TrainingSettings(optimizer="sgd", learning_rate=0.1))
    state.counters.parts = parts
    step = Step(state, Task(batches=None, loss=loss, evaluate=None))  # type: ignore[arg-type]
    step.add(batch, 0.7)
    found = [w.grad.clone() for w in model.parameters() if w.grad is not None]
    step.update(0.0)
    return found, state.counters.sum_nats


@pytest.mark.parametrize("name", CASES)
def test_parts_of_a_batch_add_up_to_the_whole(name: str) -> None:
    """Loss, penalties and nats are sums over targets, whatever is read side by side.

    The story: with penalties, parts of unequal lengths were weighed by their own mean changes.
    """
    whole, nats = gradients(CASES[name](), 1)
    for parts in (2, 3, 4):
        split, split_nats = gradients(CASES[name](), parts)
        assert len(split) == len(whole) > 0
        for ours, theirs in zip(split, whole, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
        assert split_nats == pytest.approx(nats, rel=1e-6)


@pytest.mark.parametrize("name", ["smoothing of lines", "series"])
def test_padding_counts_nothing(name: str) -> None:
    """The nats of a batch are those of its sequences, each cut to its own length."""
    model, loss, batch = CASES[name]()
    fill(model)
    real = batch.real if isinstance(batch, SeriesBatch) else batch.targets != PADDING
    assert not real.all()
    total = 0.0
    for column, alone in enumerate(batch.split(len(batch.kept))):
        length = int(real[:, column].sum())
        cut = {f: getattr(alone, f)[:length] for f in ("inputs", "targets", "real")
               if hasattr(alone, f)}  # fmt: skip
        total += float(loss(model, replace(alone, **cut), None, seeded()).nats)
    assert float(loss(model, batch, None, seeded()).nats) == pytest.approx(total, rel=1e-5)
