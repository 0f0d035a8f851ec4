"""One unit of a network while a text grows: its value after each token that is read."""

from collections.abc import Sequence

import numpy as np

from charlm.backends.interface import State
from charlm.inference.generation import Start
from charlm.inspect.hidden import (
    checked_signals,
    layer_sizes,
    unit_number,
    usual_signal,
    windows,
)
from charlm.runs.run import Run
from charlm.text.tokenizers.tokenizer_json import EOS


class LiveUnit:
    """Reader of the values of a unit such as "2:8", of the cell or another signal.

    Raises UsageError for an n-gram model, and for a unit or signal that is not there.
    """

    def __init__(self, run: Run, name: str, signal: str | None = None) -> None:
        self._run = run
        signals = checked_signals(run, None if signal is None else [signal])
        self.name, self.signal = name, usual_signal(signals)
        self._layer, self._unit = unit_number(name, layer_sizes(run))
        self._state: State = run.backend.initial_state(1)
        self.begin(Start())

    def begin(self, start: Start) -> None:
        """Go to a point of the text."""
        self._state = self._run.backend.initial_state(1) if start.hidden is None else start.hidden
        self.read([EOS] if start.hidden is None else start.ids[-1:])

    def read(self, ids: Sequence[int]) -> list[float]:
        """Read tokens and return the value after each."""
        backend, values = self._run.backend, list[float]()
        inputs = np.asarray(ids, np.int64)
        for span, fresh in windows(self._run, inputs):
            before = backend.initial_state(1) if fresh else self._state
            arrays, self._state = backend.trace(inputs[span, None], before, (self.signal,))
            values += arrays[self.signal][self._layer - 1, :, 0, self._unit].tolist()
        return values
