"""Data of the page: the text in a model as JSON, with the signals of its units in few bytes."""

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np

from charlm import __version__
from charlm.backends.interface import Array
from charlm.config.cells import CELLS, SIGNALS
from charlm.errors import UsageError
from charlm.inspect.find_units import UnitMatches
from charlm.inspect.hidden import Hidden, layer_sizes, usual_signal
from charlm.inspect.text_view import Inspection, TextView, token_values
from charlm.report.heat import blind_guess, surprisal_bounds
from charlm.report.inside import FULL_DIFFERENCE
from charlm.runs.layout import NETWORK
from charlm.runs.locate import run_name
from charlm.runs.run import Run, model_settings
from charlm.units import finite

MAX_SIGNAL_BYTES = 8_000_000
"""Maximum size of all signals in a page; a value takes a byte."""


TOKEN_COLUMNS = ("text", "bits", "rank", "top", "oov", "name")
"""Figures of a token, in their order; `top` has its alternatives with their probabilities."""


def score_data(view: TextView) -> dict[str, Any]:
    """Return the tokens of a text, a row of TOKEN_COLUMNS each, and figures of the text."""
    tally = view.tally
    first = sum(token.rank == 1 for token in view.tokens) / max(len(view.tokens), 1)
    return {
        "columns": TOKEN_COLUMNS,
        "tokens": [
            (
                token.text,
                finite(round(token.bits, 4)),
                token.rank,
                [(name, round(chance, 5)) for name, chance in token.alternatives],
                token.oov,
                token.token,
            )
            for token in view.tokens
        ],
        "totals": {**tally.summary(), "log_probability": finite(-tally.nats), "first": first},
        "bounds": _bounds(view.vocab_size),
        "blind_guess": blind_guess(view.vocab_size),
    }


def model_data(run: Run, shape: str, example: str = "") -> dict[str, Any]:
    """Return the facts about a model that the head of the page shows, and a text to begin with."""
    entries = len(run.vocabulary)
    shape = shape.replace(" x ", " × ")
    return {
        "id": run_name(run.path),
        "facts": f"{shape} · {entries:,} {run.vocabulary.spec.plural} · {run.backend.name}",
        "entries": entries,
        "unit": run.vocabulary.unit,
        "ends": run.boundaries.has_ends,
        "inside": run.kind == NETWORK,
        "bounds": _bounds(entries),
        "blind_guess": blind_guess(entries),
        "example": example,
        "made": f"Made by charlm {__version__}. This page loads nothing from anywhere.",
    }


def _bounds(entries: int) -> list[float]:
    """Return the surprisal at which each level of colour begins."""
    return [round(bound, 4) for bound in surprisal_bounds(entries)]


def fitting_signals(run: Run, tokens: int) -> list[str]:
    """Return the signals of a network that fit in a page for a text of this number of tokens.

    The first ones are c and h. Raises UsageError if not even one fits.
    """
    units = sum(layer_sizes(run))
    most = MAX_SIGNAL_BYTES // max(units, 1)
    if tokens > most:
        raise UsageError(
            f"the text has {tokens:,} tokens; expected at most {most:,} in a page, since it keeps "
            f"the values of {units:,} units after each of them. Give a part of it"
        )
    return _known_signals(run)[: most // max(tokens, 1)]


def inside_data(
    run: Run,
    view: TextView,
    hidden: Hidden,
    chosen: tuple[str, str] | None = None,
    units: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the signals of `hidden` after each token, and the unit to show first.

    `units` are those to return, by default all. `chosen` is a unit and a signal; the default is the
    unit of the last layer that varies most. `names` has all signals of the network.
    """
    numbers = {
        f"{layer}:{unit}": unit + sum(hidden.sizes[: layer - 1])
        for layer, size in enumerate(hidden.sizes, 1)
        for unit in range(size)
    }
    names = list(units or numbers)
    rows = [numbers[name] for name in names]
    signals = {name: _units(view, hidden, array)[rows] for name, array in hidden.signals.items()}
    usual = usual_signal(signals)
    if chosen is None or chosen[1] not in signals:
        outputs = signals.get("h", signals[usual])  # cells may grow without end
        last = [at for at, row in enumerate(rows) if units or row >= sum(hidden.sizes[:-1])]
        spread = np.var(np.nan_to_num(outputs[last]), axis=1) if outputs.size else np.zeros(1)
        best = names[last[int(spread.argmax())]]
        chosen = (chosen[0] if chosen else best, usual)
    return {
        "units": names,
        "names": [
            {"id": name, "name": f"{SIGNALS[name]} {name}", "gate": SIGNALS[name].endswith("gate")}
            for name in _known_signals(run)
        ],
        "signals": {name: signal_data(values) for name, values in signals.items()},
        "unit": chosen[0],
        "signal": chosen[1],
    }


def _known_signals(run: Run) -> list[str]:
    """Return the signals of a network, c and h first."""
    signals = CELLS[model_settings(run.config, run.path).cell].signals
    return sorted(signals, key="chifogrz".index)


def _units(view: TextView, hidden: Hidden, array: Array) -> Array:
    """Return a signal (L, N, H) as a row for each unit, with a value for each token of a view."""
    rows = [array[layer, :, :size].T for layer, size in enumerate(hidden.sizes)]
    return token_values(view, hidden, np.concatenate(rows))


def find_data(pattern: str, matches: UnitMatches) -> dict[str, Any]:
    """Return the units that follow a pattern, and the fraction of tokens in its matches."""
    units = [
        {name: finite(value) if isinstance(value, float) else value for name, value in row.items()}
        for row in matches.rows()
    ]
    return {"pattern": pattern, "units": units, "fraction": matches.fraction}


def compare_data(inspection: Inspection) -> dict[str, Any]:
    """Return the parts of a text with their bits under two models."""
    return {
        "other": inspection.other,
        "full": FULL_DIFFERENCE,
        "parts": [
            {
                "text": text,
                "name": text or "<eos>",
                "bits": finite(round(own, 4)),
                "other_bits": finite(round(other, 4)),
            }
            for text, own, other in inspection.differences
        ],
    }


def signal_data(values: Array) -> dict[str, Any]:
    """Return a signal of units, shape (units, tokens), as 8-bit integers with a scale per unit."""
    finite_values = np.nan_to_num(values)
    scales = np.abs(finite_values).max(axis=1, initial=0.0)
    divisors = np.where(scales > 0.0, scales, 1.0)[:, None]
    levels = np.rint(127.0 * finite_values / divisors).astype(np.int8)
    return {
        "scales": [float(f"{scale:.6g}") for scale in scales],
        "data": base64.b64encode(levels.tobytes()).decode("ascii"),
    }
