"""Translations of texts for people and for programs."""

from typing import TYPE_CHECKING, Any

from charlm.report.predictions import DIGITS, one_line
from charlm.report.task_reports import Predictions, json_line

if TYPE_CHECKING:
    from rich.console import RenderableType

    from charlm.inference.translating import Text


class TranslationPredictions(Predictions):
    """Translations: the text alone, a line for each, or with probabilities."""

    formats = ("text", "tsv", "jsonl")
    shown = piped = "text"
    flags = frozenset({"--tokens", "--beam"})
    act, done = "translate", "translated"

    def header(self, output: str, top: int) -> str:
        """Return the names of the columns of tsv."""
        return "text\ttranslation\tprobability\n" if output == "tsv" else ""

    def line(self, output: str, text: str, answer: "Text | None", top: int) -> str:
        """Return the translation alone; or with its text and the probability of a token."""
        if output == "jsonl":
            found = self.json(answer)
            shown = {key: found[key] for key in ("translation", "probability", "tokens")}
            return json_line({"text": text, **shown})
        if answer is None:
            return "\n"
        if output == "text":
            return one_line(answer.text) + "\n"
        return f"{one_line(text)}\t{one_line(answer.text)}\t{answer.probability:.4f}\n"

    def json(self, answer: "Text | None", top: int = 1) -> dict[str, Any]:
        """Return translation, tokens, pieces of the source and attention (tokens, pieces).

        Of a text without words the translation is empty.
        """
        if answer is None or not answer.tokens:
            return {
                "translation": "", "probability": None, "tokens": [], "source": [], "attention": [],
            }  # fmt: skip
        return {
            "translation": answer.text,
            "probability": round(answer.probability, DIGITS),
            "tokens": [
                {"token": text, "probability": round(chance, DIGITS), "source": source}
                for text, chance, source in answer.tokens
            ],
            "source": list(answer.source),
            "attention": [[round(w, DIGITS) for w in row] for row in answer.attention.tolist()],
        }

    def reading(
        self, text: str, steps: list[Any], top: int, *, as_json: bool
    ) -> "RenderableType | str":
        """Return a line for each token: its probability, and the piece that it looks at most.

        As JSON, one line has the attention of all tokens.
        """
        answer: Text | None = steps[0] if steps else None
        if as_json:
            return json_line({"text": text, **self.json(answer)})
        from rich.console import Group
        from rich.text import Text as Line

        if answer is None:
            return Line("")
        return Group(Line(one_line(answer.text), style="bold"), _token_table(answer))


def _token_table(answer: "Text") -> "RenderableType":
    from rich.text import Text as Line

    from charlm.report.tables import plain_table
    from charlm.report.text import visible

    table = plain_table("<token", "probability", "<looks at", "weight")
    for token, weights in zip(answer.tokens, answer.attention, strict=True):
        chance, weight = f"{token.probability:.4f}", f"{weights.max():.2f}"
        table.add_row(Line(visible(token.text)), chance, Line(visible(token.source)), weight)
    return table
