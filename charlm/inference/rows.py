"""Rows: requests of many users, answered side by side by one worker thread.

A row is one sample of one prompt. Each round, the worker admits waiting work while there is room,
reads some tokens of new prompts, and samples some tokens for every row. If more rows are ready than
there is room for, they take turns. An answer does not depend on who else is asking: on the native
backend it is the same to the bit.
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
from charlm.inference.row_sampling import Group, Pace, Row
from charlm.inference.work import Job, Listen, PromptFigures, QueueFull, Stopping, Work
from charlm.text.boundaries import Boundaries
from charlm.text.tokenizers.tokenizer_json import EOS
from charlm.text.tokenizers.vocabulary import Vocabulary

READ_EACH_ROUND = 4096
"""Maximum tokens of prompts that are read in a round."""
MAX_STEPS = 32
"""Maximum tokens that are sampled for each row in a round."""
ROUND_SECONDS = 0.02
"""Maximum duration of calls, of reading, and of sampling, in a round; others wait for its end."""
TURN_ROUNDS = 8
"""Rounds after which a row makes room for one that waits."""


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
        self._groups = _groups()
        self._read_pace = Pace()
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
                raise Stopping()
            if len(self._jobs) + len(self._calls) >= self.queue:
                self._refused += 1
                raise QueueFull(
                    f"{self.queue} requests are waiting; expected fewer. Try again later"
                )
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
        return [row for row in self._ready if not row.job.rests]

    @property
    def _busy(self) -> bool:
        has_work = self._calls or self._reading or self._active or self._waiting_rows
        return bool(has_work) or not all(job.rests for job in list(self._jobs))

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
            while not self._busy and self._end is None:
                self._changed.wait()
        if self._end is None:
            return True
        self._fail_waiting()
        return self._busy and monotonic() < self._end

    def _round(self) -> None:
        self._remove_ended()
        self._fill()
        self._run_calls()
        self._admit()
        self._read()
        for group in self._groups.values():
            if group.rows:
                most = group.pace.limit(MAX_STEPS, ROUND_SECONDS, len(group.rows))
                steps = group.steps(most, self._early / (self._tokens + 1))
                begin = perf_counter()
                group.pace.record(self._sample(group, steps), perf_counter() - begin)

    def _fail_waiting(self) -> None:
        """Fail calls, and works that have not begun."""
        error = Stopping()
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

    @property
    def _begun_jobs(self) -> set[Job]:
        """Works whose prompts are read, or whose rows are sampled."""
        rows = [*self._ready, *(row for group in self._groups.values() for row in group.rows)]
        return {prompt.job for prompt in self._reading} | {row.job for row in rows}

    def _fail(self, error: Exception) -> None:
        """Fail every work that has begun."""
        for job in {*self._take_jobs(lambda job: job.begun > 0), *self._begun_jobs}:
            job.fail(error)
        self._reading, self._ready, self._groups = [], [], _groups()

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
        """Begin prompts while there is room for new rows, one of each work in turn.

        At most `rows` works are in progress. Each may have a prompt, whatever the room, and at most
        `rows` rows of several prompts.
        """
        if not self._jobs:
            return
        room = self.rows - sum(prompt.rows for prompt in self._reading)
        room -= sum(row.is_new for row in self._waiting_rows)
        begun = {job for job in self._begun_jobs if not job.rests}
        has_begun = True
        while has_begun:
            has_begun = False
            for job in list(self._jobs):
                held = job.held_rows
                fits = (room > 0 and held < self.rows) if held else len(begun | {job}) <= self.rows
                if job.rests or not fits:
                    continue
                has_begun = True
                begun.add(job)
                room -= self._begin(job)

    def _begin(self, job: Job) -> int:
        """Begin the next prompt of a waiting job; return the number of its rows."""
        with self._changed:
            self._jobs.remove(job)
        count = 0
        try:
            if job.begun < len(job.work.prompts):
                self._reading.append(Prompt(job, job.begun, self.vocabulary, self.boundaries))
                count = self._reading[-1].rows
                job.begun += 1
            if job.begun < len(job.work.prompts):
                self._jobs.append(job)  # behind the others
            else:
                job.finish_if_done()
        except Exception as error:
            job.fail(error)
        return count

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
        budget = self._read_pace.limit(READ_EACH_ROUND, ROUND_SECONDS)
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
        """Move ready rows to their groups, in order, while there is room.

        Rows whose turn is over make room for them.
        """
        waiting = self._waiting_rows
        if not waiting:
            return
        room = self.rows - self._active
        for group in self._groups.values():
            over = [row for row in group.rows if row.rounds >= TURN_ROUNDS]
            over = over[: max(0, len(waiting) - room)]
            self._ready += group.leave(set(over))
            room += len(over)
        chosen = waiting[: max(0, room)]
        moved = set(chosen)
        self._ready = [row for row in self._ready if row not in moved]
        for is_plain, group in self._groups.items():
            rows = [row for row in chosen if row.is_plain == is_plain]
            try:
                self._join(group, rows)
            except Exception as error:
                for row in rows:
                    row.job.fail(error)

    def _join(self, group: Group, rows: list[Row]) -> None:
        """Add rows to a group; new ones take a step first."""
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


def _groups() -> dict[bool, Group]:
    """Return empty groups: of rows with only a temperature (True), and of the others."""
    return {is_plain: Group() for is_plain in (True, False)}
