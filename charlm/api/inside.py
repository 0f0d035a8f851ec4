"""A text token by token: surprisal, alternatives, units, and the difference of two models."""

from collections.abc import Sequence
from dataclasses import replace

from charlm.api.model import Model
from charlm.api.surprisals import PARTS
from charlm.errors import check_choice, named
from charlm.inspect.hidden import checked_signals, usual_signal
from charlm.inspect.text_view import (
    Inspection,
    TextView,
    differences,
    token_values,
    view_text,
)
from charlm.listing import Part


def inspect(
    model: Model,
    text: str,
    *,
    by: str = "token",
    top: int = 0,
    units: Sequence[str] = (),
    signals: Sequence[str] = (),
    other: Model | None = None,
) -> Inspection:
    """Return the tokens of a text with their surprisal under a model.

    `by` is "token" or "word" (the blank before a word belongs to it). `top` is the number of
    alternatives for each token. `units` are units such as "2:8", whose `signals` (by default c, or
    h) are recorded after each token. With `other` the text is compared under two models, part by
    part; if their tokens differ, the parts are the smallest that consist of whole tokens of both.
    Raises UsageError for unknown names, for words of a model that reads backward, and for models
    that read the text differently.
    """
    check_choice(named("by"), by, PARTS)
    view = view_text(model.run, model.scorer(), text, top=top)
    words = _words(model, text) if by == "word" else []
    traced = _traced(model, view, units, signals) if units else {}
    inspection = Inspection(view=view, words=words, units=traced)
    if other is None:
        return inspection
    second = view_text(other.run, other.scorer(), text)
    pairs = (words, _words(other, text)) if words else (view.parts, second.parts)
    return replace(inspection, differences=differences(*pairs), other=second.run)


def _traced(
    model: Model, view: TextView, units: Sequence[str], signals: Sequence[str]
) -> dict[tuple[str, str], list[float]]:
    """Return the values of units after each token, by unit and signal."""
    chosen = signals or [usual_signal(checked_signals(model.run, None))]
    hidden = model.hidden(view.text, signals=chosen)
    return {
        (unit, signal): token_values(view, hidden, hidden.unit(unit, signal)).tolist()
        for unit in units
        for signal in chosen
    }


def _words(model: Model, text: str) -> list[Part]:
    """Return the words of a text with their bits."""
    return model.words(text, boundary="leading").scores[0].word_parts
