"""Formats of other programs in `charlm score`: which flags fit them, and their writers."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from charlm.cli import options
from charlm.errors import UsageError

if TYPE_CHECKING:
    from charlm.api.model import Model
    from charlm.inference.scoring import Scorer
    from charlm.report.formats import Writer

TOOLKITS = ("srilm", "kenlm", "theanolm", "lm-zoo")
"""Formats of other programs, each with words of its own and a fixed base."""
WITH_CLOSED = ("srilm", "theanolm")
"""Formats that can leave out unknown words."""

Closed = Annotated[
    bool,
    typer.Option("--closed", help="Leave unknown words out (formats srilm and theanolm)."),
]


def scored_part(output: str, by: str | None, closed: bool, typed: Mapping[str, Any]) -> str:
    """Return the part to score for a format, if `by` was asked for.

    `typed` has the typed flags that formats of other programs have no place for.
    Raises UsageError for flags that do not fit the format.
    """
    if closed and output not in WITH_CLOSED:
        options.check_meant({"--closed"}, f"--format {' or '.join(WITH_CLOSED)}")
    if output not in TOOLKITS:
        return by or "text"
    for flag in typed:
        has = "has a base of its own" if flag == "--log-base" else "has no place for it"
        raise UsageError(f"{flag} with --format {output}, which {has}; leave out {flag}")
    if output == "lm-zoo" and by == "text":
        raise UsageError(
            "--by text with --format lm-zoo, which lists words; expected word or token"
        )
    return "token" if by == "token" else "word"


def format_writer(
    output: str,
    log_base: str | None,
    by: str | None,
    model: "Model",
    scorer: "Scorer",
    file: Path | None,
    closed: bool,
) -> "Writer":
    """Return the writer of a format for lines; `by` is the part that was asked for."""
    from charlm.inference.steps import StepReader
    from charlm.report.formats import FORMATS
    from charlm.report.toolkits import TOOLKIT_FORMATS, Source

    if output not in TOOLKITS:
        name = "tsv" if output == "auto" else output
        return FORMATS[name](
            log_base or "e", by=by or "text", word_rule=scorer.word_rule, entropy=scorer.entropy
        )
    writer = TOOLKIT_FORMATS[output](by=by)
    reader = StepReader(scorer, "token" if by == "token" else "word")
    kind = "mixture" if model.mixture else str(model.config["model"].get("cell", "ngram"))
    writer.source = Source(reader=reader, name=str(file or "-"), kind=kind, closed=closed)
    return writer
