"""Run charlm on a pretended GPU, to find without a card what only a card would show.

    python scripts/pretend_gpu.py check lstm bf16       # captured steps against uncaptured ones
    python scripts/pretend_gpu.py charlm train corpus.txt --device cuda --steps 20
    python scripts/pretend_gpu.py charlm train corpus.txt --device mps --steps 20    # that of a Mac

Tensors of the pretended device are in the memory of the processor, but of a class of their own. An
operation on tensors of both devices is an error, and so is what a capture does not allow: to read a
number, or to copy from the host. A graph records operations and repeats them on the same tensors,
which shows whether these stay where they are. The device of a Mac has no float64. The script shows
nothing about speed, rounding, streams and memory. Everything in torch that it replaces stays
replaced, so it needs a process of its own.
"""

# mypy: ignore-errors
# Its subclasses and functions take the place of those of torch, whose types they do not have.

import contextlib
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.backends.cudnn.rnn import get_cudnn_mode
from torch.nn import functional as F
from torch.nn.utils import clip_grad
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

import charlm  # noqa: F401, first, since it sets how threads wait
from charlm.config.cells import CELLS

KIND = "mps" if "mps" in sys.argv else "cuda"
GPU = torch.device(f"{KIND}:0")
DOUBLES = (torch.float64, torch.complex128)
READS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2", "unique_dim")
"""Operations for which the host waits."""
COPIES = ("copy_", "_to_copy")
"""Operations that may have tensors of both devices."""
FACTORIES = ("zeros", "ones", "empty", "full", "tensor", "arange", "rand", "randn", "randint")
"""Functions of torch that make tensors on a device."""
MEMORY = 80 << 30
PRECISIONS = ("fp32", "bf16", "fp16")
USAGE = f"""expected one of these:
    python scripts/pretend_gpu.py check CELL PRECISION     # of {", ".join(PRECISIONS)}
    python scripts/pretend_gpu.py charlm COMMAND           # such as: train corpus.txt --device cuda
"""

device_of_processor: Callable[..., Tensor] = torch.Tensor.to
graphs: list["Graph"] = []
"""All graphs in the order in which they were made."""
capturing: list["Graph"] = []
"""The graph that is captured now, if there is one."""


def wait(what: str) -> None:
    """Raise RuntimeError in a capture: the host would wait for the device."""
    if capturing:
        raise RuntimeError(f"operation not permitted when stream is capturing: {what}")


def device_in(given: Sequence[Any], named: dict[str, Any]) -> torch.device | None:
    """Return the device in the arguments of `Tensor.to`, None if there is none."""
    for value in (*given, named.get("device"), named.get("other")):
        if isinstance(value, Tensor):
            return value.device
        if isinstance(value, str | torch.device):
            return torch.device(value)
    return None


def dtype_in(given: Sequence[Any], named: dict[str, Any]) -> torch.dtype | None:
    """Return the number type in the arguments of `Tensor.to`, None if there is none."""
    for value in (*given, named.get("dtype"), named.get("other")):
        if isinstance(value, Tensor):
            return value.dtype
        if isinstance(value, torch.dtype):
            return value
    return None


class OnGpu(Tensor):
    """A tensor on the pretended device."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    device = property(lambda _: GPU)
    is_cuda = property(lambda _: KIND == "cuda")

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatch(func, args, kwargs)

    def cpu(self, *_: Any, **__: Any) -> Tensor:
        """Return a copy on the host."""
        wait("cpu")
        return on_host(self)

    def to(self, *given: Any, **named: Any) -> Tensor:
        """Return this tensor on another device, or in another number type."""
        device, dtype = device_in(given, named), dtype_in(given, named)
        if device is not None and device.type == "cpu":
            return device_of_processor(self.cpu(), *given, **named)
        return self if dtype in (None, self.dtype) else device_of_processor(self, dtype)

    def tolist(self) -> Any:
        """Return the numbers."""
        return self.cpu().tolist()

    def numpy(self, *_: Any, **__: Any) -> Any:
        """Raise TypeError, as for a tensor of a GPU."""
        raise TypeError(f"can't convert {GPU} device type tensor to numpy")

    __array__ = numpy

    def record_stream(self, _: Any) -> None:
        """Do nothing: there is one stream."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if id(self) not in memo:
            new = on_gpu(on_host(self))
            is_weight = getattr(self, "_is_param", False)
            memo[id(self)] = torch.nn.Parameter(new, self.requires_grad) if is_weight else new
        return memo[id(self)]


def on_gpu(value: Any) -> Any:
    """Return a tensor as one of the pretended device, in the same memory; others as they are.

    Raises TypeError for numbers that it does not have.
    """
    if KIND == "mps" and isinstance(value, Tensor) and value.dtype in DOUBLES:
        raise TypeError(f"MPS does not support {value.dtype}")
    return Tensor._make_subclass(OnGpu, value) if type(value) is Tensor else value


def on_host(tensor: Tensor) -> Tensor:
    """Return a copy in the memory of the processor."""
    with torch._C._DisableTorchDispatch(), torch.no_grad():
        return Tensor._make_subclass(Tensor, tensor.detach()).clone()


def dispatch(func: Any, args: Any, kwargs: Any) -> Any:
    """Compute an operation, on the pretended device if one of its tensors is there."""
    kwargs, name = dict(kwargs or {}), func.name().removeprefix("aten::").partition(".")[0]
    if name == "is_pinned":
        return False
    if name == "_pin_memory":
        return args[0].clone()
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    here = any(isinstance(tensor, OnGpu) for tensor in tensors)
    if here:
        check(name, args, tensors)
    if kwargs.get("device") is not None and torch.device(kwargs["device"]).type == KIND:
        here, kwargs["device"] = True, torch.device("cpu")
    with torch._C._DisableTorchDispatch():
        if capturing and here:
            capturing[0].keep(func, args, kwargs)
        result = func(*args, **kwargs)
    if here:
        result = tree_map(on_gpu, result)
        if capturing:
            capturing[0].operations.append((func, args, kwargs, result))
    return result


def check(name: str, args: Any, tensors: Sequence[Tensor]) -> None:
    """Raise RuntimeError for what a GPU does not compute, or not in a capture."""
    if name in READS:
        wait(name)
    indices = args[1] if name.startswith(("index", "_index")) else ()
    if any(
        isinstance(index, Tensor) and index.dtype == torch.bool for index in tree_leaves(indices)
    ):
        wait("index by a mask")
    for tensor in tensors:
        if isinstance(tensor, OnGpu) or name == "where":  # whose numbers torch sends by a kernel
            continue
        if name not in COPIES and (
            tensor.dim() or name.startswith(("_foreach", "_fused", "index"))
        ):
            shapes = [tuple(each.shape) for each in tensors]
            raise RuntimeError(f"tensors of {name} on {GPU} and cpu, of the shapes {shapes}")
        wait(f"a tensor of the host in {name}")


class Mode(TorchDispatchMode):
    """Sends all operations to `dispatch`."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatch(func, args, kwargs)


class Graph:
    """Operations on the pretended device, which can be computed again on the same tensors."""

    def __init__(self) -> None:
        self.operations: list[tuple[Any, Any, Any, Any]] = []
        self.replays = 0
        self._generators: list[tuple[Any, Tensor]] = []
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}
        graphs.append(self)

    def register_generator_state(self, generator: Any) -> None:
        """Let a generator go on as if nothing was captured."""
        self._generators.append((generator, generator.get_state()))

    def pool(self) -> str:
        """Return the name of the memory of graphs."""
        return "pool"

    def keep(self, func: Any, args: Any, kwargs: Any) -> None:
        """Keep the values of what an operation writes: a capture computes nothing."""
        for number, argument in enumerate(func._schema.arguments):
            given = args[number] if number < len(args) else kwargs.get(argument.name)
            if argument.alias_info is not None and argument.alias_info.is_write:
                for tensor in given if isinstance(given, list | tuple) else [given]:
                    if isinstance(tensor, Tensor) and id(tensor) not in self._kept:
                        self._kept[id(tensor)] = tensor, tensor.detach().clone()

    def undo(self) -> None:
        """Put back all values that were written, and the generators."""
        with torch._C._DisableTorchDispatch(), torch.no_grad():
            for tensor, before in reversed(self._kept.values()):
                tensor.detach().copy_(before)
        for generator, state in self._generators:
            generator.set_state(state)
        self._kept = {}

    def replay(self) -> None:
        """Compute all operations, into the tensors that the capture made."""
        self.replays += 1
        with torch._C._DisableTorchDispatch(), torch.no_grad():
            for func, args, kwargs, captured in self.operations:
                new = func(*args, **kwargs)
                for old, value in zip(tree_leaves(captured), tree_leaves(new), strict=True):
                    if isinstance(old, Tensor) and old.data_ptr() != value.data_ptr():
                        old.detach().copy_(value)


@contextlib.contextmanager
def capture(graph: Graph, **_: Any) -> Iterator[None]:
    """Capture what is computed in this context in a graph, without an effect."""
    capturing.append(graph)
    try:
        yield
    finally:
        capturing.clear()
        graph.undo()


class Generator(torch.Generator):
    """A generator whose device may be the pretended one."""

    def __new__(cls, device: Any = "cpu") -> "Generator":
        """Make a generator of the processor that names this device."""
        made = super().__new__(cls, "cpu")
        vars(made)["place"] = GPU if torch.device(device).type == KIND else torch.device(device)
        return made

    def __init__(self, device: Any = "cpu") -> None: ...

    @property
    def device(self) -> torch.device:
        """The device that it names."""
        return vars(self)["place"]

    def graphsafe_get_state(self) -> "Generator":
        """Return a generator with the same state."""
        return self

    def graphsafe_set_state(self, other: torch.Generator) -> None:
        """Take the state of another generator."""
        self.set_state(other.get_state())

    def clone_state(self) -> "Generator":
        """Return a generator with a copy of the state."""
        made = Generator(self.device)
        made.set_state(self.get_state())
        return made


class Stream:
    """The only stream."""

    device = GPU

    def __init__(self, *_: Any) -> None: ...

    def wait_stream(self, _: Any) -> None:
        """Do nothing."""


def lstm_step(x: Tensor, state: list[Tensor], weights: Sequence[Tensor]) -> list[Tensor]:
    """Return h and c of an LSTM after a step."""
    w, u, b, d = weights
    i, f, g, o = (F.linear(x, w, b) + F.linear(state[0], u, d)).chunk(4, -1)
    c = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
    return [o.sigmoid() * c.tanh(), c]


def gru_step(x: Tensor, state: list[Tensor], weights: Sequence[Tensor]) -> list[Tensor]:
    """Return h of a GRU after a step."""
    w, u, b, d = weights
    left, right = F.linear(x, w, b).chunk(3, -1), F.linear(state[0], u, d).chunk(3, -1)
    reset, update = ((one + two).sigmoid() for one, two in zip(left[:2], right[:2], strict=True))
    return [(1.0 - update) * (left[2] + reset * right[2]).tanh() + update * state[0]]


def rnn_step(x: Tensor, state: list[Tensor], weights: Sequence[Tensor]) -> list[Tensor]:
    """Return h of a tanh RNN after a step."""
    w, u, b, d = weights
    return [(F.linear(x, w, b) + F.linear(state[0], u, d)).tanh()]


def layers_of_cudnn(step: Callable[..., list[Tensor]], usual: Any) -> Callable[..., Any]:
    """Return the function of torch for stacked layers, step by step on the pretended device."""

    def compute(x: Tensor, state: Any, weights: Any, *rest: Any) -> Any:
        """Return outputs and states, after the checks of cuDNN."""
        if not isinstance(x, OnGpu):
            return usual(x, state, weights, *rest)
        _, layers, _, training, *_ = rest
        states = list(state) if isinstance(state, list | tuple) else [state]
        for tensor in (*states, *weights):
            if not isinstance(tensor, OnGpu) or tensor.dtype != x.dtype:
                raise RuntimeError(
                    f"a tensor of {tensor.dtype} on {tensor.device} beside {x.dtype}"
                )
        if not all(tensor.is_contiguous() for tensor in states):
            raise RuntimeError("rnn: hx is not contiguous")
        if torch.is_grad_enabled() and weights[0].requires_grad and not training:
            raise RuntimeError("cudnn RNN backward can only be called in training mode")
        after: list[list[Tensor]] = [[] for _ in states]
        for layer in range(layers):
            now, outputs = [tensor[layer] for tensor in states], []
            for row in x.unbind(0):
                now = step(row, now, weights[4 * layer : 4 * layer + 4])
                outputs.append(now[0])
            x = torch.stack(outputs)
            for collected, tensor in zip(after, now, strict=True):
                collected.append(tensor)
        return (x, *map(torch.stack, after))

    return compute


def pretend_cuda() -> None:
    """Replace functions of torch.cuda."""
    properties = types.SimpleNamespace(total_memory=MEMORY, major=9, minor=0)
    fakes = {
        "_lazy_init": None, "is_available": True, "is_initialized": True, "device_count": 1,
        "is_bf16_supported": True, "get_device_name": "pretended GPU", "current_device": 0,
        "get_device_capability": (9, 0), "get_device_properties": properties, "set_device": None,
        "synchronize": None, "empty_cache": None, "current_stream": Stream(), "set_stream": None,
    }  # fmt: skip
    for name, value in fakes.items():
        setattr(torch.cuda, name, lambda *_, value=value, **__: value)
    vars(torch.cuda).update(
        Stream=Stream, CUDAGraph=Graph, graph=capture, stream=lambda _: contextlib.nullcontext(),
        is_current_stream_capturing=lambda: bool(capturing),
    )  # fmt: skip


def pretend() -> None:
    """Replace in torch what would need a GPU, until the process ends."""
    if KIND == "cuda":
        pretend_cuda()
    torch.backends.mps.is_available = lambda: KIND == "mps"
    torch._C._mps_deviceSynchronize = lambda: None
    modes = types.SimpleNamespace(lstm=2, gru=3, rnn_tanh=1, rnn_relu=0)
    get_cudnn_mode.__globals__["_cudnn"] = types.SimpleNamespace(RNNMode=modes)
    vars(torch).update(
        Generator=Generator, _cudnn_rnn_flatten_weight=lambda *_: None,
        _use_cudnn_rnn_flatten_weight=lambda: True,
        lstm=layers_of_cudnn(lstm_step, torch.lstm), gru=layers_of_cudnn(gru_step, torch.gru),
        rnn_tanh=layers_of_cudnn(rnn_step, torch.rnn_tanh),
    )  # fmt: skip
    torch.backends.cudnn.version = lambda: 91900
    torch.backends.cudnn.is_acceptable = lambda _: False  # the weights need no common memory
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    torch.nn.Module._apply = keeping_ties(torch.nn.Module._apply)
    replace_functions()
    Mode().__enter__()


def keeping_ties(usual: Callable[..., Any]) -> Callable[..., Any]:
    """Return the method that moves a module, after which tied weights are still one tensor."""

    def apply(module: torch.nn.Module, *given: Any) -> torch.nn.Module:
        """Move a module."""
        places: dict[int, list[tuple[torch.nn.Module, str]]] = {}
        for part in module.modules():
            for name, weight in part._parameters.items():
                places.setdefault(id(weight), []).append((part, name))
        usual(module, *given)
        for (first, name), *others in places.values():
            for part, other in others:
                part._parameters[other] = first._parameters[name]
        return module

    return apply


def replace_functions() -> None:
    """Replace functions of torch that look at the device themselves."""

    def to(tensor: Tensor, *given: Any, **named: Any) -> Tensor:
        """Do what `Tensor.to` does, also to the pretended device."""
        device, dtype = device_in(given, named), dtype_in(given, named)
        if device is None or device.type != KIND:
            return device_of_processor(tensor, *given, **named)
        wait("a copy from the host")
        return on_gpu(on_host(tensor if dtype is None else device_of_processor(tensor, dtype)))

    def factory(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """Return a function of torch that also makes tensors on the pretended device."""

        def made(*given: Any, **named: Any) -> Tensor:
            """Make a tensor."""
            if named.get("device") is None or torch.device(named["device"]).type != KIND:
                return make(*given, **named)
            named["device"] = torch.device("cpu")
            if make.__name__ == "tensor":
                wait("a tensor of numbers of the host")
            new = on_gpu(on_host(make(*given, **named)))
            if capturing:
                capturing[0].operations.append((make, given, named, new))
            return new

        return made

    def grouped(group: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that groups tensors by the device that they pretend."""

        def groups(*given: Any, **named: Any) -> dict[Any, Any]:
            """Group tensors by device and number type."""
            found = group(*given, **named).items()
            return {(each[0][0][0].device, key[1]): each for key, each in found}

        return groups

    Tensor.to = to
    for name in FACTORIES:
        setattr(torch, name, factory(getattr(torch, name)))
    name = "_group_tensors_by_device_and_dtype"
    setattr(clip_grad, name, grouped(getattr(clip_grad, name)))
    of_optimizer = grouped(getattr(torch.optim.Optimizer, name))
    setattr(torch.optim.Optimizer, name, staticmethod(of_optimizer))


def main(arguments: Sequence[str]) -> None:
    """Run a command of charlm, or compare the steps of a cell in a number type."""
    kind, *rest = arguments or [""]
    if kind != "charlm" and not (kind == "check" and len(rest) == 2 and rest[1] in PRECISIONS):
        raise SystemExit(USAGE)
    if kind == "check" and rest[0] not in CELLS:
        raise SystemExit(f"unknown cell {rest[0]!r}; expected one of {', '.join(CELLS)}")
    pretend()
    if kind == "charlm":
        from charlm.cli import main as command

        command(rest)
        return
    import check_gpu

    cell, name = rest
    setup = check_gpu.Setup(device=GPU, seconds=0.0, text=Path(), ptb=None, folder=Path())
    for size, dropout, many in (((8, (4, 3)), 0.2, False), ((10, (4, 3)), 0.0, True)):
        row = check_gpu.bits(cell, name, size, setup, dropout, many=many)
        print(row, "replays", [graph.replays for graph in graphs])


if __name__ == "__main__":
    main(sys.argv[1:])
