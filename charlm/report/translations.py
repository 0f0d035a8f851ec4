"""Reports of runs that give translations: the plan, the figures, and the end of a training."""

from typing import Any

from charlm.config.corpus import HELD_OUT_NAMES
from charlm.report.task_reports import Json, Pairs, TaskReport, run_line, text_sizes
from charlm.report.translation_figures import figures_text
from charlm.report.translation_predictions import TranslationPredictions
from charlm.runs.card import model_shape


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
        for name, heading in HELD_OUT_NAMES.items():
            if figures := results.get(name):
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
