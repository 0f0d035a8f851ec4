"""Functions that are captured in a CUDA graph, on a CPU: a fake graph records what is captured."""

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import torch

from charlm.training import graphs
from charlm.training.graphs import Graphs


class Philox:
    """The state of a generator."""

    capturing = False


class Generator:
    """A generator that a failed capture leaves in its capture, as those of a GPU before 2.12."""

    def __init__(self, state: Philox | None = None) -> None:
        self.state = state or Philox()

    @property
    def capturing(self) -> bool:
        return self.state.capturing

    def clone_state(self) -> "Generator":
        return Generator()

    def graphsafe_get_state(self) -> "Generator":
        return Generator(self.state)

    def graphsafe_set_state(self, generator: "Generator") -> None:
        self.state = generator.state


class Derived(Generator):
    """A generator of a class of charlm, which torch cannot register."""


class Recorded:
    """A graph that computes what was captured in it."""

    capturing: "Recorded | None" = None
    failure: Exception | None = None
    stream = "default"

    def __init__(self) -> None:
        self.functions: list[Callable[[], None]] = []
        self.generator: Generator | None = None
        self.pools: list[Any] = []

    def register_generator_state(self, generator: Generator) -> None:
        if type(generator) is not Generator:
            raise TypeError(f"expected a Generator, but got {type(generator).__name__}")
        self.generator = generator

    def pool(self) -> str:
        return "pool"

    def replay(self) -> None:
        for function in self.functions:
            function()


@contextmanager
def capture(graph: Recorded, pool: Any, capture_error_mode: str) -> Iterator[None]:
    """Capture: operations are recorded, and not executed."""
    assert capture_error_mode == "thread_local"
    graph.pools.append(pool)
    Recorded.capturing = graph
    Recorded.stream = "capture"
    try:
        yield
        if Recorded.failure:
            raise Recorded.failure
    except RuntimeError:
        graph.generator.state.capturing = True  # type: ignore[union-attr]
        raise RuntimeError("operation failed due to a previous error during capture")  # noqa: B904
    finally:
        Recorded.capturing = None
    Recorded.stream = "default"


class Counter:
    """A function on a static buffer, which adds one to it."""

    def __init__(self) -> None:
        self.value, self.starts = 0, 0

    def add(self) -> None:
        self.value += 1

    def __call__(self) -> None:
        self.starts += 1  # what the host does
        if Recorded.capturing:
            Recorded.capturing.functions.append(self.add)
        else:
            self.add()


@pytest.fixture(autouse=True)
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Recorded)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    monkeypatch.setattr(Recorded, "failure", None)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: Recorded.stream)
    monkeypatch.setattr(
        torch.cuda, "set_stream", lambda stream: setattr(Recorded, "stream", stream)
    )


def test_each_call_computes_once_and_the_host_works_in_two_of_them() -> None:
    """Capturing executes nothing, so the graph is replayed at once."""
    made, counter = Graphs(Generator()), Counter()
    for number in range(1, 6):
        made.run("a", counter)
        assert counter.value == number
    assert counter.starts == 2 and not made.failure


def test_keys_have_graphs_of_their_own_in_one_pool() -> None:
    generator = Derived()
    made, counters = Graphs(generator), (Counter(), Counter())
    for _ in range(3):
        for key, counter in enumerate(counters):
            made.run(key, counter)
    first, second = made._graphs.values()
    assert (first.pools, second.pools) == ([None], ["pool"])  # type: ignore[union-attr]
    for graph in (first, second):
        assert graph.generator.state is generator.state  # type: ignore[union-attr]
    assert [counter.value for counter in counters] == [3, 3]


def test_functions_beyond_the_limit_run_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "MAX_GRAPHS", 1)
    made, kept, beyond = Graphs(Generator()), Counter(), Counter()
    for _ in range(3):
        made.run("kept", kept)
        made.run("beyond", beyond)
    assert (kept.value, kept.starts) == (3, 2) and (beyond.value, beyond.starts) == (3, 3)


def test_what_cannot_be_captured_runs_as_it_is() -> None:
    """The first error is the reason. torch is used as before; after a reset nothing is captured."""
    generator = Generator()
    made, counter = Graphs(generator), Counter()
    Recorded.failure = RuntimeError("operation not permitted\nwhen stream is capturing")
    for number in range(1, 5):
        made.run("a", counter)
        assert counter.value == number
    assert made.failure == "operation not permitted"
    assert Recorded.stream == "default" and not generator.capturing
    made.clear()
    for _ in range(3):
        made.run("a", counter)
    assert counter.starts == 8  # of which one was the capture


def test_streams_are_joined_before_a_failed_capture_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A capture cannot end while another stream has work in it; the error is that of the work."""
    made, joined = Graphs(Generator()), list[bool]()
    monkeypatch.setattr(graphs, "join_captured", lambda: joined.append(bool(Recorded.capturing)))

    def fail() -> None:
        if Recorded.capturing:
            raise torch.OutOfMemoryError("CUDA out of memory")

    made.run("a", fail)
    assert joined == []
    with pytest.raises(torch.OutOfMemoryError):
        made.run("a", fail)
    assert joined == [True]


def test_an_interrupt_in_a_capture_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C leaves work in the capture, so that its end fails too; the interrupt counts."""

    @contextmanager
    def unfinished(*_: Any, **__: Any) -> Iterator[None]:
        try:
            yield
        except KeyboardInterrupt:
            raise RuntimeError("capture must end on the same stream")  # noqa: B904

    def interrupted() -> None:
        raise KeyboardInterrupt

    made, joined = Graphs(Generator()), list[int]()
    monkeypatch.setattr(torch.cuda, "graph", unfinished)
    monkeypatch.setattr(graphs, "join_captured", lambda: joined.append(1))
    made.run("a", Counter())
    with pytest.raises(KeyboardInterrupt):
        made.run("a", interrupted)
    assert joined and not made.failure


def test_graphs_are_captured_again_after_they_are_dropped() -> None:
    made, counter = Graphs(Generator()), Counter()
    for _ in range(3):
        made.run("a", counter)
    made.clear()
    for number in range(4, 8):
        made.run("a", counter)
        assert counter.value == number
    assert counter.starts == 4


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later"),
    ],
    ids=["torch", "library", "kernel"],
)
def test_full_memory_is_raised(error: RuntimeError) -> None:
    """The step then reads its batch in parts. CUDA itself needs memory beside that of torch."""
    made, counter = Graphs(Generator()), Counter()
    made.run("a", counter)
    Recorded.failure = error
    with pytest.raises(torch.OutOfMemoryError):
        made.run("a", counter)
    assert not made.failure and Recorded.stream == "default"


def test_full_memory_is_free_again_at_once() -> None:
    """No cycle of the error and its frames keeps the tensors of a capture until a collection.

    Only the graphs are kept: torch's allocator may point to those whose capture did not end.
    """
    made, tensors, kept = Graphs(Generator()), [], []

    def allocate() -> None:
        tensor = torch.zeros(3)
        tensors.append(weakref.ref(tensor))
        if Recorded.capturing:
            kept.append(weakref.ref(Recorded.capturing))
            raise torch.OutOfMemoryError("CUDA out of memory")

    gc.disable()
    try:
        for _ in range(2):
            made.run("a", allocate)
            with suppress(torch.OutOfMemoryError):
                made.run("a", allocate)
            made.clear()
        assert len(tensors) == 4 and all(tensor() is None for tensor in tensors)
        assert len(kept) == 2 and all(graph() for graph in kept)
    finally:
        gc.enable()
