"""Prompts: line ends in a text that is given to a model mean what they mean in its training text.

Where lines are documents, a line end ends the document, and what follows begins the next one; where
paragraphs are, blank lines do. As tokens they would be UNK, or one that was never trained.
"""

import re

from charlm.text.corpus import END, check_text

_BLANK_LINES = re.compile("\n\n+")


def open_document(
    prompt: str, document: str, *, anew: bool, backward: bool = False, crlf: bool = False
) -> str:
    """Return the part of a prompt that the text to come belongs to.

    That is what follows its last document end, or for a model that reads backward what comes before
    the first one. Where a model goes on over document ends (not `anew`), it is the whole prompt.
    `crlf` is whether the model has learnt lines that end with CR LF. Raises CorpusError for a lone
    surrogate.
    """
    check_text(prompt)
    marked = with_ends(prompt, document, crlf=crlf)
    if not anew:
        return marked.replace(END, "\n")
    if document == "paragraph":  # a file may begin and end with line ends too
        marked = marked.rstrip("\n" + END) if backward else marked.lstrip("\n" + END)
    return marked.partition(END)[0] if backward else marked.rpartition(END)[2]


def with_ends(text: str, document: str, *, crlf: bool = False) -> str:
    """Return a text with END in place of each line end, or blank lines, that ends a document."""
    if document not in ("line", "paragraph"):
        return text
    if not crlf:
        text = text.replace("\r\n", "\n")
    return text.replace("\n", END) if document == "line" else _BLANK_LINES.sub(END, text)


def of_file(text: str, document: str) -> str:
    """Return the prompt in a text file, whose last line end is not the end of a document."""
    if document not in ("line", "paragraph") or not text.endswith("\n"):
        return text
    return text[: -2 if text.endswith("\r\n") else -1]
