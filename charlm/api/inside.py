"""What a model sees in a text: surprisal, alternatives, units, and the difference to another."""

from dataclasses import replace

from charlm.api.model import Model
from charlm.errors import UsageError, check_choice, named
from charlm.inference.words import WordRule
from charlm.inspect.text_view import Inspection, Part, differences, view_text, word_parts

PARTS = ("token", "word")
"""Parts of a text that have a colour of their own."""


def inspect(
    model: Model,
    text: str,
    *,
    by: str = "token",
    top: int = 0,
    other: Model | None = None,
) -> Inspection:
    """Return a text as a model reads it, with what else is asked about it.

    `by` is "token" or "word" (the blank before a word belongs to it). `top` is the number of
    alternatives for each token. With `other` the text is compared under two models, part by part;
    if they cut it differently, parts are the smallest that both cut out. Raises UsageError for
    unknown names, for words of a model that reads backward, and for models that read the text
    differently.
    """
    check_choice(named("by"), by, PARTS)
    _check_together(by=by == "word", top=bool(top), other=other is not None)
    view = view_text(model.run, model.scorer(), text, top=top)
    words = _words(model, text) if by == "word" else []
    inspection = Inspection(view=view, words=words)
    if other is None:
        return inspection
    second = view_text(other.run, other.scorer(), text)
    pairs = (words, _words(other, text)) if words else (view.parts, second.parts)
    return replace(inspection, differences=differences(*pairs), other=second.run)


def _check_together(**given: bool) -> None:
    """Raise UsageError for two things that cannot be shown in one text."""
    allowed = ({"by", "other"},)
    names = {name for name, is_given in given.items() if is_given}
    if len(names) > 1 and not any(names <= each for each in allowed):
        flags = " and ".join(sorted(map(named, names)))
        raise UsageError(f"{flags} were given; expected one of them, since they colour one text")


def _words(model: Model, text: str) -> list[Part]:
    """Return the words of a text with their bits."""
    scorer = model.scorer(word_rule=WordRule(boundary="leading"))
    return word_parts(scorer.score([text], by="word")[0])
