"""Escapes for characters that are invisible or move the cursor."""

import unicodedata

JOINERS = "\u00ad\u200b\u200c\u200d"
"""Soft hyphen, and separators and joiners of Persian, Thai, Indian scripts and emoji."""


def escape_unprintable(text: str, kept: str = "") -> str:
    """Replace unprintable characters by escapes such as `\\x1b`, except those in `kept`."""
    return "".join(
        character if character.isprintable() or character in kept else _escape(character)
        for character in text
    )


def escape_controls(text: str) -> str:
    """Replace controls, surrogates and marks of writing direction by visible escapes.

    Line ends and tabs stay, and so do parts of ordinary text that Python does not call printable:
    blanks of all widths, joiners, letters of private use.
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
