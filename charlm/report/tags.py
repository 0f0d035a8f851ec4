"""Reports of runs that give tags."""

from charlm.config.corpus import HELD_OUT_NAMES
from charlm.config.tasks import figure_of_tags
from charlm.report.labels import calibration_pairs, label_shares
from charlm.report.tag_predictions import TagPredictions
from charlm.report.task_reports import (
    Json,
    Pairs,
    TaskReport,
    held_out_figures,
    run_line,
    text_sizes,
)
from charlm.report.text import number
from charlm.runs.card import model_shape
from charlm.units import count_of

HEADLINES = {"f1": "span-F1", "accuracy": "accuracy"}
"""Names of the most important figure, by its key."""


class TagReport(TaskReport):
    """Reports of runs that give tags."""

    predictions = TagPredictions()
    comparison_note = (
        "points: difference from the first run, above zero is better; interval and p: bootstrap "
        "over sentences"
    )
    tables = "charlm.report.tag_tables"

    def plan_lines(self, record: Json) -> tuple[list[str], str, str]:
        """Return lines about the text, its tags and the floor, and about the model and the run."""
        settings, corpus = record["settings"], record["corpus"]
        model, task = settings["model"], settings["task"]
        letters = ", letters of words too" if task["characters"] else ""
        by_rule = "crf" if figure_of(record) == "f1" else "softmax"
        head = by_rule if task["head"] == "auto" else task["head"]
        return (
            [
                f"text   {corpus['name']}: {text_sizes(record)} sentences; "
                f"{corpus['parts']['train']['targets']:,} words in training, "
                f"{corpus['vocabulary']:,} entries",
                f"tags   {tag_shares(record)}",
                f"floor  {floor_text(record)}",
            ],
            f"model  {model_shape(model)} read {'both ways' if task['both_ways'] else 'forward'}"
            f"{letters}, {'CRF' if head == 'crf' else head}, {record['parameters']:,} weights, "
            f"dropout {model['dropout']:g}",
            run_line(record, "{batch_size} sentences of like length"),
        )

    def facts(self, record: Json) -> Pairs:
        """Return the tags of a run, and its floor."""
        return [("tags", tag_shares(record)), ("floor", floor_text(record))]

    def figures_text(self, figures: Json, *, with_interval: bool = False) -> str:
        """Return "span-F1 0.846, precision 0.851, recall 0.841, accuracy 0.968, 0.051 nats/tag"."""
        figure = figure_of_tags(figures)
        low_high = (figures.get("intervals") or {}).get(figure) if with_interval else None
        ends = f" ({low_high[0]:.3f} to {low_high[1]:.3f})" if low_high else ""
        named = [f"{HEADLINES[figure]} {number(figures[figure], 3)}{ends}"]
        if figure == "f1":
            named += [f"{name} {number(figures[name], 3)}" for name in ("precision", "recall")]
            named.append(f"accuracy {number(figures['accuracy'], 3)}")
        text = ", ".join([*named, f"{number(figures['nats_per_tag'], 3)} nats/tag"])
        if unseen := figures["unseen"]:
            text += f"; {count_of(unseen, 'word')} with tags that training lacks count as errors"
        return text

    def result_pairs(self, record: Json, results: Json) -> Pairs:
        """Return the figures of the held-out texts, what is above the floor, and calibration."""
        pairs: Pairs = []
        figure = figure_of(record)
        for name, heading, figures in held_out_figures(results):
            pairs.append((heading, self.figures_text(figures, with_interval=True)))
            floor = record["floors"]["frequent_tag"].get(name)
            if floor is not None and figures[figure] is not None:
                change = (results.get("floors") or {}).get("difference") if name == "test" else None
                ends = f" ({100 * change[1]:.1f} to {100 * change[2]:.1f})" if change else ""
                pairs.append(
                    (
                        "floor",
                        f"{HEADLINES[figure]} {floor:.3f}: {100 * (figures[figure] - floor):+.1f} "
                        f"points{ends}",
                    )
                )
        return pairs + calibration_pairs(results, "scores")


TAG_REPORT: TaskReport = TagReport()


def figure_of(record: Json) -> str:
    """Return the key of the most important figure of a run: f1 if its tags are spans."""
    return str(record["floors"]["frequent_tag"]["figure"])


def tag_shares(record: Json) -> str:
    """Return the spans of each type in training, or the shares of the tags."""
    counts = record["corpus"]["labels"]["train"]
    if figure_of(record) != "f1":
        return label_shares(counts, advice=False, noun="tag")
    spans = {name[2:]: count for name, count in counts.items() if name.startswith("B-")}
    return label_shares(spans, advice=False, noun="type") + f"; {sum(spans.values()):,} spans"


def floor_text(record: Json) -> str:
    """Return the figure of the floor on the validation text, or on the test text."""
    floor = record["floors"]["frequent_tag"]
    for split, where in HELD_OUT_NAMES.items():
        if floor.get(split) is not None:
            figure = HEADLINES[figure_of(record)]
            return (
                f"most frequent tag of each word: {figure} {floor[split]:.3f} of the {where} text"
            )
    return "most frequent tag of each word; no text was held out"
