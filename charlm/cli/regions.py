"""`charlm score --group-by`: the rows of a table are the words or regions of texts."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any

import typer

from charlm.cli.output import say, write_text
from charlm.errors import UsageError, check_choice

if TYPE_CHECKING:
    from charlm.inference.scores import Score
    from charlm.inference.scoring import Scorer
    from charlm.text.sources.rows import Record

FORMATS = ("auto", "tsv", "csv", "jsonl")

GroupBy = Annotated[
    list[str] | None,
    typer.Option(
        "--group-by",
        metavar="COLUMNS",
        help="Join the rows of a table with equal cells in these columns, such as item,condition, "
        "to a text; each row gets the surprisal of its words there.",
    ),
]
Order = Annotated[
    str | None,
    typer.Option(
        "--order",
        metavar="NAME",
        help="Column with the position of each row in its text. (default: order of the rows)",
    ),
]


def check_regions(typed: Mapping[str, Any], by: str | None, output: str) -> None:
    """Raise UsageError for flags and formats that --group-by does not have."""
    check_choice("--format", output, FORMATS)
    if by not in (None, "word"):
        raise UsageError(f"--by {by} with --group-by; expected --by word, which may be left out")
    if flag := next(iter(typed), None):
        raise UsageError(f"{flag} with --group-by, which has no place for it; leave it out")


def score_groups(
    scorer: "Scorer",
    batches: "Iterable[list[Record]]",
    columns: Sequence[str],
    order: str | None,
    context: str,
    output: str,
    log_base: str,
    keep: list[str] | None,
) -> "list[Score]":
    """Write a line for each row; return the scores of the different texts."""
    from charlm.api.regions import score_regions
    from charlm.report.formats import REGION_FORMATS
    from charlm.report.scores import score_lines

    seen: list[Score] = []
    rows = list(chain.from_iterable(batches))
    scored = score_regions(scorer, rows, columns, order=order, context=context, seen=seen)
    writer = REGION_FORMATS["tsv" if output == "auto" else output](
        log_base, by="word", word_rule=scorer.word_rule, entropy=scorer.entropy
    )
    for lines in score_lines([scored] if scored else [], writer, keep, Counter(), say):
        write_text(lines)
    return seen


def isolated_words(rows: "Sequence[Record]") -> str:
    """Return a warning about rows of a table that are single words, scored alone, or ""."""
    texts = [row.text.split() for row in rows if row.text and row.cells]
    single = sum(len(words) == 1 for words in texts)
    if len(texts) < 2 or single < 0.9 * len(texts):
        return ""
    return (
        "The rows of the table are single words, and each is scored without the others. If they "
        "are the words of sentences, name the columns that distinguish the sentences: "
        "--group-by COLUMNS"
    )
