"""Boundaries: what document ends and line ends mean to a model.

Prompts, scored texts and samples are cut, ended and separated as the training text was. The rules
are computed once, from the training text, and stored in config.json.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from charlm.text.documents import CUT_BY_LINES, END, check_text, mark_text
from charlm.text.encoded import EncodedText, id_counts
from charlm.text.tokenizers.tokenizer_json import EOS
from charlm.text.tokenizers.vocabulary import Ids, Vocabulary


@dataclass(frozen=True, kw_only=True)
class Boundaries:
    """Facts about the documents and line ends of a training text, and the rules that follow."""

    document: str = "stream"
    """Unit of the training text: stream, line, paragraph or file; rows of tables are lines."""
    line_end_is_eos: bool = False
    """Line ends are EOS (vocabularies of blank-separated words)."""
    eos_inside: bool = False
    """Documents have several lines, each with an EOS."""
    line_ends_inside: bool = False
    """Documents are lines and hold line ends: cells of a table with several lines."""
    crlf: bool = False
    """Lines end with CR LF, so CRs are kept in later texts too."""

    @classmethod
    def of_text(
        cls, train: EncodedText, vocabulary: Vocabulary, document: str, *, crlf: bool
    ) -> "Boundaries":
        """Return the boundaries of an encoded training text."""
        eos, end = vocabulary.line_ends_are_eos, vocabulary.line_end
        if document == "stream":
            return cls(line_end_is_eos=eos, crlf=crlf)
        counts = id_counts(train.ids, len(vocabulary))
        return cls(
            document=document,
            line_end_is_eos=eos,
            eos_inside=eos and int(counts[EOS]) > train.documents,
            line_ends_inside=document == "line" and end not in (None, EOS) and bool(counts[end]),
            crlf=crlf,
        )

    @classmethod
    def from_config(cls, config: Mapping[str, Any], vocabulary: Vocabulary) -> "Boundaries":
        """Read the boundaries of a run from its config.json.

        For facts that older versions did not record, the entries of the vocabulary decide.
        """
        eos = vocabulary.line_ends_are_eos
        known = not vocabulary.spec.byte_level and not vocabulary.unknown("\n")
        return cls(
            document=config["document"],
            line_end_is_eos=eos,
            eos_inside=config.get("eos_inside", False),
            line_ends_inside=config.get("line_ends_inside", known and not eos),
            crlf=config.get("crlf", not vocabulary.unknown("\r")),
        )

    def to_config(self) -> dict[str, Any]:
        """Return the entries of config.json, all but the one that the vocabulary implies."""
        return {name: value for name, value in asdict(self).items() if name != "line_end_is_eos"}

    @property
    def has_ends(self) -> bool:
        """True if the model has learned where texts end; then EOS is part of every score."""
        return self.document != "stream" or self.line_end_is_eos

    @property
    def resets(self) -> bool:
        """True if text after an EOS starts from the zero state."""
        if self.document == "stream" or self.eos_inside:
            return False
        return self.document == "line" or not self.line_end_is_eos

    @property
    def text_document(self) -> str:
        """Unit of prompts and scored texts: `document`, but "file" if lines hold line ends."""
        inside = self.document == "line" and self.line_ends_inside
        return "file" if inside else self.document

    @property
    def separator(self) -> str:
        """Text of an EOS between generated documents: a blank line after a paragraph."""
        return "\n\n" if self.document == "paragraph" and self.resets else "\n"

    def mark(self, text: str) -> str:
        """Replace each line end, or blank line, that ends a document by END."""
        if self.text_document not in CUT_BY_LINES:
            return text
        return mark_text(self._without_cr(text), self.text_document)

    def open_document(self, prompt: str, *, backward: bool = False) -> str:
        """Return the part of a prompt that the generated text continues.

        It is the text after the last document end (before the first one for a model that reads
        backward), or all of it if the state does not reset. Raises CorpusError for a lone
        surrogate.
        """
        check_text(prompt)
        marked = self.mark(prompt)
        if not self.resets:
            return marked.replace(END, "\n")
        if self.text_document == "paragraph":  # line ends around a file do not end a paragraph
            marked = marked.rstrip("\n" + END) if backward else marked.lstrip("\n" + END)
        return marked.partition(END)[0] if backward else marked.rpartition(END)[2]

    def open_ids(self, ids: Ids) -> Ids:
        """Return the ids of a prompt that the model reads: those after the last reset."""
        ends = np.flatnonzero(ids == EOS)
        return ids[ends[-1] + 1 :] if self.resets and len(ends) else ids

    def file_prompt(self, text: str) -> str:
        """Return the prompt in a text file, whose last line end does not end a document."""
        return strip_line_end(text) if self.text_document in CUT_BY_LINES else text

    def scored_text(self, text: str) -> str:
        """Return a text as it is scored: if lines are documents, its last line end is its EOS."""
        if self.text_document != "line":
            return text
        return self._without_cr(text).removesuffix("\n")

    def _without_cr(self, text: str) -> str:
        return text if self.crlf else text.replace("\r\n", "\n")


STREAM = Boundaries()
"""Boundaries of one continuous text."""


def strip_line_end(text: str) -> str:
    """Return a text without the LF or CR LF at its end."""
    return text.removesuffix("\r\n") if text.endswith("\r\n") else text.removesuffix("\n")
