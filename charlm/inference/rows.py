"""Rows: requests of many users, answered side by side by one worker thread.

A row is one sample of one prompt. Each round, the worker admits waiting work while there is room,
reads some tokens of new prompts, and samples some tokens for every row. An answer does not depend
on who else is asking: on the native backend it is the same to the bit.
"""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from time import monotonic, perf_counter
from typing import Any

from charlm.backends.interface import Backend
from charlm.errors import check_count
from charlm.inference.prompt_reading import Prompt, read_parts
from charlm.inference.row_sampling import Group, Row
from charlm.inference.work import (
    Event,
    Failed,
    Finished,
    Job,
    Listen,
    NewText,
    PromptFigures,
    QueueFull,
    Stopping,
    TokenFigures,
    Work,
)
from charlm.text.boundaries import Boundaries
from charlm.text.tokenizers.tokenizer_json import EOS
from charlm.text.tokenizers.vocabulary import Vocabulary

__all__ = [
    "Counts",
    "Event",
    "Failed",
    "Finished",
    "Listen",
    "NewText",
    "PromptFigures",
    "QueueFull",
    "Rows",
    "Stopping",
    "Ticket",
    "TokenFigures",
    "Work",
]

READ_EACH_ROUND = 4096
"""Maximum tokens of prompts that are read in a round."""
MAX_STEPS = 32
"""Maximum tokens that are sampled for each row in a round."""
ROUND_SECONDS = 0.02
"""Maximum duration of calls, of reading, and of sampling, in a round; others wait for its end."""


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
    """Handle of submitted work, for any thread."""

    def __init__(self, job: Job, wake: Callable[[], None]) -> None:
        self._job, self._wake = job, wake

    def cancel(self) -> None:
        """End the work: its rows leave in the next round, and it has no more events."""
        self._job.ended = True
        self._wake()

    def pause(self) -> None:
        """Let the rows of the work sit out rounds, because its reader is slow."""
        self._job.paused = True

    def resume(self) -> None:
        """Let the rows of the work take part again."""
        self._job.paused = False
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
        self._jobs, self._calls = deque[Job](), deque[tuple[Future[Any], Callable[[], Any]]]()
        self._end: float | None = None  # time at which active rows end, after `stop`
        self._requests = self._refused = self._tokens = self._early = 0
        self._reading: list[Prompt] = []
        self._ready: list[Row] = []  # rows that wait for room, and those of paused works
        self._groups = {is_plain: Group() for is_plain in (True, False)}
        self._read_pace, self._sample_pace = _Pace(), _Pace()
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
        job = Job(work, listen)
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
        """Refuse new work, end waiting work, and end work in progress after `grace` seconds.

        It ends with `Failed(Stopping)`. Returns at once; see `join`. A second call can shorten the
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
        return sum(len(group.rows) for group in self._groups.values())

    @property
    def _waiting_rows(self) -> list[Row]:
        return [row for row in self._ready if not row.job.paused]

    @property
    def _busy(self) -> bool:
        return bool(self._reading or self._active or self._waiting_rows)

    def _run(self) -> None:
        while self._wait():
            try:
                self._round()
            except Exception as error:  # a fault of this module: its other users go on
                self._fail(error)
        self._fail(Stopping("this server has stopped before the end of the text"))

    def _wait(self) -> bool:
        """Wait for something to do; return False if the thread is to end."""
        with self._changed:
            while not (self._jobs or self._calls or self._busy or self._end is not None):
                self._changed.wait()
        if self._end is None:
            return True
        self._fail_waiting()
        return (self._busy or bool(self._jobs)) and monotonic() < self._end

    def _round(self) -> None:
        self._remove_ended()
        self._run_calls()
        self._admit()
        self._read()
        for group in self._groups.values():
            if group.rows:
                most = self._sample_pace.limit(MAX_STEPS, len(group.rows))
                steps = group.steps(most, self._early / (self._tokens + 1))
                begin = perf_counter()
                self._sample_pace.record(self._sample(group, steps), perf_counter() - begin)
        self._remove_ended()
        self._fill()

    def _fail_waiting(self) -> None:
        """Fail calls, and works that have not begun."""
        error = Stopping("this server is stopping; expected a running one. Try again later")
        while self._calls:
            future, _ = self._calls.popleft()
            if future.set_running_or_notify_cancel():
                future.set_exception(error)
        for job in self._take_jobs(lambda job: not job.begun):
            job.fail(error)

    def _take_jobs(self, chosen: Callable[[Job], bool]) -> list[Job]:
        """Remove jobs from the queue and return them."""
        with self._changed:
            taken = [job for job in self._jobs if chosen(job)]
            for job in taken:
                self._jobs.remove(job)
        return taken

    def _fail(self, error: Exception) -> None:
        """Fail every work that has begun."""
        rows = [*self._ready, *(row for group in self._groups.values() for row in group.rows)]
        jobs = [*(prompt.job for prompt in self._reading), *(row.job for row in rows)]
        for job in [*self._take_jobs(lambda job: job.begun > 0), *jobs]:
            job.fail(error)
        self._remove_ended()

    def _remove_ended(self) -> None:
        """Remove what belongs to works that have ended, and set rows of paused ones aside."""
        self._take_jobs(lambda job: job.ended)
        self._reading = [prompt for prompt in self._reading if not prompt.job.ended]
        for group in self._groups.values():
            self._ready += group.leave()
        self._ready = [row for row in self._ready if not row.job.ended]

    def _run_calls(self) -> None:
        """Run waiting calls for ROUND_SECONDS; rows are served before the next ones."""
        end = monotonic() + ROUND_SECONDS
        while self._calls and monotonic() < end:
            future, function = self._calls.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)

    def _admit(self) -> None:
        """Begin prompts, in order, while there is room for their rows."""
        room = self.rows - self._active - len(self._waiting_rows)
        room -= sum(prompt.rows for prompt in self._reading)
        while room > 0 and self._jobs:
            job = self._jobs[0]
            if job.begun < len(job.work.prompts):
                prompt = Prompt(job, job.begun, self.vocabulary, self.boundaries)
                self._reading.append(prompt)
                room -= prompt.rows
                job.begun += 1
            if job.begun == len(job.work.prompts):
                self._jobs.popleft()
                job.finish_if_done()

    def _read(self) -> None:
        """Read tokens of prompts; those that are complete give rows."""
        prompts = self._reading
        if not prompts:
            return
        try:
            self._read_parts(prompts)
        except Exception:
            for prompt in prompts:
                try:
                    self._read_parts([prompt])
                except Exception as error:
                    prompt.job.fail(error)
        self._reading = [prompt for prompt in prompts if not prompt.complete]
        for prompt in prompts:
            if prompt.complete and not prompt.job.ended:
                try:
                    self._begin_rows(prompt)
                except Exception as error:
                    prompt.job.fail(error)
        self._fill()

    def _read_parts(self, prompts: list[Prompt]) -> None:
        parts = [part for prompt in prompts for part in prompt.next_parts]
        budget = self._read_pace.limit(READ_EACH_ROUND)
        begin = perf_counter()
        count = read_parts(self.backend, parts, budget)
        for prompt in prompts:
            prompt.collect()
        self._read_pace.record(count, perf_counter() - begin)

    def _begin_rows(self, prompt: Prompt) -> None:
        """Report the figures of a prompt that was read, and make its rows ready."""
        job = prompt.job
        if job.work.score_prompts:
            job.tell(PromptFigures(prompt.number, prompt.tokens))
        job.prompts_left -= 1
        for sample in range(job.work.samples):
            row = Row(prompt, sample, self.vocabulary, self.boundaries.separator)
            if row.left:
                self._ready.append(row)
            else:
                row.end("length")

    def _fill(self) -> None:
        """Move ready rows to their group while there is room; new ones take a step first."""
        for is_plain, group in self._groups.items():
            rows = [row for row in self._waiting_rows if row.is_plain == is_plain]
            rows = rows[: max(0, self.rows - self._active)]
            if not rows:
                continue
            self._ready = [row for row in self._ready if row not in rows]
            known, new = [row for row in rows if not row.is_new], Group()
            new.join([row for row in rows if row.is_new])
            if new.rows:
                self._sample(new, 1)
                self._ready += new.leave()
            group.join(known)
            group.merge(new)

    def _sample(self, group: Group, steps: int) -> int:
        """Sample tokens for each row of a group; return their number."""
        restart = EOS if self.boundaries.resets else -1
        left = [row.left for row in group.rows]
        self._tokens += group.sample(self.backend, steps, restart)
        ends = zip(group.rows, left, strict=True)
        self._early += sum(not row.left and before > steps for row, before in ends)
        return steps * len(left)


class _Pace:
    """Seconds per token of the last calls of a backend."""

    def __init__(self) -> None:
        self._each = 0.0

    def limit(self, most: int, rows: int = 1) -> int:
        """Return the number of steps of rows that fit in ROUND_SECONDS, from 1 to `most`."""
        seconds = rows * self._each
        return most if most * seconds <= ROUND_SECONDS else max(1, int(ROUND_SECONDS / seconds))

    def record(self, count: int, seconds: float) -> None:
        """Record the duration of a call; a single slow one changes little."""
        each = seconds / max(count, 1)
        self._each = (self._each + min(each, 2 * self._each)) / 2 if self._each else each
