"""`charlm score` and `charlm eval` under all conditions of a run."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charlm import api
from charlm.cli.output import render, say, terminal_width, write_documents, write_text
from charlm.errors import UsageError, check_choice

if TYPE_CHECKING:
    from charlm.text.sources.rows import Record

BY_CONDITION = "condition"
FORMATS = ("auto", "table", "tsv", "csv", "jsonl")


def check_unconditioned(typed: Mapping[str, Any], what: str, instead: str) -> None:
    """Raise UsageError for the first typed flag beside `what`; `instead` is what to do."""
    if flag := next(iter(typed), None):
        raise UsageError(f"{flag} with {what}; expected no such flag. {instead}")


def check_by_condition(typed: Mapping[str, Any], output: str) -> None:
    """Raise UsageError for flags and formats that score --by condition does not have."""
    check_choice("--format", output, FORMATS)
    what = "--by condition, which scores each text under every condition"
    check_unconditioned(typed, what, "Leave it out")


def score_by_condition(
    path: Path,
    batches: "Iterable[list[Record]]",
    output: str,
    log_base: str,
    **options: Any,
) -> None:
    """Write how likely texts are under each condition of a run, and the conditions given a text.

    `output` is table, tsv, csv or jsonl; `options` are as in `load_run`.
    """
    from charlm.report.conditions import posterior_lines, posterior_table

    rows = [row for batch in batches for row in batch if row.text is not None]
    texts = [row.text or "" for row in rows]
    if not texts:
        say("no text was found, so nothing was scored")
        return
    found = api.conditions.posteriors(path, texts, **options)
    if output == "table":
        render(posterior_table(texts, found, log_base, terminal_width()))
        return
    for line in posterior_lines([row.number for row in rows], texts, found, log_base, output):
        write_text(line)


def evaluate_by_condition(path: Path, *, as_json: bool, **options: Any) -> None:
    """Write the figures of the held-out texts of a run, together and of each condition."""
    tallies = api.conditions.evaluate_conditions(path, **options)
    if as_json:
        about = {"run": path.name}
        contents = {
            part: {**about, **by_name[None].summary(), "conditions": _summaries(by_name)}
            for part, by_name in tallies.items()
        }
        write_documents(contents)
        return
    from charlm.report.conditions import condition_table

    render(condition_table(tallies))


def _summaries(by_name: Mapping[str | None, Any]) -> dict[str, Any]:
    return {name: tally.summary() for name, tally in by_name.items() if name is not None}
