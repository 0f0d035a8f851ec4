"""Stacked layers that work side by side on a GPU, each on another piece of a window.

A layer needs the state after the piece before, and the output of the layer below for this piece:

    layer 1:  piece 1  piece 2  piece 3
    layer 2:           piece 1  piece 2  piece 3

One layer leaves most of a GPU idle, so two of them take little longer than one (Appleyard et al.
2016, arxiv.org/abs/1604.01946). Each layer has a CUDA stream of its own; autograd computes a
gradient on the stream of its operation, so the backward pass is side by side as well.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from charlm.nn.dropout import with_weight
from charlm.nn.layers import LayerState, RecurrentLayer

PIECES = 4
"""Pieces of a window: two layers then take at best 5 / 8 of the time of one after the other."""
MIN_STEPS = 8
"""Fewest steps of a piece."""


class Part(NamedTuple):
    """A layer with its dropped recurrent weight, its dropout mask, and its state.

    `mask` holds factors on the input (T, B, E), or (1, B, E) for all steps. Weight and mask are
    None for no dropout.
    """

    layer: RecurrentLayer
    weight: Tensor | None
    mask: Tensor | None
    state: LayerState


def run_side_by_side(
    parts: Sequence[Part], x: Tensor, pieces: int, *, skip: bool = False
) -> tuple[Tensor, tuple[LayerState, ...]]:
    """Return the output (T, B, H) of stacked layers for x (T, B, E), and the states after it.

    They are what the layers compute one after the other for the whole window, up to rounding. With
    `skip`, the input of each layer but the first is added to its output.
    """
    lanes = Lanes(x.device, len(parts))
    states = [part.state for part in parts]
    for lane, (_, weight, mask, state) in enumerate(parts):
        lanes.share(lane, *state, *(made for made in (weight, mask) if made is not None))
    length = max(-(-len(x) // pieces), MIN_STEPS)
    outputs = []
    for begin in range(0, len(x), length):
        piece = x[begin : begin + length]
        for lane, (layer, weight, mask, _) in enumerate(parts):
            lanes.share(lane, piece)
            with lanes.after_the_one_below(lane):
                if mask is not None:
                    piece = piece * (mask if len(mask) == 1 else mask[begin : begin + length])
                read, states[lane] = with_weight(layer, weight)(piece, states[lane])
                piece = read + piece if skip and lane else read
        outputs.append(piece)
    lanes.join(*outputs, *(tensor for state in states for tensor in state))
    return torch.cat(outputs), tuple(states)


class Lanes:
    """A CUDA stream for each layer, the current one for the first; elsewhere than on a GPU, none.

    The memory of a tensor is used again on the stream that allocated it, as soon as nothing refers
    to it: so other streams that read it must be named, by `share`.
    """

    def __init__(self, device: torch.device, count: int) -> None:
        self.streams: list[torch.cuda.Stream] = []
        if device.type == "cuda":
            self.streams = [torch.cuda.current_stream(device), *other_streams(device, count - 1)]

    def share(self, lane: int, *tensors: Tensor) -> None:
        """Keep the memory of tensors of other lanes until what this lane has queued is done."""
        for tensor in tensors if self.streams else ():
            tensor.record_stream(self.streams[lane])

    @contextlib.contextmanager
    def after_the_one_below(self, lane: int) -> Iterator[None]:
        """Queue operations on a lane, after all that is queued on the lane below."""
        if not self.streams or not lane:
            yield
            return
        self.streams[lane].wait_stream(self.streams[lane - 1])
        with torch.cuda.stream(self.streams[lane]):
            yield

    def join(self, *tensors: Tensor) -> None:
        """Let the first lane wait for all others and read these tensors."""
        for stream in self.streams[1:]:
            self.streams[0].wait_stream(stream)
        self.share(0, *tensors)


_others: dict[torch.device, list[torch.cuda.Stream]] = {}
"""Streams of each GPU that lanes other than the first have used."""


def other_streams(device: torch.device, count: int) -> list[torch.cuda.Stream]:
    """Return streams of a GPU beside its current one, the same each time."""
    make: Callable[[torch.device], torch.cuda.Stream] = torch.cuda.Stream
    streams = _others.setdefault(device, [])
    while len(streams) < count:
        streams.append(make(device))
    return streams[:count]


def join_captured() -> None:
    """Let the current stream wait for all lanes in its capture, after an error in this capture.

    It could not end while another stream has work in it, and torch's allocator would never again
    return memory to the device.
    """
    for stream in itertools.chain.from_iterable(_others.values()):
        with torch.cuda.stream(stream):
            captured = torch.cuda.is_current_stream_capturing()
        if captured:
            with contextlib.suppress(RuntimeError):  # of a capture that is already invalid
                torch.cuda.current_stream(stream.device).wait_stream(stream)
