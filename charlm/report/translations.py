"""Reports of runs that give translations: the plan, the figures, and the end of a training."""

from typing import Any

from charlm.config.tasks import figure_of_translations
from charlm.report.task_reports import (
    Json,
    Pairs,
    TaskReport,
    held_out_figures,
    run_line,
    text_sizes,
)
from charlm.report.text import number
from charlm.report.translation_predictions import TranslationPredictions
from charlm.runs.card import model_shape

NAMES = {"chrf": "chrF", "bleu": "BLEU", "exact": "exact"}
"""Names of the figures for people."""
MIN_PLAIN = 0.001
"""Loss below which it is written with a power of ten."""


class TranslateReport(TaskReport):
    """Reports of runs that give translations."""

    predictions = TranslationPredictions()
    has_attention = True
    comparison_note = (
        "difference from the first run, above zero is better; intervals from a bootstrap over texts"
    )
    tables = "charlm.report.translation_tables"

    def plan_lines(self, record: Json) -> tuple[list[str], str, str]:
        """Return lines about both texts and the floor, and those about the model and the run."""
        settings, corpus = record["settings"], record["corpus"]
        model, both = settings["model"], settings["task"]["both_ways"]
        parts, unit = corpus["parts"], settings["vocabulary"]["unit"]
        tokens = f"{parts['train']['tokens']:,} and {parts['train']['targets']:,} {unit} tokens"
        floor = floor_of(record)
        return (
            [
                f"text   {corpus['name']}: {text_sizes(record)} texts with translations; {tokens} "
                f"in training, {corpus['vocabulary']:,} and {corpus['target_vocabulary']:,} "
                "entries",
                *([f"floor  {floor}"] if floor else []),
            ],
            f"model  {model_shape(model)} reads {'both ways' if both else 'forward'}, "
            f"{(1 + both) * model['hidden_size']} units with attention write; "
            f"{record['parameters']:,} weights, dropout {model['output_dropout']:g}",
            run_line(record, "{batch_size} texts of like length"),
        )

    def facts(self, record: Json) -> Pairs:
        """Return the size of the target's vocabulary, and the floor until results have theirs."""
        pairs = [("translations", f"{record['corpus']['target_vocabulary']:,} entries")]
        described = self.result_pairs(record, record.get("results") or {})
        if "floor" not in dict(described) and (floor := floor_of(record)):
            pairs.append(("floor", floor))
        return pairs

    def figures_text(self, figures: Json) -> str:
        """See `figures_text`."""
        return figures_text(figures)

    def result_pairs(self, record: Json, results: Json) -> Pairs:
        """Return the figures of the texts of a run, each with its floor."""
        pairs: Pairs = []
        for name, heading, figures in held_out_figures(results):
            pairs.append((heading, figures_text(figures)))
            if figures.get("texts") and (floor := floor_text(record, name)):
                pairs.append(("floor", floor))
        return pairs

    def change_json(self, change: Any) -> dict[str, Any]:
        """Return the differences of two runs as plain values, by figure."""
        plain = (each.to_dict() for each in change.values())
        return {each.pop("figure"): each for each in plain}


TRANSLATE_REPORT: TaskReport = TranslateReport()


def floor_of(record: Json) -> str:
    """Return the figures of copies of the sources of the first held-out split, or ""."""
    return floor_text(record, "valid") or floor_text(record, "test")


def floor_text(record: Json, split: str) -> str:
    """Return the figures of copies of the sources of a split, or ""."""
    floor = ((record.get("floors") or {}).get("copy") or {}).get(split)
    figures = floor and figures_text({"texts": 1, **floor})
    return f"a copy of the source has {figures}" if figures else ""


def shown_figures(letters: float | None) -> list[str]:
    """Return the names of the figures for people, the headline first.

    `letters` is the mean length of the references. Short texts have no BLEU, which counts runs of
    four words.
    """
    is_short = figure_of_translations({"reference_letters": letters}) == "exact"
    return ["exact", "chrf"] if is_short else ["chrf", "bleu", "exact"]


def digits_of(name: str) -> int:
    """Return the digits after the point of a figure: of 0 to 100, or of a fraction."""
    return 3 if name == "exact" else 1


def figures_text(figures: Json) -> str:
    """Return the figures of a text in one line; before outputs are made only the loss."""
    names = shown_figures(figures.get("reference_letters")) if figures.get("texts") else []
    parts = [
        f"{NAMES[name]} {number(figures[name], digits_of(name))}{_interval(figures, name)}"
        for name in names
    ]
    if (nats := figures.get("nats_per_token")) is not None:
        parts.append(f"{f'{nats:.1e}' if 0.0 < nats < MIN_PLAIN else number(nats)} nats/token")
    return ", ".join(parts)


def _interval(figures: Json, name: str) -> str:
    ends = (figures.get("intervals") or {}).get(name)
    if not ends:
        return ""
    low, high = (number(end, digits_of(name)) for end in ends)
    return f" ({low} to {high})"
