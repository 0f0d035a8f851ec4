"""Functions on static buffers, captured once in a CUDA graph and replayed from then on.

A training step is a thousand small kernels; on a GPU, most of its time is the launching of these. A
graph launches all of them at once.
"""

from collections.abc import Callable, Hashable
from typing import Any

import torch

from charlm.errors import is_memory_full
from charlm.nn.side_by_side import join_captured

MAX_GRAPHS = 64
"""Number of graphs that are kept; functions with other keys run as they are."""


class Graphs:
    """Runs functions without arguments, as CUDA graphs from the second call with a key on.

    A function must read and write the same tensors in each call, and must not read values on the
    host. Random numbers come from `generator`. All graphs share a pool of memory.
    """

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator
        self.failure = ""
        """Reason why functions could not be captured; empty as long as they can."""
        self._graphs: dict[Hashable, torch.cuda.CUDAGraph | None] = {}
        self._pool: Any = None
        self._failed: list[torch.cuda.CUDAGraph] = []

    def clear(self) -> None:
        """Drop all graphs. After a failure, functions are still run as they are."""
        self._graphs, self._pool = {}, None

    def run(self, key: Hashable, function: Callable[[], None]) -> None:
        """Compute a function. Calls with an equal key must give a function of equal operations.

        The first call of a key runs the function as it is: libraries then choose their algorithms
        and allocate what they keep. The second one captures it. Raises what the function raises.
        """
        if self.failure or (key not in self._graphs and len(self._graphs) == MAX_GRAPHS):
            function()
        elif key not in self._graphs:
            self._graphs[key] = None
            function()
        else:
            graph = self._graphs[key] or self._capture(key, function)
            if graph:
                graph.replay()
            else:
                function()

    def _capture(self, key: Hashable, function: Callable[[], None]) -> torch.cuda.CUDAGraph | None:
        """Return the graph of a function, None if its operations cannot be captured."""
        graph = torch.cuda.CUDAGraph()
        # torch takes no generator of a class of our own; this one has the same state
        graph.register_generator_state(self.generator.graphsafe_get_state())
        stream, random = torch.cuda.current_stream(), self.generator.clone_state()
        try:
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                try:
                    function()
                except BaseException:
                    join_captured()
                    raise
        except RuntimeError as error:
            # if the end of the capture fails as well, torch leaves its stream current, the
            # generator in the capture, and a pointer to the graph in its allocator
            torch.cuda.set_stream(stream)
            self.generator.graphsafe_set_state(random)
            self._failed += [graph] if error.__context__ else []
            if isinstance(error.__context__, KeyboardInterrupt):
                raise error.__context__ from None
            full = is_memory_full(error.__context__ or error)
            reason = str(error.__context__ or error).strip().partition("\n")[0]
        else:
            self._pool = self._pool or graph.pool()
            self._graphs[key] = graph
            return graph
        if full:  # that error holds the memory of its frames, and would be in a cycle with them
            raise torch.OutOfMemoryError(reason)
        self.failure = reason
        self.clear()
        return None
