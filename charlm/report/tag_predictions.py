"""Tags of words for people and for programs."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from charlm.report.predictions import DIGITS, one_line
from charlm.report.task_reports import Predictions, json_line

if TYPE_CHECKING:
    from rich.table import Table

    from charlm.inference.tagging import Tags


class TagPredictions(Predictions):
    """Tags of the words of sentences.

    conll        tsv                   tags             spans, jsonl
    Anna  B-PER  word  tag    prob...  B-PER O B-LOC    an object on each line
    lives O      Anna  B-PER  0.9876
    """

    formats = ("table", "conll", "tsv", "jsonl", "spans", "tags")
    piped = "conll"
    act, done = "tag", "tagged"

    def header(self, output: str, top: int) -> str:
        """Return the names of the columns of tsv."""
        return "word\ttag\tprobability\n" if output == "tsv" else ""

    def line(self, output: str, text: Any, answer: "Tags | None", top: int) -> str:
        """Return the lines of a sentence; those of conll and tsv end with an empty one."""
        if output == "jsonl":
            return json_line(self.json(answer, top))
        if output == "spans":
            whole = text if isinstance(text, str) else " ".join(text)
            found = {"text": whole, "spans": _spans(answer)}
            return json_line(found)
        if output == "tags":
            return " ".join(map(one_line, answer.tags if answer else ())) + "\n"
        if answer is None:
            return "\n"
        rows = zip(answer.words, answer.tags, answer.probabilities, strict=True)
        lines = [
            f"{one_line(word)}\t{one_line(tag)}" + (f"\t{p:.4f}" if output == "tsv" else "")
            for word, tag, p in rows
        ]
        return "\n".join([*lines, "", ""])

    def table(self, rows: Iterable[tuple[Any, "Tags | None"]], top: int, width: int) -> "Table":
        """Return a row for each word, coloured by the type of its span, in order of appearance."""
        from rich.text import Text

        from charlm.report.curve_terminal import FEW
        from charlm.report.tables import plain_table
        from charlm.report.text import shortened

        table = plain_table("<word", "<tag", "probability")
        colours: dict[str, str] = {}
        for number, (_, answer) in enumerate(rows):
            if number:
                table.add_row("", "", "")
            if answer is None:
                continue
            in_span = {at for each in answer.spans for at in range(each.first, each.last + 1)}
            lines = zip(answer.words, answer.tags, answer.probabilities, strict=True)
            for at, (word, tag, p) in enumerate(lines):
                style = ""
                if at in in_span:
                    style = colours.setdefault(tag[2:], FEW[len(colours) % len(FEW)])
                cells = (shortened(one_line(word), max(width - 40, 20)), one_line(tag))
                table.add_row(*(Text(cell, style) for cell in cells), f"{p:.4f}")
        return table

    def json(self, answer: "Tags | None", top: int = 1) -> dict[str, Any]:
        """Return words, tags, probabilities and spans; all are empty without words."""
        return {
            "words": list(answer.words) if answer else [],
            "tags": list(answer.tags) if answer else [],
            "probabilities": [round(p, DIGITS) for p in answer.probabilities] if answer else [],
            "spans": _spans(answer),
        }


def _spans(answer: "Tags | None") -> list[dict[str, Any]]:
    """Return the spans of a sentence as plain values."""
    return [
        span._asdict() | {"probability": round(span.probability, DIGITS)}
        for span in (answer.spans if answer else ())
    ]
