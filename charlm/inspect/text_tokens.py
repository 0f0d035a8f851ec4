"""The tokens of a text in their order, and the characters that each of them covers."""

import re
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from charlm.backends.interface import Ids
from charlm.runs.run import Run
from charlm.text.boundaries import Boundaries
from charlm.text.documents import END, check_text
from charlm.text.tokenizers.spans import Places, token_spans
from charlm.text.tokenizers.tokenizer_json import EOS

Value = TypeVar("Value", bound=np.generic)


@dataclass(frozen=True, kw_only=True)
class TextTokens:
    """Tokens of a text. `cuts`, shape (N + 1,), are the characters between which each token lies.

    A token has the blanks before it, which its unit may leave out; the last one has those after it
    too. Of several tokens that spell one character, the first one has it.
    """

    text: str
    ids: Ids
    cuts: Places

    @property
    def pieces(self) -> list[str]:
        """Slices of the text, one for each token; joined, they are the text."""
        return [self.text[start:end] for start, end in pairwise(self.cuts.tolist())]


def text_tokens(run: Run, text: str) -> TextTokens:
    """Return the tokens of a text, with an EOS at each line end that ends a document.

    Raises CorpusError for a lone surrogate.
    """
    check_text(text)
    return _cut(run, text, run.boundaries.mark(text))


def scored_tokens(run: Run, text: str) -> TextTokens:
    """Return the tokens that the score of a text counts: those that are read, and its EOS.

    The EOS has no characters, or those of a text that has no other token.
    """
    rules = run.boundaries
    marked = rules.scored_text(text)
    marked = rules.mark(marked) if rules.text_document == "line" else marked
    tokens = _cut(run, marked.replace(END, "\n"), marked)
    if not rules.has_ends:
        return tokens
    ids, cuts = np.append(tokens.ids, EOS), np.append(tokens.cuts, len(tokens.text))
    return replace(tokens, ids=ids, cuts=cuts)


def _cut(run: Run, text: str, marked: str) -> TextTokens:
    """Return the tokens of a text from the marked one."""
    vocabulary = run.text_vocabulary
    ids = vocabulary.encode_marked(marked)[0].astype(np.int64)
    _, ends = token_spans(vocabulary, marked, ids)
    if len(marked) != len(text):
        ends = _places(text, marked, run.boundaries)[ends]
    cuts = np.concatenate([[0], ends[:-1], [len(text)]]) if len(ids) else np.zeros(1, np.int64)
    return TextTokens(text=text, ids=ids, cuts=cuts)


def _places(text: str, marked: str, boundaries: Boundaries) -> Places:
    """Return the place in a text of each character of the marked one, and of its end.

    A line end may be two characters of the text, and the blank line between paragraphs any number.
    """
    line_end = "\n" if boundaries.crlf else "\r?\n"
    document_end = re.compile(
        line_end if boundaries.text_document == "line" else f"(?:{line_end})+"
    )
    places, at = [0], 0
    for character in marked:
        match = document_end.match(text, at) if character == END else None
        at = match.end() if match else at + 1 + (text[at] != character)
        places.append(at)
    return np.array(places, np.int64)


def reordered(run: Run, values: NDArray[Value]) -> NDArray[Value]:
    """Return values of tokens (N, ...) in reading order for those in text order, and vice versa."""
    return values[::-1].copy() if run.backward else values
