"""Rows: requests of many users, answered side by side by one worker thread.

A row is one sample of one prompt. Each round, the worker admits waiting work while there is room,
reads some tokens of new prompts, and samples some tokens for every row. An answer does not depend
on who else is asking: on the native backend it is the same to the bit.
"""

import itertools
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, NamedTuple

import numpy as np

from charlm.backends.interface import Backend, Ids
from charlm.errors import EnvironmentFailure, UsageError, check_count
from charlm.inference.generation import Position, SampleText, sample_steps
from charlm.inference.prompt_reading import Alternatives, PromptPart, likeliest_losses, read_parts
from charlm.inference.samplers import Sampling
from charlm.text.boundaries import Boundaries
from charlm.text.direction import BackwardVocabulary
from charlm.text.tokenizers.tokenizer_json import EOS, UNK
from charlm.text.tokenizers.vocabulary import Vocabulary

READ_EACH_ROUND = 4096
"""Maximum tokens of prompts that are read in a round."""
MAX_STEPS = 32
"""Maximum tokens that are sampled for each row in a round."""


class QueueFull(EnvironmentFailure):
    """Work that was refused because too much is waiting."""


class Stopping(EnvironmentFailure):
    """Work that was refused or ended because the rows are being stopped."""


class TokenFigures(NamedTuple):
    """A token with its figures under the model, before temperature and sampling rules.

    `nats` is -ln P, or None for the EOS with which a prompt begins. `alternatives` are the
    likeliest tokens in its place, ids with nats, the likeliest first; the token itself is always
    among them. `offset` is the number of characters of the text before it.
    """

    id: int
    nats: float | None
    alternatives: Alternatives
    offset: int


@dataclass(frozen=True, slots=True)
class PromptFigures:
    """Figures of all tokens of a prompt; offsets are in `Vocabulary.decode` of its ids."""

    prompt: int
    tokens: list[TokenFigures]


@dataclass(frozen=True, slots=True)
class NewText:
    """New text of a row, with the tokens that begin in it and the number of tokens sampled for it.

    Row number `prompt * samples + sample`. `count` includes EOS and the tokens of a stop text;
    `tokens` (empty without `Work.top`) has the EOS, but no token that begins in the stop text.
    `reason` is None until the last event of the row.
    """

    row: int
    text: str
    tokens: list[TokenFigures]
    count: int
    reason: str | None
    stop_text: str | None


@dataclass(frozen=True, slots=True)
class Finished:
    """End of a work; its last event."""


@dataclass(frozen=True, slots=True)
class Failed:
    """Failure of a work; its last event."""

    error: BaseException


Event = PromptFigures | NewText | Finished | Failed
Listen = Callable[[Event], None]
"""Function that takes the events of a work, on the worker thread. It must not block."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """Request for samples after prompts, or for the figures of prompts, or both.

    Prompts are token ids and may begin with an EOS or have some inside; the state resets after an
    EOS if the model was trained so. Sample i of each prompt draws from `default_rng([seed, i])`.
    `bias` is added to logits, by id. A row ends at EOS (`until_eos`) or before one of the texts
    `stop`. `top` is the number of alternatives that are kept per token; None keeps no figures.
    """

    prompts: tuple[Ids, ...]
    samples: int = 1
    max_tokens: int = 16
    sampling: Sampling = field(default_factory=Sampling)
    bias: Mapping[int, float] = field(default_factory=dict)
    seed: int = 0
    stop: tuple[str, ...] = ()
    until_eos: bool = True
    top: int | None = None
    score_prompts: bool = False

    def check(self, vocabulary: Vocabulary) -> None:
        """Raise UsageError for values that do not fit each other or the vocabulary."""
        check_count("samples", self.samples, 1)
        check_count("max_tokens", self.max_tokens, 0)
        if self.top is not None:
            check_count("top", self.top, 0)
        size = len(vocabulary)
        for ids in [*self.prompts, np.array(list(self.bias), np.int64)]:
            if len(ids) and not 0 <= ids.min() <= ids.max() < size:
                raise UsageError(
                    f"token ids from {ids.min()} to {ids.max()}; expected 0 to {size - 1} "
                    "(token id out of vocabulary)"
                )
        if any(self.stop) and isinstance(vocabulary, BackwardVocabulary):
            raise UsageError("stop with a model that reads backward; leave it out")


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Numbers of waiting works, of active rows, and since the start: works, refused ones, tokens.

    `tokens` are those sampled.
    """

    waiting: int
    rows: int
    requests: int
    refused: int
    tokens: int


class Ticket:
    """Handle of submitted work."""

    def __init__(self, job: "_Job", wake: Callable[[], None]) -> None:
        self._job, self._wake = job, wake

    def cancel(self) -> None:
        """End the work: its rows leave in the next round, and it has no more events."""
        self._job.ended = True
        self._wake()


class Rows:
    """Worker thread that is the only user of a backend, with at most `rows` rows side by side.

    At most `queue` works and calls wait; more are refused.
    """

    def __init__(
        self,
        backend: Backend,
        vocabulary: Vocabulary,
        boundaries: Boundaries,
        rows: int = 64,
        queue: int = 256,
    ) -> None:
        check_count("rows", rows, 1)
        check_count("queue", queue, 1)
        self.backend, self.vocabulary, self.boundaries = backend, vocabulary, boundaries
        self.rows, self.queue = rows, queue
        self._changed = threading.Condition()
        self._jobs, self._calls = deque[_Job](), deque[tuple[Future[Any], Callable[[], Any]]]()
        self._end: float | None = None  # time at which active rows end, after `stop`
        self._requests = self._refused = self._tokens = 0
        self._reading: list[_Prompt] = []
        self._ready = deque[_Row]()
        self._groups = [_Group(plain=True), _Group(plain=False)]
        self._thread = threading.Thread(target=self._run, name="charlm rows", daemon=True)
        self._thread.start()

    @property
    def counts(self) -> Counts:
        """Numbers for a health check."""
        return Counts(
            waiting=len(self._jobs) + len(self._calls),
            rows=self._active,
            requests=self._requests,
            refused=self._refused,
            tokens=self._tokens,
        )

    def submit(self, work: Work, listen: Listen) -> Ticket:
        """Add work to the queue; `listen` takes its events on the worker thread.

        Raises UsageError for work that does not fit the model, QueueFull, and Stopping.
        """
        work.check(self.vocabulary)
        job = _Job(work, listen)
        self._enqueue(self._jobs, job)
        return Ticket(job, self._wake)

    def call(self, function: Callable[[], Any]) -> "Future[Any]":
        """Run another use of the backend on the worker thread, between two rounds.

        Raises QueueFull and Stopping.
        """
        future = Future[Any]()
        self._enqueue(self._calls, (future, function))
        return future

    def stop(self, grace: float = 0.0) -> None:
        """Refuse new work, end waiting work, and end active rows after `grace` seconds.

        They end with `Failed(Stopping)`. Returns at once; see `join`. A second call can shorten the
        grace.
        """
        with self._changed:
            self._end = min(monotonic() + grace, self._end or float("inf"))
            self._changed.notify()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until the worker has ended after `stop`; return True if it has."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _enqueue(self, queue: deque[Any], item: Any) -> None:
        with self._changed:
            self._requests += queue is self._jobs
            if self._end is not None:
                self._refused += 1
                raise Stopping("this server is stopping; expected a running one. Try again later")
            if len(self._jobs) + len(self._calls) >= self.queue:
                self._refused += 1
                raise QueueFull(f"{self.queue} requests are waiting; try again later")
            queue.append(item)
            self._changed.notify()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify()

    # ---- the worker thread

    @property
    def _active(self) -> int:
        return sum(len(group.rows) for group in self._groups)

    @property
    def _busy(self) -> bool:
        return bool(self._reading or self._ready or self._active)

    def _run(self) -> None:
        while self._wait():
            self._remove_ended()
            self._run_call()
            self._admit()
            self._read()
            for group in self._groups:
                self._fill(group)
                self._sample(group)
        self._fail_all()

    def _wait(self) -> bool:
        """Wait for something to do; return False if the thread is to end."""
        with self._changed:
            while not (self._jobs or self._calls or self._busy or self._end is not None):
                self._changed.wait()
        if self._end is None:
            return True
        self._fail_waiting()
        return self._busy and monotonic() < self._end

    def _fail_waiting(self) -> None:
        error = Stopping("this server is stopping; expected a running one. Try again later")
        while self._calls:
            future, _ = self._calls.popleft()
            if future.set_running_or_notify_cancel():
                future.set_exception(error)
        while self._jobs:
            self._jobs.popleft().fail(error)

    def _fail_all(self) -> None:
        self._fail_waiting()
        error = Stopping("this server has stopped before the end of the text")
        for job in self._begun():
            job.fail(error)

    def _begun(self) -> list["_Job"]:
        """Return the works that have begun, in order."""
        rows = [*self._ready, *(row for group in self._groups for row in group.rows)]
        jobs = [prompt.job for prompt in self._reading] + [row.job for row in rows]
        return list(dict.fromkeys(jobs))

    def _remove_ended(self) -> None:
        """Remove what belongs to works that have ended, were cancelled, or have failed."""
        with self._changed:
            if any(job.ended for job in self._jobs):
                self._jobs = deque(job for job in self._jobs if not job.ended)
        self._reading = [prompt for prompt in self._reading if not prompt.job.ended]
        self._ready = deque(row for row in self._ready if not row.job.ended)
        for group in self._groups:
            group.keep_active()

    def _run_call(self) -> None:
        """Run the first waiting call; rows are served before the next one."""
        if not self._calls:
            return
        future, function = self._calls.popleft()
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    def _admit(self) -> None:
        """Begin prompts, in order, while there is room for their rows."""
        room = self.rows - self._active - len(self._ready)
        room -= sum(prompt.rows for prompt in self._reading)
        while room > 0 and self._jobs:
            job = self._jobs[0]
            prompt = job.next_prompt(self.boundaries.resets)
            if prompt is None:
                self._jobs.popleft()
                continue
            self._reading.append(prompt)
            room -= prompt.rows

    def _read(self) -> None:
        """Read tokens of prompts; those that are complete give rows."""
        if not self._reading:
            return
        parts = [part for prompt in self._reading for part in prompt.parts]
        jobs = [prompt.job for prompt in self._reading]
        if not _guarded(jobs, lambda: read_parts(self.backend, parts, READ_EACH_ROUND)):
            return
        complete = [prompt for prompt in self._reading if all(part.done for part in prompt.parts)]
        self._reading = [prompt for prompt in self._reading if prompt not in complete]
        for prompt in complete:
            _guarded([prompt.job], lambda prompt=prompt: self._begin_rows(prompt))  # type: ignore[misc]

    def _fill(self, group: "_Group") -> None:
        """Move rows of read prompts to their group while there is room."""
        rows = [row for row in self._ready if row.plain == group.plain]
        group.add(rows[: max(0, self.rows - self._active)])
        self._ready = deque(row for row in self._ready if not row.active)

    def _begin_rows(self, prompt: "_Prompt") -> None:
        """Report the figures of a prompt and queue its rows."""
        work = prompt.job.work
        if work.score_prompts:
            prompt.job.tell(PromptFigures(prompt.number, prompt.figures(self.vocabulary)))
        separator = self.boundaries.separator
        for sample in range(work.samples):
            row = _Row(prompt, sample, self.vocabulary, separator)
            if work.max_tokens:
                self._ready.append(row)
            else:
                row.end("length")
        prompt.job.prompts_left -= 1
        prompt.job.finish_if_done()

    def _sample(self, group: "_Group") -> None:
        """Sample tokens for each row of a group."""
        rows = group.rows
        if not rows:
            return
        steps = 1 if any(row.count == 0 for row in rows) else MAX_STEPS
        steps = min(steps, *(row.work.max_tokens - row.count for row in rows))
        restart = EOS if self.boundaries.resets else -1
        if not _guarded(
            [row.job for row in rows], lambda: group.sample(self.backend, steps, restart)
        ):
            return
        for row in rows:
            before = row.count
            _guarded([row.job], row.report)
            self._tokens += row.count - before
        group.keep_active()


def _guarded(jobs: Sequence["_Job"], function: Callable[[], Any]) -> bool:
    """Call a function; if it raises, fail the works. Return True if it did not raise."""
    try:
        function()
    except BaseException as error:
        for job in dict.fromkeys(jobs):
            job.fail(error)
        return False
    return True


class _Job:
    """Submitted work and what is left of it."""

    def __init__(self, work: Work, listen: Listen) -> None:
        self.work, self.listen = work, listen
        self.ended = False
        self.begun = 0
        self.prompts_left = len(work.prompts)
        self.rows_left = len(work.prompts) * work.samples

    def tell(self, event: Event) -> None:
        """Report an event; a work whose listener raises ends."""
        if self.ended:
            return
        try:
            self.listen(event)
        except BaseException:
            self.ended = True

    def fail(self, error: BaseException) -> None:
        """Report a failure, the last event."""
        self.tell(Failed(error))
        self.ended = True

    def next_prompt(self, resets: bool) -> "_Prompt | None":
        """Return the next prompt to read, or None after the last one."""
        if self.ended or self.begun == len(self.work.prompts):
            self.finish_if_done()
            return None
        self.begun += 1
        return _Prompt(self, self.begun - 1, resets)

    def finish_if_done(self) -> None:
        """Report the end once everything is complete."""
        if self.prompts_left == 0 and self.rows_left == 0 and not self.ended:
            self.tell(Finished())
            self.ended = True


class _Prompt:
    """A prompt that is being read, in parts between resets of the state."""

    def __init__(self, job: _Job, number: int, resets: bool) -> None:
        self.job, self.number = job, number
        self.ids = np.asarray(job.work.prompts[number], np.int64)
        self.rows = job.work.samples if job.work.max_tokens else 1
        head = self.ids[1:] if len(self.ids) and self.ids[0] == EOS else self.ids
        pieces = np.split(head, np.flatnonzero(head == EOS) + 1) if resets else [head]
        scored = job.work.score_prompts
        top = job.work.top or 0
        if not scored:
            pieces = pieces[-1:]
        self.parts = [
            PromptPart(piece, scored=scored, top=top, last=place == len(pieces))
            for place, piece in enumerate(pieces, start=1)
        ]

    @property
    def position(self) -> Position:
        """Position after the prompt, once it is read."""
        after = self.parts[-1].after
        assert after is not None
        return after

    def figures(self, vocabulary: Vocabulary) -> list[TokenFigures]:
        """Return the figures of every token."""
        pairs = [pair for part in self.parts for pair in part.figures]
        own: list[tuple[float | None, Alternatives]] = [*pairs]
        if len(pairs) < len(self.ids):
            own.insert(0, (None, ()))
        decoder, offset, tokens = vocabulary.decoder(), 0, []
        for index, (nats, alternatives) in zip(self.ids.tolist(), own, strict=True):
            tokens.append(TokenFigures(index, nats, alternatives, offset))
            offset += len(decoder.feed(index))
        return tokens


class _Row:
    """One sample of a prompt."""

    def __init__(
        self, prompt: _Prompt, sample: int, vocabulary: Vocabulary, separator: str
    ) -> None:
        self.job, self.work = prompt.job, prompt.job.work
        self.number = prompt.number * self.work.samples + sample
        self.start = prompt.position
        self.plain = self.work.sampling.is_plain and not self.work.bias and self.work.top is None
        self.active = False
        self.generator = np.random.default_rng([self.work.seed % 2**64, sample])
        self.text = SampleText(vocabulary, prompt.ids.tolist(), self.work.stop, separator)
        self.count = 0
        self.pending: list[TokenFigures] = []
        self.new: tuple[list[int], list[tuple[float, Alternatives]] | None] = [], None

    def report(self) -> None:
        """Report the text of the tokens in `new`."""
        ids, figures = self.new
        pieces, begun, reason = [], self.count, None
        for step, index in enumerate(ids):
            if figures is not None:
                self.pending.append(TokenFigures(index, *figures[step], self.text.length))
            piece, continues = self.text.add(index, self.work.until_eos)
            pieces.append(piece)
            self.count += 1
            if not continues:
                reason = "stop"
            elif self.count == self.work.max_tokens:
                pieces.append(self.text.finish())
                reason = "stop" if self.text.stopped_by else "length"
            if reason:
                break
        text, count = "".join(pieces), self.count - begun
        if reason:
            self.end(reason, text, count)
        else:
            self.job.tell(NewText(self.number, text, self._certain(), count, None, None))

    def end(self, reason: str, text: str = "", count: int = 0) -> None:
        """Report the last text."""
        tokens, stop = self._certain(), self.text.stopped_by
        if stop is None:
            tokens += self.pending
        self.job.tell(NewText(self.number, text, tokens, count, reason, stop))
        self.active = False
        self.job.rows_left -= 1
        self.job.finish_if_done()

    def _certain(self) -> list[TokenFigures]:
        """Take the figures of the tokens that begin in the certain text."""
        given = list(itertools.takewhile(lambda one: one.offset < self.text.certain, self.pending))
        self.pending = self.pending[len(given) :]
        return given


class _Group:
    """Rows that are sampled together: those with only a temperature, or the others."""

    def __init__(self, *, plain: bool) -> None:
        self.plain = plain
        self.rows: list[_Row] = []
        self.position: Position | None = None

    def add(self, rows: list[_Row]) -> None:
        """Add rows at the end."""
        if not rows:
            return
        for row in rows:
            row.active = True
        before = [self.position] if self.position else []
        self.position = Position.joined([*before, *(row.start for row in rows)])
        self.rows += rows

    def keep_active(self) -> None:
        """Remove the rows that have ended."""
        kept = [place for place, row in enumerate(self.rows) if row.active and not row.job.ended]
        if len(kept) == len(self.rows):
            return
        self.rows = [self.rows[place] for place in kept]
        self.position = self.position.rows(kept) if self.position and kept else None

    def sample(self, backend: Backend, steps: int, restart: int) -> None:
        """Sample tokens for every row; they are in its `new`."""
        assert self.position is not None
        for row in self.rows:
            row.new = [], None
        uniform = [row.generator.random(steps) for row in self.rows]
        states = self.position
        results = []
        for place, row in enumerate(self.rows):  # one by one; side by side below once allowed
            bias = None
            if row.work.bias:
                bias = np.zeros((1, backend.vocab_size))
                bias[0, list(row.work.bias)] = list(row.work.bias.values())
            taken = sample_steps(
                backend,
                states.rows([place]),
                uniform[place][:, None],
                row.work.sampling,
                UNK,
                restart,
                bias=bias,
                keep=row.work.top is not None,
            )
            figures = None
            if row.work.top is not None:
                assert taken.logits is not None
                figures = likeliest_losses(taken.logits[:, 0], taken.ids[:, 0], row.work.top)
            row.new = taken.ids[:, 0].tolist(), figures
            results.append(taken.after)
        self.position = Position.joined(results)
