"""Text made fit to be shown: what moves a cursor or hides becomes visible."""


def escape_unprintable(text: str, kept: str = "") -> str:
    """Unprintable characters as escapes such as `\\x1b`, but for those in `kept`."""
    return "".join(
        character
        if character.isprintable() or character in kept
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )
