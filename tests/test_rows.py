"""Rows: an answer does not depend on who else is asking.

The rows of each test are stopped after it. Nothing waits for a clock: `Rows.call` runs between two
rounds, so tests hold and release the worker with it.
"""

import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers import tiny_model, vocabulary_of
from hypothesis import given, settings
from hypothesis import strategies as st
from waiting import PATIENCE

from charlm.backends.interface import Backend, Ids, Logits, State
from charlm.backends.kernel_library import variants
from charlm.backends.mixed import MixedBackend
from charlm.backends.native import NativeBackend
from charlm.backends.ngram_backend import NgramBackend
from charlm.backends.numpy_backend import NumpyBackend
from charlm.backends.weights import Weights, weights_from
from charlm.errors import UsageError
from charlm.inference import prompt_reading
from charlm.inference import rows as rows_module
from charlm.inference.generation import gathered, generate, read_prompt
from charlm.inference.prompt_reading import Prompt, read_parts
from charlm.inference.rows import Rows
from charlm.inference.samplers import Sampling, likeliest
from charlm.inference.work import (
    Event,
    Failed,
    Finished,
    Job,
    NewText,
    PromptFigures,
    QueueFull,
    Stopping,
    TokenFigures,
    Work,
)
from charlm.ngrams.kneser_ney import fit
from charlm.nn.encoder import saved_tensors
from charlm.text.boundaries import STREAM, Boundaries
from charlm.text.tokenizers.tokenizer_json import EOS, UNK
from charlm.text.tokenizers.vocabulary import Vocabulary

TEXT = "the cat sat on the mat.\nthe dog sat on the log!\n"
VOCABULARY, BYTES = vocabulary_of(TEXT), vocabulary_of("né – 猫 " * 3, "byte")
LINES = Boundaries(document="line")
V = len(VOCABULARY)
PROMPTS = [VOCABULARY.encode(text).astype(np.int64) for text in ("", "t", "the cat", TEXT)]


def weights_of(vocab_size: int, cell: str = "lstm", eos: float = 0.0) -> Weights:
    """Return random weights, with a value added to the logit of EOS."""
    model = tiny_model(cell, vocab_size, scale=3.0)
    arrays = {name: tensor.numpy() for name, tensor in saved_tensors(model).items()}
    arrays["output.bias"] = arrays["output.bias"].copy()
    arrays["output.bias"][EOS] += eos
    return weights_from(model.settings, arrays)


def native(
    vocab_size: int = V, cell: str = "lstm", eos: float = 0.0, kind: str = "fp32"
) -> NativeBackend:
    if not variants():
        pytest.skip("no compiled kernels; the promise to the bit is theirs")
    return NativeBackend(weights_of(vocab_size, cell, eos), variants()[0], kind, threads=1)


def ngrams() -> NgramBackend:
    return NgramBackend(fit(VOCABULARY.encode(TEXT * 3).astype(np.int64), V, 4)[0])


BACKENDS: dict[str, Callable[[], Backend]] = {
    "lstm": native,
    "gru": lambda: native(cell="gru", eos=2.0),
    "int8": lambda: native(kind="int8"),
    "n-gram": ngrams,
    "mixture": lambda: MixedBackend([native(), ngrams()], (0.4, 0.6)),
}
"""Backends whose answers are the same to the bit."""
every_backend = pytest.mark.parametrize("name", BACKENDS)


class Asked:
    """Work that was submitted, and its events."""

    def __init__(self, rows: Rows, work: Work, *, pauses: bool = False) -> None:
        self.work, self.events, self.pauses = work, list[Event](), pauses
        self.done, self.begun = threading.Event(), threading.Event()
        self.ticket = rows.submit(work, self._listen)

    def _listen(self, event: Event) -> None:
        self.events.append(event)
        if self.pauses and len(self.events) == 2:
            self.ticket.pause()
        self.begun.set()
        if isinstance(event, Finished | Failed):
            self.done.set()

    def answer(self) -> dict:
        """Return all of the answer: texts, figures, counts and reasons, however they were cut."""
        assert self.done.wait(PATIENCE)
        *events, last = self.events
        assert isinstance(last, Finished), last
        answer: dict = {}
        for event in events:
            if isinstance(event, PromptFigures):
                answer["prompt", event.prompt] = event.tokens
                continue
            assert isinstance(event, NewText)
            text, tokens, count, reason, _ = answer.get(event.row, ("", [], 0, None, None))
            assert reason is None, "text after the end of a row"
            answer[event.row] = (
                text + event.text, tokens + event.tokens, count + event.count, event.reason,
                event.stop_text,
            )  # fmt: skip
        return answer

    def rows(self) -> list[tuple[str, list[TokenFigures], int, str, str | None]]:
        """Return text, figures, count, reason and stop text of each row."""
        answer = self.answer()
        return [answer[row] for row in range(len(self.work.prompts) * self.work.samples)]

    def texts(self) -> list[str]:
        return [text for text, *_ in self.rows()]

    def error(self) -> Exception:
        assert self.done.wait(PATIENCE)
        assert isinstance(self.events[-1], Failed)
        return self.events[-1].error


@pytest.fixture
def start() -> Iterator[Callable[..., Rows]]:
    """Return a function that makes rows, which are stopped after the test."""
    made: list[Rows] = []

    def make(
        backend: Backend,
        vocabulary: Vocabulary = VOCABULARY,
        boundaries: Boundaries = STREAM,
        **options: int,
    ) -> Rows:
        made.append(Rows(backend, vocabulary, boundaries, **options))
        return made[-1]

    yield make
    for rows in made:
        rows.stop()
        assert rows.join(PATIENCE)


class Held:
    """A context in which the worker of rows stands still."""

    def __init__(self, rows: Rows) -> None:
        self.rows, self.free, self.held = rows, threading.Event(), threading.Event()

    def __enter__(self) -> None:
        def hold() -> None:
            self.held.set()
            self.free.wait(PATIENCE)

        self.rows.call(hold)
        assert self.held.wait(PATIENCE)

    def __exit__(self, *_: object) -> None:
        self.free.set()


def some_works(count: int, seed: int) -> list[Work]:
    """Return works of all kinds."""
    draws = random.Random(seed)
    return [
        Work(
            prompts=tuple(draws.sample(PROMPTS, draws.choice([1, 1, 2]))),
            samples=draws.choice([1, 1, 3]),
            max_tokens=draws.choice([0, 1, 5, 33, 70]),
            sampling=draws.choice(
                [Sampling(), Sampling(temperature=0.7), Sampling(temperature=0.0),
                 Sampling(top_p=0.8), Sampling(top_k=3, temperature=1.3), Sampling(min_p=0.1)]
            ),
            bias=draws.choice([{}, {}, {5: 2.0, 7: -100.0}]),
            seed=draws.randrange(100),
            stop=draws.choice([(), (), ("at", "og"), ("the ",)]),
            until_eos=draws.choice([True, False]),
            top=draws.choice([None, None, 0, 3]),
            score_prompts=draws.choice([True, False]),
        )
        for _ in range(count)
    ]  # fmt: skip


# ------------------------------------------------------------------ the promise


@every_backend
@pytest.mark.parametrize("boundaries", [STREAM, LINES], ids=["stream", "lines"])
def test_an_answer_does_not_depend_on_who_else_asks(
    name: str,
    boundaries: Boundaries,
    start: Callable[..., Rows],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To the bit: texts, figures, ends; in any order, with others that leave or pause."""
    works = some_works(10, len(name))
    alone = start(BACKENDS[name](), boundaries=boundaries, rows=1)
    expected = [Asked(alone, work).answer() for work in works]
    monkeypatch.setattr(rows_module, "READ_EACH_ROUND", 23)
    monkeypatch.setattr(rows_module, "TURN_ROUNDS", 2)
    for rows, order in ((64, 1), (5, 2)):
        busy = start(BACKENDS[name](), boundaries=boundaries, rows=rows)
        chosen = random.Random(order).sample(range(len(works)), len(works))
        endless = replace(works[0], prompts=(PROMPTS[1],), max_tokens=10**6, until_eos=False)
        asked: dict[int, Asked] = {}
        for place, number in enumerate(chosen):
            other = Asked(busy, replace(endless, seed=place, stop=()))
            asked[number] = Asked(busy, works[number])
            if place % 3 == 0:
                asked[number].ticket.pause()
            assert other.begun.wait(PATIENCE)
            other.ticket.cancel()
            asked[number].ticket.resume()
        for number, answer in enumerate(expected):
            assert asked[number].answer() == answer, works[number]


@every_backend
def test_samples_are_those_of_generate(name: str, start: Callable[..., Rows]) -> None:
    """Sample i of each prompt has the seed of sample i, however many there are."""
    backend = BACKENDS[name]()
    rows, prompts = start(backend), ("the ", "", "cat")
    for sampling in (Sampling(temperature=0.8), Sampling(top_p=0.9)):
        work = Work(
            prompts=tuple(VOCABULARY.encode(text) for text in prompts),
            samples=2, max_tokens=40, sampling=sampling, seed=5,
        )  # fmt: skip
        expected = [
            sample.text
            for prompt in prompts
            for sample in gathered(
                generate(
                    backend, VOCABULARY, prompt=prompt, samples=2, length=40, seed=5,
                    until_eos=True, sampling=sampling,
                ),
                2,
            )
        ]  # fmt: skip
        assert Asked(rows, work).texts() == expected
        few = Asked(rows, replace(work, samples=1, top=2, score_prompts=True))
        assert few.texts() == expected[::2]
    assert Asked(rows, replace(work, seed=-1)).texts() != expected


# ------------------------------------------------------------------ figures


@pytest.mark.parametrize("name", ["lstm", "gru", "numpy", "n-gram", "mixture"])
def test_figures_are_those_of_the_likelihood(name: str, start: Callable[..., Rows]) -> None:
    """Own numbers equal `Backend.nats`, to the bit for networks; alternatives are the best."""
    backend = NumpyBackend(weights_of(V)) if name == "numpy" else BACKENDS[name]()
    prompt = PROMPTS[3]
    work = Work(prompts=(prompt,), max_tokens=20, top=3, score_prompts=True, seed=1)
    answer = Asked(start(backend), work).answer()
    tokens = [*answer["prompt", 0], *answer[0][1]]
    ids = np.array([token.id for token in tokens])
    assert ids[: len(prompt)].tolist() == prompt.tolist()
    inputs, state = np.concatenate([[EOS], ids[:-1]])[:, None], backend.initial_state(1)
    nats, _ = backend.nats(inputs, ids[:, None], state)
    own = np.array([token.nats for token in tokens])
    tolerance = {"numpy": 1e-5, "n-gram": 1e-12, "mixture": 1e-12}.get(name, 0.0)
    np.testing.assert_allclose(own, nats[:, 0], atol=tolerance, rtol=0.0)
    logits, _ = backend.distribution(inputs, state)
    best = likeliest(np.asarray(logits[:, 0], np.float64), 3)
    for token, row, ids_there in zip(tokens, logits[:, 0], best.tolist(), strict=True):
        names = [index for index, _ in token.alternatives]
        assert (token.id, token.nats) in token.alternatives
        if name == "lstm":
            assert names == ids_there + [token.id] * (token.id not in ids_there)
            expected = -backend.log_probabilities(row[None])[0, names]
            assert [nats for _, nats in token.alternatives] == expected.tolist()


def test_few_or_no_figures(start: Callable[..., Rows]) -> None:
    """top=0 keeps the token itself alone, None nothing; a large one keeps all tokens."""
    rows = start(native())
    work = Work(prompts=(PROMPTS[1],), max_tokens=5, until_eos=False)
    assert Asked(rows, work).rows()[0][1] == []
    for top, count in ((0, 1), (10**6, V)):
        tokens = Asked(rows, replace(work, top=top)).rows()[0][1]
        assert len(tokens) == 5
        assert {len(token.alternatives) for token in tokens} == {count}


@pytest.mark.parametrize("vocabulary", [VOCABULARY, BYTES], ids=["char", "byte"])
def test_offsets_count_the_characters_before_each_token(
    vocabulary: Vocabulary, start: Callable[..., Rows]
) -> None:
    """In prompts too; an EOS at the beginning has no text, a later one is a line end."""
    text = "the cat" if vocabulary is VOCABULARY else "né – 猫"
    ids = np.concatenate([[EOS], vocabulary.encode(text).astype(np.int64), [EOS], [5]])
    rows = start(native(len(vocabulary)), vocabulary)
    work = Work(prompts=(ids,), max_tokens=30, top=0, score_prompts=True, until_eos=False)
    answer = Asked(rows, work).answer()
    first, *tokens = answer["prompt", 0]
    assert first == (EOS, None, (), 0)
    for place, token in enumerate(tokens, 1):
        decoder = vocabulary.decoder()
        assert token.offset == len("".join(map(decoder.feed, ids[1:place].tolist())))
    text, tokens, *_ = answer[0]
    decoder, length = vocabulary.decoder(), 0
    for index in ids.tolist():
        decoder.feed(index)
    for token in tokens:
        assert token.offset == length
        length += len(decoder.feed(token.id))
    assert length <= len(text)


# ------------------------------------------------------------------ documents


def test_a_row_ends_at_eos(start: Callable[..., Rows]) -> None:
    """It counts, and has figures, but no text; `until_eos=False` writes on."""
    rows = start(native(eos=4.0), boundaries=LINES)
    work = Work(prompts=(PROMPTS[2],), samples=6, max_tokens=50, seed=2, top=0)
    ended = Asked(rows, work).rows()
    written = Asked(rows, replace(work, until_eos=False)).rows()
    assert {reason for _, _, _, reason, _ in ended} == {"stop"}
    for (text, tokens, count, _, stop), (longer, others, total, reason, _) in zip(
        ended, written, strict=True
    ):
        assert longer.startswith(text + "\n")
        assert count == len(tokens) == len(text) + 1
        assert (total, reason, stop) == (50, "length", None)
        assert tokens[-1] == others[count - 1]
        assert (tokens[-1].id, tokens[-1].offset) == (EOS, len(text))


def test_the_state_resets_in_prompts_and_samples(start: Callable[..., Rows]) -> None:
    """If the model was trained so, what comes before an EOS does not matter; else it does."""
    before, after = PROMPTS[2], VOCABULARY.encode("the")
    whole = np.concatenate([[EOS], before, [EOS], after]).astype(np.int64)
    work = Work(prompts=(after,), max_tokens=9, top=2, score_prompts=True)
    for boundaries, equal in ((LINES, True), (STREAM, False)):
        rows = start(native(), boundaries=boundaries)
        short, long = (
            Asked(rows, replace(work, prompts=(prompt,))).answer() for prompt in (after, whole)
        )
        figures = [token[:3] for token in long["prompt", 0][-len(after) :]]
        assert (figures == [token[:3] for token in short["prompt", 0]]) == equal
        assert (long[0] == short[0]) == equal
        unscored = Asked(rows, replace(work, prompts=(whole,), score_prompts=False)).answer()
        assert unscored[0] == long[0]
    rows = start(native(eos=2.0), boundaries=LINES)
    work = Work(prompts=(after,), max_tokens=60, until_eos=False, top=0)
    tokens = Asked(rows, work).rows()[0][1]
    ids = np.array([*after, *(token.id for token in tokens)], np.int64)
    assert 2 < (ids == EOS).sum() < 40
    again = Asked(rows, Work(prompts=(ids,), max_tokens=0, top=0, score_prompts=True)).answer()
    expected = [token.nats for token in again["prompt", 0][len(after) :]]
    assert [token.nats for token in tokens] == expected


def test_a_prompt_without_tokens_begins_a_document(start: Callable[..., Rows]) -> None:
    """So does one that is an EOS alone, or one that ends with an EOS if the state resets there."""
    rows = start(native(), boundaries=LINES)
    prompts = ((), (EOS,), (5, 6, EOS))
    work = Work(prompts=tuple(np.array(ids, np.int64) for ids in prompts), max_tokens=12)
    assert len(set(Asked(rows, work).texts())) == 1
    assert Asked(rows, replace(work, prompts=())).rows() == []


def test_without_tokens_to_sample_prompts_alone_are_scored(start: Callable[..., Rows]) -> None:
    """Every row has its end, and no text."""
    work = Work(prompts=(PROMPTS[2], PROMPTS[0]), max_tokens=0, score_prompts=True, samples=2)
    answer = Asked(start(native()), work).answer()
    assert [answer[row] for row in range(4)] == [("", [], 0, "length", None)] * 4
    assert [len(answer["prompt", number]) for number in (0, 1)] == [7, 0]


# ------------------------------------------------------------------ stop texts


@pytest.mark.parametrize("vocabulary", [VOCABULARY, BYTES], ids=["char", "byte"])
@pytest.mark.parametrize("stops", [(0,), (1, 0), (2, 1)])
def test_a_row_ends_before_the_first_stop_text(
    vocabulary: Vocabulary, stops: tuple[int, ...], start: Callable[..., Rows]
) -> None:
    """It may begin in one token and end in a later one; figures end before it too."""
    rows = start(native(len(vocabulary)), vocabulary)
    work = Work(prompts=(np.array([5]),), max_tokens=60, seed=4, top=1, until_eos=False)
    ((text, figures, *_),) = Asked(rows, work).rows()
    chosen = tuple([text[20:23], text[30:36], text[50:51]][place] for place in stops)
    place, stop = min((text.find(stop), stop) for stop in chosen)
    ((cut, tokens, count, reason, found),) = Asked(rows, replace(work, stop=chosen)).rows()
    assert (cut, reason, found) == (text[:place], "stop", stop)
    assert tokens == [token for token in figures if token.offset < place]
    assert len(tokens) < count <= 60


def test_text_that_may_become_a_stop_text_is_held_back(start: Callable[..., Rows]) -> None:
    """It arrives at the end, with its figures."""
    rows = start(native())
    work = Work(prompts=(PROMPTS[1],), max_tokens=20, seed=4, top=0, until_eos=False)
    ((text, figures, *_),) = Asked(rows, work).rows()
    asked = Asked(rows, replace(work, stop=(text[-3:] + "☃",)))
    assert asked.rows()[0][:2] == (text, figures)
    last = asked.events[-2]
    assert isinstance(last, NewText)
    assert last.text.endswith(text[-3:])


# ------------------------------------------------------------------ leaving, failing, waiting


def endless(seed: int = 0, **changes) -> Work:
    return Work(prompts=(PROMPTS[1],), max_tokens=10**7, until_eos=False, seed=seed, **changes)


def test_cancelled_rows_leave(start: Callable[..., Rows]) -> None:
    """In the next round, without a further event; the others go on."""
    rows = start(native(), rows=4)
    asked = [Asked(rows, endless(seed)) for seed in range(3)]
    waiting = Asked(rows, endless(3, samples=100))
    for each in asked:
        assert each.begun.wait(PATIENCE)
    cancelled = [*asked[:2], waiting]
    with Held(rows):  # no row is being sampled
        for each in cancelled:
            each.ticket.cancel()
        counts = [len(each.events) for each in cancelled]
        known = len(asked[2].events)
    while len(asked[2].events) <= known + 3:
        asked[2].begun.clear()
        assert asked[2].begun.wait(PATIENCE)
    with Held(rows):
        assert rows.counts.rows == 1
    assert [len(each.events) for each in cancelled] == counts
    assert Asked(rows, Work(prompts=(PROMPTS[2],), max_tokens=3)).texts()


def test_paused_rows_give_their_room_to_others(start: Callable[..., Rows]) -> None:
    """They go on where they were, beside other rows."""
    work = Work(prompts=(PROMPTS[2],), max_tokens=90, until_eos=False, top=1)
    expected = Asked(start(native()), work).answer()
    rows = start(native(), rows=2)
    with Held(rows):
        slow = [Asked(rows, replace(work), pauses=True) for _ in range(2)]
    for seed in range(2):
        Asked(rows, replace(work, seed=seed)).answer()
    with Held(rows):
        assert [len(each.events) for each in slow] == [2, 2]
        assert rows.counts.rows == 0
    other = Asked(rows, endless())
    assert other.begun.wait(PATIENCE)
    for each in slow:
        each.ticket.resume()
        assert each.answer() == expected
    other.ticket.cancel()


def test_no_more_rows_than_there_is_room_for(start: Callable[..., Rows]) -> None:
    """The samples of one work wait for each other."""
    rows = start(native(), rows=3)
    many = Asked(rows, replace(endless(), samples=8))
    assert many.begun.wait(PATIENCE)
    with Held(rows):
        assert rows.counts.rows == 3
    many.ticket.cancel()
    work = Work(prompts=(PROMPTS[2],), samples=8, max_tokens=9)
    assert len(set(Asked(rows, work).texts())) > 1


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(top_k=3)], ids=["plain", "rules"])
def test_a_work_with_many_rows_makes_room_for_others(
    sampling: Sampling, start: Callable[..., Rows]
) -> None:
    """Rows take turns, whatever their rules; each work has its own turn, with all its prompts."""
    work = Work(prompts=(PROMPTS[2],), max_tokens=99, seed=3, sampling=sampling, until_eos=False)
    expected = Asked(start(native()), work).texts()
    rows = start(native(), rows=2)
    many = Asked(rows, replace(endless(samples=3), prompts=(PROMPTS[1],) * 50))
    assert many.begun.wait(PATIENCE)
    assert Asked(rows, work).texts() == expected
    with Held(rows):
        assert not many.done.is_set()
        assert rows.counts.rows == 2
    many.ticket.cancel()


def test_works_beyond_the_number_of_rows_wait(start: Callable[..., Rows]) -> None:
    """A paused one gives its place to the next, and rests itself."""
    rows = start(native(), rows=2)
    asked = [Asked(rows, endless(seed)) for seed in range(3)]
    for each in asked[:2]:
        assert each.begun.wait(PATIENCE)
    with Held(rows):
        assert (rows.counts.waiting, len(asked[2].events)) == (1, 0)
    asked[0].ticket.pause()
    assert asked[2].begun.wait(PATIENCE)
    for each in asked:
        each.ticket.cancel()
    with Held(rows):
        assert rows.counts == replace(rows.counts, waiting=0, rows=0)


def test_a_paused_work_begins_no_prompt(start: Callable[..., Rows]) -> None:
    rows, work = start(native()), Work(prompts=(PROMPTS[2],), max_tokens=3, score_prompts=True)
    with Held(rows):
        slow = Asked(rows, replace(work, prompts=(PROMPTS[2],) * 9))
        slow.ticket.pause()
    expected = Asked(rows, work).texts()
    assert slow.events == []
    slow.ticket.resume()
    assert slow.texts() == expected * 9


def test_a_prompt_that_cannot_begin_ends_its_work_alone(
    start: Callable[..., Rows], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unlucky(Prompt):
        def __init__(self, job: Job, *rest: Any) -> None:
            if job.work.seed == 7:
                raise MemoryError
            super().__init__(job, *rest)

    monkeypatch.setattr(rows_module, "Prompt", Unlucky)
    rows, work = start(native()), Work(prompts=(PROMPTS[2],), max_tokens=9)
    assert isinstance(Asked(rows, replace(work, seed=7)).error(), MemoryError)
    assert Asked(rows, work).texts()


def test_parts_of_a_prompt_are_made_as_they_are_read() -> None:
    """So a prompt of many documents needs little memory and time."""
    ids = np.full(100_000, EOS)
    prompt = Prompt(Job(Work(prompts=(ids,), score_prompts=True), print), 0, VOCABULARY, LINES)
    parts = prompt.next_parts
    assert len(parts) == prompt_reading.MAX_PARTS
    assert prompt.next_parts == parts


class Failing(NumpyBackend):
    """A backend that fails for batches, and for a token."""

    token = VOCABULARY.ids["!"]

    def logits(self, inputs: Ids, state: State) -> tuple[Logits, State]:
        """Raise MemoryError, or return logits."""
        if inputs.shape[1] > 1 or (inputs == self.token).any():
            raise MemoryError
        return super().logits(inputs, state)


def test_a_failure_ends_one_work_alone(start: Callable[..., Rows]) -> None:
    """Even if the failing call was for many: each is tried alone."""
    rows = start(Failing(weights_of(V)))
    never = {Failing.token: -1000.0}
    work = Work(prompts=(PROMPTS[2],), max_tokens=30, sampling=Sampling(top_k=5), bias=never)
    with Held(rows):
        bad = Asked(rows, replace(work, prompts=(np.array([Failing.token]),)))
        later = Asked(rows, replace(work, bias={Failing.token: 1000.0}))
        good = [Asked(rows, replace(work, seed=seed)) for seed in range(3)]
    assert isinstance(bad.error(), MemoryError)
    assert isinstance(later.error(), MemoryError)
    plain = start(NumpyBackend(weights_of(V)))
    for seed, asked in enumerate(good):
        assert asked.texts() == Asked(plain, replace(work, seed=seed)).texts()


def test_a_listener_that_raises_ends_its_own_work(start: Callable[..., Rows]) -> None:
    rows = start(native())
    calls = []

    def listen(event: Event) -> None:
        calls.append(event)
        raise RuntimeError

    rows.submit(replace(endless(), samples=3), listen)
    good = Asked(rows, Work(prompts=(PROMPTS[2],), max_tokens=40))
    assert good.texts()
    with Held(rows):
        assert (rows.counts.rows, len(calls)) == (0, 1)


def test_a_full_queue_refuses_work(start: Callable[..., Rows]) -> None:
    """At once; when there is room again, new work is welcome, and what waited is answered."""
    rows, work = start(native(), queue=3), Work(prompts=(PROMPTS[2],), max_tokens=2)
    with Held(rows):
        asked = [Asked(rows, work) for _ in range(3)]
        for _ in range(2):
            with pytest.raises(QueueFull):
                rows.submit(work, print)
        with pytest.raises(QueueFull):
            rows.call(print)
        assert rows.counts == replace(rows.counts, waiting=3, rows=0, requests=5, refused=3)
    for each in asked:
        each.answer()
    assert Asked(rows, work).texts()
    with Held(rows):
        assert rows.counts == replace(rows.counts, waiting=0, rows=0, requests=6, tokens=8)


def test_stop_ends_what_waits_and_after_a_grace_what_runs(start: Callable[..., Rows]) -> None:
    """New work is refused; a second call shortens the grace."""
    rows, work = start(native(), rows=1), Work(prompts=(PROMPTS[2],), max_tokens=200)
    running = Asked(rows, endless())
    assert running.begun.wait(PATIENCE)
    waiting = Asked(rows, work)
    rows.stop(grace=PATIENCE)
    assert isinstance(waiting.error(), Stopping)
    for refused in (lambda: rows.submit(work, print), lambda: rows.call(print)):
        with pytest.raises(Stopping):
            refused()
    assert not running.done.is_set()
    rows.stop()
    assert isinstance(running.error(), Stopping)
    assert rows.join(PATIENCE)
    assert rows.counts.rows == 0


def test_work_in_progress_may_end_within_the_grace(start: Callable[..., Rows]) -> None:
    rows = start(native())
    work = Work(prompts=(PROMPTS[2],), max_tokens=300, until_eos=False)
    expected = Asked(rows, work).texts()
    running = Asked(rows, work)
    assert running.begun.wait(PATIENCE)
    rows.stop(grace=PATIENCE)
    assert running.texts() == expected
    assert rows.join(PATIENCE)


def test_a_call_runs_on_the_worker_thread(start: Callable[..., Rows]) -> None:
    """Between two rounds, with its result or its error."""
    rows = start(native())
    asked = Asked(rows, endless())
    names = {rows.call(threading.get_ident).result(PATIENCE) for _ in range(3)}
    assert len(names) == 1
    assert threading.get_ident() not in names
    with pytest.raises(ZeroDivisionError):
        rows.call(lambda: 1 // 0).result(PATIENCE)
    asked.ticket.cancel()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts": (np.array([V]),)}, "token ids from"),
        ({"prompts": (np.array([3, -1]),)}, "token ids from -1 to 3"),
        ({"bias": {V: 1.0}}, "out of vocabulary"),
        ({"bias": {3: float("nan")}}, "not finite"),
        ({"samples": 0}, "samples is 0"),
        ({"max_tokens": -1}, "max_tokens is -1"),
        ({"top": -1}, "top is -1"),
    ],
)
def test_work_that_does_not_fit_the_model_is_refused(
    changes: dict, message: str, start: Callable[..., Rows]
) -> None:
    with pytest.raises(UsageError, match=message):
        start(native()).submit(replace(endless(), **changes), print)


# ------------------------------------------------------------------ speed, in steps


class Counting(NumpyBackend):
    """A backend that counts its calls and the tokens that they read."""

    def __init__(self, weights: Weights) -> None:
        super().__init__(weights)
        self.calls = self.tokens = 0

    def _read(self, inputs: Ids, state: State):  # type: ignore[no-untyped-def]
        self.calls, self.tokens = self.calls + 1, self.tokens + inputs.size
        return super()._read(inputs, state)


@settings(max_examples=20)
@given(
    lengths=st.lists(st.integers(0, 12), min_size=1, max_size=8),
    scored=st.booleans(),
    budget=st.integers(1, 30),
)
def test_prompts_of_any_lengths_are_read_side_by_side(
    lengths: list[int], scored: bool, budget: int
) -> None:
    """Each token once, in one call for each length, and with the states of reading alone."""
    backend = Counting(weights_of(V))
    ids = np.random.default_rng(1).integers(2, V, 12)
    work = Work(prompts=tuple(ids[:length] for length in lengths), score_prompts=scored, top=1)
    job = Job(work, print)
    prompts = [Prompt(job, number, VOCABULARY, STREAM) for number in range(len(lengths))]
    while not all(prompt.complete for prompt in prompts):
        before, parts = backend.tokens, [part for prompt in prompts for part in prompt.next_parts]
        assert read_parts(backend, parts, budget) == backend.tokens - before
        assert backend.tokens - before < budget + len(parts)
        for prompt in prompts:
            prompt.collect()
    assert backend.tokens == sum(lengths) + len(lengths)
    if budget == 30 and sum(lengths) + len(lengths) <= budget:
        assert backend.calls == len(set(lengths))
    for prompt in prompts:
        logits, state = read_prompt(backend, prompt.ids)
        np.testing.assert_allclose(prompt.position.logits, logits, atol=1e-5)
        np.testing.assert_allclose(prompt.position.state, state, atol=1e-5)
        assert [token.id for token in prompt.tokens] == prompt.ids.tolist() * scored


def test_many_clients_need_few_calls(start: Callable[..., Rows]) -> None:
    """16 works side by side take a seventh of the calls of the works one after another."""
    calls = {}
    for count in (1, 64):
        backend = Counting(weights_of(V))
        rows = start(backend, rows=count)
        work = Work(prompts=(PROMPTS[2],), max_tokens=64, until_eos=False)
        with Held(rows):
            asked = [Asked(rows, replace(work, seed=seed)) for seed in range(16)]
        for each in asked:
            each.answer()
        calls[count] = backend.calls
    assert calls[64] * 7 < calls[1]


def test_the_budget_of_a_round_limits_the_logits_in_memory(
    start: Callable[..., Rows], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prompt with figures is then read in many calls, with equal figures."""
    work = Work(prompts=(PROMPTS[3],), max_tokens=9, top=2, score_prompts=True)
    expected = Asked(start(native()), work).answer()
    monkeypatch.setattr(prompt_reading, "MAX_KEPT", 3 * V)
    assert Asked(start(native()), work).answer() == expected


def test_unknown_is_never_sampled(start: Callable[..., Rows]) -> None:
    """Not even with a bias for it."""
    work = Work(prompts=(PROMPTS[1],), max_tokens=50, bias={UNK: 100.0}, top=0, until_eos=False)
    assert all(token.id != UNK for token in Asked(start(native()), work).rows()[0][1])
