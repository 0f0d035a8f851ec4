"""Reports of runs that give translations: the plan, the figures, and the end of a training."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from charlm.config.training import counted_length, length_of
from charlm.report.task_reports import Json, Pairs, TaskReport
from charlm.report.translation_figures import figures_text
from charlm.report.translation_predictions import TranslationPredictions

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from charlm.inference.translation_results import TranslationComparison, TranslationEvaluation

HELD_OUT = {"valid": "validation", "test": "test"}
"""Names of the texts that are evaluated, for people."""


class TranslateReport(TaskReport):
    """Reports of runs that give translations."""

    predictions = TranslationPredictions()
    has_attention = True
    comparison_note = (
        "difference from the first run, above zero is better; intervals from a bootstrap over texts"
    )

    def plan_lines(self, record: Json) -> tuple[list[str], str, str]:
        """See `plan_lines`."""
        return plan_lines(record)

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
        for name, heading in HELD_OUT.items():
            if figures := results.get(name):
                pairs.append((heading, figures_text(figures)))
                if figures.get("texts") and (floor := floor_text(record, name)):
                    pairs.append(("floor", floor))
        return pairs

    def evaluation_tables(
        self, result: "TranslationEvaluation", width: int
    ) -> Iterator["RenderableType"]:
        """See `translation_tables.evaluation_tables`."""
        from charlm.report import translation_tables

        return translation_tables.evaluation_tables(result, width)

    def evaluation_json(self, run: str, result: "TranslationEvaluation") -> dict[str, Any]:
        """See `translation_tables.evaluation_json`."""
        from charlm.report import translation_tables

        return translation_tables.evaluation_json(run, result)

    def comparison_table(self, result: "TranslationComparison") -> "Table":
        """See `translation_tables.comparison_table`."""
        from charlm.report import translation_tables

        return translation_tables.comparison_table(result)

    def comparison_json(self, result: "TranslationComparison") -> list[dict[str, Any]]:
        """See `translation_tables.comparison_json`."""
        from charlm.report import translation_tables

        return translation_tables.comparison_json(result)


TRANSLATE_REPORT: TaskReport = TranslateReport()


def plan_lines(record: Json) -> tuple[list[str], str, str]:
    """Return lines about both texts and the floor, and those about the model and the run."""
    settings, corpus = record["settings"], record["corpus"]
    model, training, both = settings["model"], settings["training"], settings["task"]["both_ways"]
    parts, unit = corpus["parts"], settings["vocabulary"]["unit"]
    sizes = ", ".join(f"{name} {part['documents']:,}" for name, part in parts.items())
    tokens = f"{parts['train']['tokens']:,} and {parts['train']['targets']:,} {unit} tokens"
    length, why = counted_length(*length_of(training)), (record.get("planned") or {}).get("length")
    floor = floor_of(record)
    return (
        [
            f"text   {corpus['name']}: {sizes} texts with translations; {tokens} in training, "
            f"{corpus['vocabulary']:,} and {corpus['target_vocabulary']:,} entries",
            *([f"floor  {floor}"] if floor else []),
        ],
        f"model  {model['num_layers']} x {model['hidden_size']} {model['cell'].upper()} reads "
        f"{'both ways' if both else 'forward'}, {(1 + both) * model['hidden_size']} units with "
        f"attention write; {record['parameters']:,} weights, dropout {model['output_dropout']:g}",
        f"run    {length}{f' ({why})' if why else ''}, {training['batch_size']} texts of like "
        f"length, {training['optimizer']} {training['learning_rate']:g}, seed {training['seed']}",
    )


def floor_of(record: Json) -> str:
    """Return the figures of copies of the sources of the first held-out split, or ""."""
    return floor_text(record, "valid") or floor_text(record, "test")


def floor_text(record: Json, split: str) -> str:
    """Return the figures of copies of the sources of a split, or ""."""
    floor = ((record.get("floors") or {}).get("copy") or {}).get(split)
    figures = floor and figures_text({"texts": 1, **floor})
    return f"a copy of the source has {figures}" if figures else ""
