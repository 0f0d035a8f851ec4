"""Reports of runs on a series of numbers."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from charlm.config.corpus import HELD_OUT_NAMES
from charlm.report.task_reports import Json, Pairs, TaskReport, held_out_figures, run_line
from charlm.report.text import number
from charlm.runs.card import model_shape

if TYPE_CHECKING:
    from rich.console import RenderableType

    from charlm.inference.figures import TaskEvaluation

FLOORS = {"last_value": "last value", "recurrence": "linear recurrence of order 2"}
"""Names of the floors for people."""


class SeriesReport(TaskReport):
    """Reports of runs on a series of numbers."""

    def plan_lines(self, record: Json) -> tuple[list[str], str, str]:
        """See `TaskReport.plan_lines`."""
        settings, corpus = record["settings"], record["corpus"]
        model, parts = settings["model"], corpus["parts"]
        sizes = [f"{parts['train']['tokens'] + 1:,} values{_of_column(corpus)}"]
        if "valid" in parts:
            own = corpus.get("valid") or settings["corpus"]["valid"]
            where = "in a file of its own" if own else "held out at the end"
            sizes.append(f"{parts['valid']['targets']:,} {where}")
        if "test" in parts:
            sizes.append(f"{parts['test']['targets']:,} to test")
        alone = settings["training"]["stateless"]
        windows = "read alone" if alone else "with the state carried over"
        floor = floor_text(record.get("floors"))
        return (
            [
                f"series {corpus['name']}: {', '.join(sizes)}",
                *([f"floor  {floor}"] if floor else []),
            ],
            f"model  {model_shape(model)}, {record['parameters']:,} weights, dropout "
            f"{model['dropout']:g}",
            run_line(record, f"batch {{batch_size}} x {{bptt}} {windows}"),
        )

    def facts(self, record: Json) -> Pairs:
        """See `TaskReport.facts`."""
        column = record["corpus"].get("column")
        return [("column", column)] if column else []

    def figures_text(self, figures: Json) -> str:
        """See `TaskReport.figures_text`."""
        return (
            f"MSE {_error(figures['mse'])}, MAE {_error(figures['mae'])}, "
            f"{number(figures['nats_per_value'], 3)} nats/value"
        )

    def result_pairs(self, record: Json, results: Json) -> Pairs:
        """See `TaskReport.result_pairs`."""
        pairs: Pairs = []
        for _, heading, figures in held_out_figures(results):
            pairs += [(heading, self.figures_text(figures)), ("floor", _beside(figures))]
        return pairs

    def evaluation_tables(self, result: "TaskEvaluation", width: int) -> Iterator["RenderableType"]:
        """See `TaskReport.evaluation_tables`."""
        from charlm.report.tables import plain_table

        table = plain_table("<", *result.counts)
        summaries = [counts.summary() for counts in result.counts.values()]
        table.add_row("values", *(number(each["values"]) for each in summaries))
        rows = {
            "mse": "mean squared error", "mae": "mean absolute error",
            "last_value_mse": "MSE of the last value",
            "recurrence_mse": f"MSE of a {FLOORS['recurrence']}",
        }  # fmt: skip
        for key, label in rows.items():
            table.add_row(label, *(_error(each[key]) for each in summaries))
        table.add_row("explained", *(number(each["explained"], 6) for each in summaries))
        table.add_row("nats per value", *(number(each["nats_per_value"], 3) for each in summaries))
        yield table

    def text_json(self, result: "TaskEvaluation", name: str) -> dict[str, Any]:
        """See `TaskReport.text_json`."""
        return dict(result.counts[name].summary())


def floor_text(floors: Json | None) -> str:
    """Return the errors of the floors on the validation series, or on the test series; or ""."""
    for split in HELD_OUT_NAMES:
        errors = [
            f"{name} {'MSE ' if key == 'last_value' else ''}{_error(floors[key][split])}"
            for key, name in FLOORS.items()
            if floors and floors.get(key, {}).get(split) is not None
        ]
        if errors:
            return "; ".join(errors)
    return ""


def _of_column(corpus: Json) -> str:
    column = corpus.get("column")
    return f" of column {column}" if column else ""


def _error(value: float | None) -> str:
    """Return an error with three significant digits."""
    return "-" if value is None else f"{value:.3g}"


def _beside(figures: Json) -> str:
    """Return the errors of the floors beside that of the run."""
    mse, last = figures["mse"], figures["last_value_mse"]
    if not mse or last is None:
        ratio = ""
    elif last <= mse:
        ratio = ": this run is no better"
    else:
        ratio = f", {last / mse:.3g} times that of this run"
    text = f"last value MSE {_error(last)}{ratio}"
    if figures["recurrence_mse"] is not None:
        text += f"; {FLOORS['recurrence']} {_error(figures['recurrence_mse'])}"
    return text


SERIES_REPORT: TaskReport = SeriesReport()
