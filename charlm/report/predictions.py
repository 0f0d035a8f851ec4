"""Labels of texts for people and for programs."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from charlm.errors import UsageError
from charlm.files.escapes import escape_controls
from charlm.report.task_reports import Predictions, json_line

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from charlm.inference.labelling import Label

DIGITS = 6
"""Digits of a probability in JSON: as many as are equal whatever texts are read beside."""


class LabelPredictions(Predictions):
    """Labels of texts."""

    formats = ("table", "tsv", "jsonl", "labels", "fasttext")
    piped = "tsv"
    flags = frozenset({"--top", "--tokens", "--with"})

    def check(self, output: str, *, tokens: bool, top: int, as_json: bool) -> None:
        """Raise UsageError for options of the output that are invalid together."""
        super().check(output, tokens=tokens, top=top, as_json=as_json)
        if top > 1 and output == "labels":
            raise UsageError(
                f"--top {top} with --format labels, which has one label for each text; expected "
                "another format. Use --format tsv"
            )
        if top > 1 and tokens and not as_json and output != "jsonl":
            raise UsageError(
                f"--top {top} with --tokens, which shows the probability of one label; expected "
                "another format. Use --format jsonl"
            )

    def header(self, output: str, top: int) -> str:
        """Return the names of the columns of tsv: label, probability, and of the next; text."""
        if output != "tsv":
            return ""
        numbers = ["", *(f"_{rank}" for rank in range(2, top + 1))]
        names = [name for number in numbers for name in (f"label{number}", f"probability{number}")]
        return "\t".join([*names, "text"]) + "\n"

    def line(self, output: str, text: str, answer: "Label | None", top: int) -> str:
        """See `LINES`; of jsonl an object with the text and its prediction."""
        if output == "jsonl":
            return json_line({"text": text, **self.json(answer, top)})
        return LINES[output](text, answer, top)

    def table(self, rows: Iterable[tuple[str, "Label | None"]], top: int, width: int) -> "Table":
        """Return a row for each text: its likeliest labels, their probabilities, and the text."""
        from rich.text import Text

        from charlm.report.tables import plain_table
        from charlm.report.text import shortened

        rows = list(rows)
        columns = [name for _ in range(top) for name in ("<label", "probability")]
        table = plain_table(*columns, "<text")
        answers = [answer for _, answer in rows if answer]
        longest = max((len(one_line(answer.label)) for answer in answers), default=0)
        room = max(width - top * (max(longest, 5) + 15), 20)
        for text, answer in rows:
            pairs = answer.top(top) if answer else []
            cells = [cell for name, p in pairs for cell in (Text(one_line(name)), f"{p:.4f}")]
            missing = [""] * (2 * top - len(cells))
            table.add_row(*cells, *missing, Text(shortened(text, room)))
        return table

    def json(self, answer: "Label | None", top: int = 1) -> dict[str, Any]:
        """Return the label and the probabilities: of the `top` likeliest labels, or 1 for all.

        Without a label they are null, and there are no probabilities.
        """
        if answer is None:
            return {"label": None, "probability": None, "probabilities": {}}
        pairs = answer.top(top) if top > 1 else answer.probabilities.items()
        return {
            "label": answer.label,
            "probability": round(answer.probability, DIGITS),
            "probabilities": {name: round(p, DIGITS) for name, p in pairs},
        }

    def reading(
        self, text: str, steps: list[Any], top: int, *, as_json: bool
    ) -> "RenderableType | str":
        """Return the probability of the final label after each token, before the token.

        As JSON, a line has a text, its prediction, and those after each of its tokens.
        """
        if as_json:
            tokens = [{"token": piece, **self.json(answer, top)} for piece, answer in steps]
            final = self.json(steps[-1][1] if steps else None, top)
            whole = {"text": text, **final, "tokens": tokens}
            return json_line(whole)
        from rich.text import Text

        if not steps:
            return Text("")
        label = steps[-1][1].label
        shown = Text().append(f"P({one_line(label)})  ", style="bold")
        for number, (piece, answer) in enumerate(steps):
            probability = answer.probabilities[label]
            shown.append(" | " if number else "", style="dim")
            shown.append(f"{probability:.2f}", style="green" if answer.label == label else "red")
            shown.append(f" {one_line(piece)}")
        return shown


def one_line(text: str) -> str:
    """Return a text on one line without tabs: these and other controls are escaped."""
    shown = escape_controls(text).replace("\t", "\\t")
    return shown.replace("\n", "\\n")


def tsv_line(text: str, answer: "Label | None", top: int) -> str:
    """Return label, probability and text, separated by tabs."""
    if answer is None:
        return "\n"
    cells = [cell for name, p in answer.top(top) for cell in (one_line(name), f"{p:.4f}")]
    return "\t".join([*cells, one_line(text)]) + "\n"


def label_line(text: str, answer: "Label | None", top: int) -> str:
    """Return the label alone."""
    del text, top
    return f"{one_line(answer.label) if answer else ''}\n"


def fasttext_line(text: str, answer: "Label | None", top: int) -> str:
    """Return the line of `fasttext predict-prob`; blanks in a label become hyphens."""
    from charlm.text.sources.kinds import LABEL_PREFIX

    del text
    pairs = answer.top(top) if answer else []
    words = [f"{LABEL_PREFIX}{one_line('-'.join(name.split()))} {p:.4f}" for name, p in pairs]
    return " ".join(words) + "\n"


LINES: dict[str, Callable[[str, Any, int], str]] = {
    "tsv": tsv_line, "labels": label_line, "fasttext": fasttext_line,
}  # fmt: skip
"""Formats for programs: functions of the text, its label, and how many labels are written."""
