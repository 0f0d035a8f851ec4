"""Settings of the text: its sources, how they are read, and its tokens."""

from dataclasses import dataclass
from typing import ClassVar

from charlm.config.fields import (
    MAX_COUNT,
    check,
    field_problems,
    one_of,
    setting,
    validation_text,
    without,
)
from charlm.config.text_units import UNITS
from charlm.errors import named

DOCUMENT_NAMES = ("auto", "stream", "line", "paragraph", "file")
NORMAL_FORMS = ("none", "nfc", "nfkc")
WORD_RULES = ("text", "whitespace", "bare")
TABLE = (one_of("input_format", "auto", "csv", "tsv", "jsonl", "json", "parquet"),)
SEPARATED = (one_of("input_format", "auto", "csv", "tsv"),)
SPLIT_NAMES = {"train": "training", "valid": "validation", "test": "test"}
"""Names of the splits in messages."""
HELD_OUT_NAMES = {name: SPLIT_NAMES[name] for name in ("valid", "test")}
"""Names of the splits that are held out."""


NO_FILE = without("valid", "a validation text takes the place of a held-out part")


@dataclass(frozen=True, kw_only=True)
class ReadSettings:
    """Rules by which a text is read from its sources: format, columns, encoding."""

    panel: ClassVar[str] = "Text"

    input_format: str = setting(
        "auto",
        "Format of the text",
        default_note="by suffix",
        choices=("auto", "text", "csv", "tsv", "jsonl", "json", "parquet"),
    )
    column: str | None = setting(
        None, "Column of a table: its name, or its number from 1", needs=TABLE
    )
    header: bool | None = setting(
        None,
        "First row of a table names its columns",
        has_no=True,
        default_note="detected",
        needs=SEPARATED,
    )
    delimiter: str = setting(
        "auto", "Separator of the fields of a table: one character, or tab", needs=SEPARATED
    )
    quoting: str = setting(
        "auto",
        "Quoting of the fields of a table",
        choices=("auto", "csv", "none"),
        needs=SEPARATED,
    )
    encoding: str = setting("utf-8", "Encoding of the files, or auto")
    errors: str = setting("strict", "Treatment of invalid bytes", choices=("strict", "replace"))
    keep_cr: bool = setting(
        False,
        "Keep the CR of CR LF in lines and paragraphs",
        needs=(one_of("document", "line", "paragraph"),),
    )
    glue: bool = setting(
        False,
        "Join the files of a stream without a line end between them",
        needs=(one_of("document", "stream"),),
    )

    def __post_init__(self) -> None:
        check(self.problems())

    def problems(self) -> list[str]:
        """Return the problems of the values."""
        problems = field_problems(self)
        known = self.delimiter in ("auto", "tab", "\\t") or len(self.delimiter) == 1
        if not known or self.delimiter in '"\r\n':
            problems.append(
                f"{named('delimiter')} is {self.delimiter!r}; expected one character, or tab"
            )
        return problems


@dataclass(frozen=True, kw_only=True)
class CorpusSettings(ReadSettings):
    """Sources of the text, how they are read, where documents end, and what is held out."""

    sources: tuple[str, ...] = setting(
        (), "Files, folders, globs, - or hf:name", flag=None, default_note="the built-in text"
    )
    document: str = setting("auto", "Unit of independent text", choices=DOCUMENT_NAMES)
    valid: tuple[str, ...] = setting((), "Validation text", default_note="the end of the text")
    test: tuple[str, ...] = setting((), "Test text, read once at the end")
    valid_frac: float | None = setting(
        None,
        "Fraction held out; 0 = none",
        flag="--valid-fraction",
        aliases=("--valid-frac",),
        at_least=0.0,
        at_most=0.9,
        default_note="0.1, at most 5 million characters",
        needs=(NO_FILE,),
    )
    hold_out: str = setting(
        "end",
        "Held-out part",
        choices=("end", "random"),
        needs=(
            NO_FILE,
            validation_text(),
            without("condition", "some texts of each condition are held out at random", "end"),
        ),
    )


@dataclass(frozen=True, kw_only=True)
class VocabularySettings:
    """Unit of the tokens, and which tokens the vocabulary keeps."""

    panel: ClassVar[str] = "Vocabulary"

    unit: str = setting("char", "Unit of text", choices=UNITS)
    words: str = setting("text", "Rule that splits words", choices=WORD_RULES)
    min_count: int | None = setting(
        None, "Minimum count of a token; rarer ones become UNK", at_least=1, default_note="by rule"
    )
    max_size: int | None = setting(
        None,
        "Maximum number of entries, with UNK and EOS",
        at_least=3,
        limit=MAX_COUNT,
        unit="entries",
        default_note="by rule",
    )
    lowercase: bool = setting(False, "Convert the text to lower case", has_no=True)
    normalize: str = setting("none", "Unicode normal form of the text", choices=NORMAL_FORMS)

    def __post_init__(self) -> None:
        check(field_problems(self))
