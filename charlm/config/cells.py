"""The recurrent cells that `--cell` takes: one row for each, with every fact about it.

A new cell is a subclass of `charlm.nn.layers.RecurrentLayer` and its row here. Rows name classes by
import path, so that this module imports no torch.
"""

from dataclasses import dataclass

CANDIDATE = "candidate"
"""Name of the block of rows that proposes new values; other blocks are gates from 0 to 1."""

SIGNALS = {
    "h": "output of the layer",
    "c": "cell",
    "i": "input gate",
    "f": "forget gate",
    "o": "output gate",
    "r": "reset gate",
    "z": "update gate",
    "g": "candidate",
}
"""Values of a unit at each step, by the letter that `--signal` takes."""


@dataclass(frozen=True, kw_only=True)
class CellSpec:
    """Facts about one cell."""

    layer: str
    """Import path of its layer class."""
    summary: str
    """One line for help texts, with the reference."""
    blocks: tuple[str, ...] = (CANDIDATE,)
    """Names of the blocks of H rows in its weight matrices, in order: its gates and candidate."""
    state: tuple[str, ...] = ("h",)
    """Names of the tensors in a layer's state."""
    learns_recurrence: bool = True
    """True if a matrix from state to gates is learned."""
    learns_input: bool = True
    """True if the weights from the input, and so the embedding, are learned."""
    settings: tuple[str, ...] = ()
    """Model settings that only this cell reads."""
    numpy_step: str = ""
    """Import path of its step for the numpy backend; empty if only torch computes it."""
    native_code: int | None = None
    """Number of the cell in the compiled kernels; None if they do not compute it."""
    rate_factor: float = 1.0
    """Factor on the default learning rate of the optimiser, measured on Shakespeare with 2 million
    weights and 300 steps."""
    memory_factor: float = 1.5
    """Memory of its activations in training, relative to torch's own layers."""
    best_with_one_layer: bool = False
    """True if one layer was measured to learn more in a given time than two."""
    has_expectation: bool = False
    """True if measured runs of it let a plan predict the loss."""
    gradient_advice: str = "Use a longer --bptt"
    """Advice for vanishing gradients."""

    @property
    def signals(self) -> tuple[str, ...]:
        """Signals that a layer has, in the order of the state and the blocks; see SIGNALS.

        The candidate of a cell without gates is its output.
        """
        letters = {name: letter for letter, name in SIGNALS.items()}
        blocks = [letters.get(f"{name} gate", "g") for name in self.blocks]
        cell = ["c"] if "c" in self.state else []
        return ("h", *cell, *(blocks if len(blocks) > 1 else []))

    @property
    def forget_gate(self) -> int | None:
        """Index of the forget gate among the blocks; None without one."""
        return self.blocks.index("forget") if "forget" in self.blocks else None


_LSTM = ("input", "forget", CANDIDATE, "output")
CELLS: dict[str, CellSpec] = {
    "rnn": CellSpec(
        layer="charlm.nn.torch_layers:ElmanLayer",
        summary="Elman network (Elman 1990)",
        settings=("nonlinearity",),
        numpy_step="charlm.backends.numpy_backend:rnn_step",
        native_code=0,
        rate_factor=0.25,  # nats per character: 2.19 at 0.001, 3.20 at 0.002, diverged at 0.004
        memory_factor=1.0,
        gradient_advice="Use --cell lstm or gru",
    ),
    "lstm": CellSpec(
        layer="charlm.nn.torch_layers:LstmLayer",
        summary="long short-term memory (Hochreiter & Schmidhuber 1997; Gers et al. 2000)",
        blocks=_LSTM,
        state=("h", "c"),
        numpy_step="charlm.backends.numpy_backend:lstm_step",
        native_code=1,
        # 384 units, one minute: 1.551 at 0.004, 1.482 at 0.008 (windows of 64); 1.455 at 0.008,
        # 1.481 at 0.016 (windows of 32)
        rate_factor=2.0,
        memory_factor=1.0,
        best_with_one_layer=True,
        has_expectation=True,
        gradient_advice="Use a higher forget bias (--set forget_bias=2) or a longer --bptt",
    ),
    "gru": CellSpec(
        layer="charlm.nn.torch_layers:GruLayer",
        summary="gated recurrent unit (Cho et al. 2014)",
        blocks=("reset", "update", CANDIDATE),
        numpy_step="charlm.backends.numpy_backend:gru_step",
        native_code=2,
        memory_factor=1.0,  # rate: 1.92 at 0.004, 2.00 at 0.002
        best_with_one_layer=True,
    ),
    "lstm-peephole": CellSpec(
        layer="charlm.nn.stepwise:PeepholeLstm",
        summary="LSTM with gates that see the cell (Gers & Schmidhuber 2000)",
        blocks=_LSTM,
        state=("h", "c"),
    ),
    "lstm-layernorm": CellSpec(
        layer="charlm.nn.stepwise:LayerNormLstm",
        summary="LSTM with normalised gates and cell (Ba et al. 2016)",
        blocks=_LSTM,
        state=("h", "c"),
    ),
    "lstm-capped": CellSpec(
        layer="charlm.nn.stepwise:CappedLstm",
        summary="LSTM with an input gate of at most 1 - forget gate (Melis et al. 2018)",
        blocks=_LSTM,
        state=("h", "c"),
    ),
    "mlstm": CellSpec(
        layer="charlm.nn.stepwise:MultiplicativeLstm",
        summary="LSTM with recurrent weights that depend on the input (Krause et al. 2016)",
        blocks=_LSTM,
        state=("h", "c"),
    ),
    "mogrifier": CellSpec(
        layer="charlm.nn.stepwise:MogrifierLstm",
        summary="LSTM whose input and state gate each other first (Melis et al. 2020)",
        blocks=_LSTM,
        state=("h", "c"),
        settings=("mogrifier_rounds", "mogrifier_rank", "cap_input_gate"),
    ),
    "qrnn": CellSpec(
        layer="charlm.nn.parallel:Qrnn",
        summary="quasi-recurrent network (Bradbury et al. 2017)",
        blocks=(CANDIDATE, "forget", "output"),
        state=("c", "x"),
        learns_recurrence=False,
        settings=("qrnn_window",),
    ),
    "mingru": CellSpec(
        layer="charlm.nn.parallel:MinGru",
        summary="GRU whose gate sees the input alone (Feng et al. 2024)",
        blocks=("update", CANDIDATE),
        learns_recurrence=False,
    ),
    "minlstm": CellSpec(
        layer="charlm.nn.parallel:MinLstm",
        summary="LSTM whose gates see the input alone (Feng et al. 2024)",
        blocks=("forget", "input", CANDIDATE),
        learns_recurrence=False,
    ),
    "esn": CellSpec(
        layer="charlm.nn.reservoir:EchoState",
        summary="echo state network: only the output layer is trained (Jaeger 2001)",
        learns_recurrence=False,
        learns_input=False,
        settings=("spectral_radius", "sparsity"),
        memory_factor=1.0,
    ),
}
"""Every cell, by the name that `--cell` takes."""
