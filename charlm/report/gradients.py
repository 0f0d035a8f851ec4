"""Gradient flow as tables, as a plot in the terminal, and as a picture."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from charlm.inspect.gradients import GradientFlow
from charlm.report.pictures import figures
from charlm.report.tables import plain_table
from charlm.report.text import bars

SHOWN_LAGS = (1, 5, 10, 20, 50, 100, 200)
DECADES = 8
"""Powers of ten that the bars span below the largest norm."""
PLOT_DECADES = 12
"""Largest number of powers of ten in the plot."""
PLOT_ROWS = 12
"""Approximate height of the plot, in rows."""
MARKS = "ox+*#@%&"
"""Marks of the curves, in order."""


def flow_parts(flows: Sequence[GradientFlow]) -> Iterator[Text | Table]:
    """Yield the curves, the tables of lags and of weights, and a diagnosis of each model."""
    yield curve_plot(flows)
    yield lag_table(flows)
    if any(layer.gates or layer.radii for flow in flows for layer in flow.layers):
        yield weight_table(flows)
    for flow in flows:
        clipped = (
            "" if flow.clipped is None else f" Clipped in {100 * flow.clipped:.0f} % of steps."
        )
        yield Text(f"{flow.name}: {flow.diagnosis}.{clipped}")


def curve_plot(flows: Sequence[GradientFlow], width: int = 66) -> Text:
    """Return a plot of all curves in characters: lag across, logarithm of the norm up.

    Each curve shows the norm as a fraction of the largest norm, over at most PLOT_DECADES powers
    of ten, and ends where it falls below them. Later curves cover earlier ones. Each power of ten
    is a row of its own, so the plot has about PLOT_ROWS rows.
    """
    curves = [
        (label, _decades(layer.norms[1:]))
        for flow in flows
        for label, layer in zip(_labels(flow), flow.layers, strict=True)
    ]
    lowest = min((v for _, values in curves for v in values if v > -math.inf), default=0.0)
    depth = min(max(math.ceil(-lowest), 1), PLOT_DECADES)
    rows = max(1, PLOT_ROWS // depth)  # of each power of ten
    grid = [[" "] * width for _ in range(rows * depth + 1)]
    marks = [MARKS[number % len(MARKS)] for number in range(len(curves))]
    for mark, (_, values) in zip(marks, curves, strict=True):
        for column in range(width):
            value = values[round(column * (len(values) - 1) / (width - 1))]
            if value >= -depth:
                grid[round(-value * rows)][column] = mark
    last = max((len(values) for _, values in curves), default=1)
    lines = ["gradient as a fraction of its largest value"]
    for number, row in enumerate(grid):
        exponent, between = divmod(number, rows)
        tick = "" if between else f"1e-{exponent:02d}" if exponent else "1"
        lines.append(f"{tick:>6} |{''.join(row)}".rstrip())
    lines.append(f"{'':>6} +{'-' * width}")
    lines.append(f"{'':>8}1{f'{last} tokens back':>{width - 1}}")
    legend = "   ".join(f"{mark} {label}" for mark, (label, _) in zip(marks, curves, strict=True))
    return Text("\n".join([*lines, f"{'':>8}{legend}"]))


def _decades(norms: Sequence[float]) -> list[float]:
    """Return log10 of each norm as a fraction of the largest; -inf for 0, inf and NaN."""
    top = max((norm for norm in norms if math.isfinite(norm)), default=0.0)
    return [
        math.log10(norm / top) if top > 0.0 and math.isfinite(norm) and norm > 0.0 else -math.inf
        for norm in norms
    ]


def _labels(flow: GradientFlow) -> list[str]:
    """Return a name for each layer of a model."""
    if len(flow.layers) == 1:
        return [flow.name]
    return [f"{flow.name}, layer {number}" for number in range(1, len(flow.layers) + 1)]


def lag_table(flows: Sequence[GradientFlow]) -> Table:
    """Return norms at some lags, and all of them as bars on a logarithmic scale."""
    last = min(len(layer.norms) for flow in flows for layer in flow.layers) - 1
    lags = [lag for lag in SHOWN_LAGS if lag <= last]
    title = "norm of d loss(t) / d state(t - k), by k"
    table = plain_table("<model", "layer", *(str(lag) for lag in lags), "<all lags", title=title)
    for flow in flows:
        for number, layer in enumerate(flow.layers, start=1):
            values = [f"{layer.norms[lag]:.0e}" for lag in lags]
            line = Text(norm_bars(layer.norms[1:]), style="cyan")
            table.add_row(flow.name if number == 1 else "", str(number), *values, line)
    return table


def norm_bars(norms: Sequence[float], width: int = 16) -> str:
    """Return a bar for each norm: full for the largest, empty DECADES powers of ten below."""
    top = math.log10(max(max(norms), 1e-300))
    picked = [norms[at * (len(norms) - 1) // max(width - 1, 1)] for at in range(width)]
    heights = [(math.log10(max(norm, 1e-300)) - top) / DECADES + 1.0 for norm in picked]
    return bars(heights)


def weight_table(flows: Sequence[GradientFlow]) -> Table:
    """Return spectral radii, and how often each gate is shut or open."""
    table = plain_table("<model", "layer", "<spectral radii", "<gates below 0.1 / above 0.9")
    for flow in flows:
        for number, layer in enumerate(flow.layers, start=1):
            gates = ", ".join(
                f"{name} {100 * low:.0f} / {100 * high:.0f} %"
                for name, (low, high) in layer.gates.items()
            )
            radii = " ".join(f"{radius:.2f}" for radius in layer.radii)
            table.add_row(flow.name if number == 1 else "", str(number), radii, gates)
    return table


def save_picture(flows: Sequence[GradientFlow], path: Path) -> None:
    """Save the curves of all models as a picture: lag across, norm (logarithmic) up."""
    figure = figures().Figure(figsize=(7.0, 4.2), layout="constrained")
    axes = figure.subplots()
    for flow in flows:
        for label, layer in zip(_labels(flow), flow.layers, strict=True):
            lags = range(1, len(layer.norms))
            axes.semilogy(lags, [norm or math.nan for norm in layer.norms[1:]], label=label)
    axes.set_xlabel("lag k (tokens)")
    axes.set_ylabel("norm of d loss(t) / d state(t - k)")
    axes.set_title("How far back the gradient reaches")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path)
