"""Rows: an answer does not depend on who else is asking."""

import threading

import numpy as np
import pytest
from helpers import engine, tiny_model, vocabulary_of
from waiting import PATIENCE

from charlm.backends.interface import Backend
from charlm.inference.generation import gathered, generate
from charlm.inference.rows import Event, Failed, Finished, NewText, Rows, Work
from charlm.text.boundaries import STREAM
from charlm.text.tokenizers.vocabulary import Vocabulary

VOCABULARY = vocabulary_of()


class Asked:
    """Work that was submitted, and its events."""

    def __init__(self, rows: Rows, work: Work) -> None:
        self.work, self.events = work, list[Event]()
        self.done = threading.Event()
        self.ticket = rows.submit(work, self.listen)

    def listen(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, Finished | Failed):
            self.done.set()

    def texts(self) -> list[str]:
        """Return the text of each row, once the work is finished."""
        assert self.done.wait(PATIENCE)
        assert isinstance(self.events[-1], Finished), self.events[-1]
        texts = [""] * (len(self.work.prompts) * self.work.samples)
        for event in self.events:
            if isinstance(event, NewText):
                texts[event.row] += event.text
        return texts


@pytest.fixture
def rows() -> Rows:
    return Rows(engine(tiny_model("lstm", len(VOCABULARY), scale=2.0)), VOCABULARY, STREAM)


def sampled(backend: Backend, vocabulary: Vocabulary, prompt: str, count: int, **options):
    """Return the texts that `generate` gives."""
    pieces = generate(backend, vocabulary, prompt=prompt, samples=count, **options)
    return [sample.text for sample in gathered(pieces, count)]


def test_samples_equal_those_of_generate(rows: Rows) -> None:
    """For several prompts, each with the same seeds."""
    prompts = tuple(VOCABULARY.encode(text).astype(np.int64) for text in ("the ", "", "cat"))
    asked = Asked(rows, Work(prompts=prompts, samples=2, max_tokens=40, seed=5))
    expected = [
        text
        for prompt in ("the ", "", "cat")
        for text in sampled(rows.backend, VOCABULARY, prompt, 2, length=40, seed=5, until_eos=True)
    ]
    assert asked.texts() == expected
