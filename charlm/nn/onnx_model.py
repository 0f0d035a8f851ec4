"""One step of a language model as a file of ONNX, a format that other programs compute with.

The graph has no time axis: it reads one token of each sequence of a batch, and the state goes in
and out. So it is the same for every cell, and no exporter can freeze the number of steps in it.
"""

import importlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from charlm.config.cells import CELLS
from charlm.errors import EnvironmentFailure
from charlm.nn.encoder import State
from charlm.nn.gpu import torch_release
from charlm.nn.model import RecurrentLanguageModel

TOKENS, LOG_PROBABILITIES, AFTER = "tokens", "log_probabilities", "next_"
"""Names of the first input and the first output, and what precedes the names of the new state."""
OPSET = 18
"""Version of the operators: one of 2022, which programs of today all know."""
FIRST_TORCH = (2, 9)
"""The first version whose exporter was found right; that of 2.6 fails."""
ROWS = 2
"""Sequences in the example from which the graph is traced; it takes any number."""


class Step(nn.Module):
    """ln P of the next token (B, V) and the new state, for tokens (B,) and tensors of a state."""

    def __init__(self, model: RecurrentLanguageModel, logit_scale: float) -> None:
        super().__init__()
        self.model, self.logit_scale = model, logit_scale
        self.lengths = [len(layer) for layer in model.initial_state(1)]

    def forward(self, tokens: Tensor, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the log-probabilities and each tensor of the new state."""
        left = iter(tensors)
        state = tuple(tuple(next(left) for _ in range(length)) for length in self.lengths)
        logits, after = self.model(tokens[None], state)
        return (logits[0].float() * self.logit_scale).log_softmax(dim=-1), *_flat(after)


def onnx_bytes(
    model: RecurrentLanguageModel, logit_scale: float, about: Mapping[str, str]
) -> bytes:
    """Return the content of an .onnx file: a step of the model, and texts about it by their names.

    Inputs are `tokens` (B,) in int64, and the state (B, H) in float32: h1, c1, h2, ... for an LSTM,
    from the first layer up. Outputs are `log_probabilities` (B, V), with the logits multiplied by
    `logit_scale`, and the state under the same names after "next_". Raises EnvironmentFailure
    without the packages.
    """
    _check_packages()
    names = state_names(model)
    example = torch.zeros(ROWS, dtype=torch.long), tuple(_flat(model.initial_state(ROWS)))
    batch = {0: torch.export.Dim("batch", min=1)}
    with _quiet():
        program: Any = torch.onnx.export(
            Step(model, logit_scale).eval(),
            example,
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=[TOKENS, *names],
            output_names=[LOG_PROBABILITIES, *(AFTER + name for name in names)],
            dynamic_shapes=(batch, tuple(batch for _ in names)),
        )
    proto = program.model_proto
    _strip(proto)
    for name, text in about.items():
        proto.metadata_props.add(key=name, value=text)
    return bytes(proto.SerializeToString(deterministic=True))


def state_names(model: RecurrentLanguageModel) -> list[str]:
    """Return the names of the tensors of the state: that of the tensor, and the layer from 1.

    A QRNN with windows of one token has fewer tensors than names.
    """
    names = CELLS[model.settings.cell].state
    return [
        f"{name}{number}"
        for number, layer in enumerate(model.initial_state(1), 1)
        for name in names[: len(layer)]
    ]


def _flat(state: State) -> list[Tensor]:
    return [tensor for layer in state for tensor in layer]


def _check_packages() -> None:
    """Raise EnvironmentFailure if a package of the extra `onnx` is missing, or torch is too old."""
    try:
        importlib.import_module("onnx")
        importlib.import_module("onnxscript")
    except ImportError as error:
        raise EnvironmentFailure(
            f".onnx needs {error.name}, which is not installed; install it with: "
            "pip install 'charlm[onnx]'"
        ) from error
    if torch_release() < FIRST_TORCH:
        raise EnvironmentFailure(
            f".onnx needs torch {'.'.join(map(str, FIRST_TORCH))} or newer, and this is "
            f"{torch.__version__}; install it with: pip install --upgrade torch"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what the exporter says about its own code and about packages it does not need."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logger.setLevel(level)


def _strip(proto: Any) -> None:
    """Take out what the exporter notes about the code, and number nodes and values.

    The exporter begins to count at another number for the second model of a process.
    """
    graph = proto.graph
    del graph.value_info[:]
    for part in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    numbers: dict[str, str] = {}

    def numbered(name: str) -> str:
        """Return the name of a value, by the order in which nodes use it if it has a number."""
        if not name.startswith("val_"):
            return name
        return numbers.setdefault(name, f"val_{len(numbers)}")

    for number, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{number}"
        node.input[:] = [numbered(name) for name in node.input]
        node.output[:] = [numbered(name) for name in node.output]
    for array in graph.initializer:
        array.name = numbered(array.name)
