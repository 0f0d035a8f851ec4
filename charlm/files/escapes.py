"""Text made fit to be shown: what moves a cursor or hides becomes visible."""

import unicodedata

JOINERS = "\u00ad\u200b\u200c\u200d"
"""Soft hyphen, and what parts or joins letters in Persian, Thai, Indian scripts and emoji."""


def escape_unprintable(text: str, kept: str = "") -> str:
    """Unprintable characters as escapes such as `\\x1b`, but for those in `kept`."""
    return "".join(
        character if character.isprintable() or character in kept else _escape(character)
        for character in text
    )


def escape_controls(text: str) -> str:
    """Controls, surrogates and marks that turn the direction of writing, as visible escapes.

    Line ends and tabs stay, and so does what is part of ordinary text though Python does not call
    it printable: blanks of all widths, joiners, letters of private use.
    """
    return "".join(character if _is_text(character) else _escape(character) for character in text)


def _is_text(character: str) -> bool:
    return (
        character.isprintable()
        or character in "\n\t"
        or character in JOINERS
        or unicodedata.category(character) in ("Zs", "Co")
    )


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
