"""Reports of runs that give labels: the plan, the figures of texts, and the end of a training."""

from collections.abc import Mapping
from typing import Any

from charlm.config.corpus import HELD_OUT_NAMES
from charlm.report.predictions import LabelPredictions
from charlm.report.task_reports import (
    Json,
    Pairs,
    TaskReport,
    held_out_figures,
    run_line,
    text_sizes,
)
from charlm.report.text import number, shortened
from charlm.runs.card import model_shape
from charlm.units import count_of

POOLED = {
    "concat": "last + mean + maximum",
    "last": "the last state",
    "mean": "the mean of all states",
    "max": "the maximum of all states",
}
"""Names of the poolings of `charlm.nn.pooling` for people."""
MAX_LABELS = 8
"""Maximum number of labels that a line shows."""
MOSTLY = 0.7
"""Fraction of the texts from which one label is reported as dominant."""


class LabelReport(TaskReport):
    """Reports of runs that give labels."""

    predictions = LabelPredictions()
    comparison_note = (
        "points: difference of the accuracy from the first run, above zero is better; p: McNemar's "
        "test"
    )
    tables = "charlm.report.label_tables"

    def plan_lines(self, record: Json) -> tuple[list[str], str, str]:
        """Return lines about the text, its labels and floors, and about the model and the run."""
        settings, corpus = record["settings"], record["corpus"]
        model, task, unit = settings["model"], settings["task"], settings["vocabulary"]["unit"]
        bag = "; with the bag of words where it helps" if task.get("bag_of_words", True) else ""
        text = [
            f"text   {corpus['name']}: {text_sizes(record)} texts; "
            f"{corpus['parts']['train']['tokens']:,} {unit} tokens in training, "
            f"{corpus['vocabulary']:,} entries",
            f"labels {label_shares(corpus['labels']['train'])}",
            *([f"floor  {floor_text(floors)}"] if (floors := record.get("floors")) else []),
        ]
        return (
            text,
            f"model  {model_shape(model)} read {'both ways' if task['both_ways'] else 'forward'}, "
            f"{POOLED[task['pooling']]}, {record['parameters']:,} weights, dropout "
            f"{model['dropout']:g}{bag}",
            run_line(record, "{batch_size} texts of like length"),
        )

    def facts(self, record: Json) -> Pairs:
        """Return names and values of the labels of a run and of its floors."""
        pairs = [("labels", label_shares(record["corpus"]["labels"]["train"], advice=False))]
        floors = record.get("floors")
        return [*pairs, ("floor", floor_text(floors))] if floors else pairs

    def figures_text(self, figures: Json, interval: tuple[float, float] | None = None) -> str:
        """Return "accuracy 0.894 (0.882 to 0.906), macro-F1 0.894, 0.271 nats/text"."""
        ends = f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
        text = (
            f"accuracy {number(figures['accuracy'], 3)}{ends}, macro-F1 "
            f"{number(figures['macro_f1'], 3)}, {number(figures['nats_per_text'], 3)} nats/text"
        )
        if unseen := figures["unseen"]:
            text += f"; {count_of(unseen, 'text')} with labels that training lacks count as errors"
        return text

    def result_pairs(self, record: Json, results: Json) -> Pairs:
        """Return names and values of the results of a run, as they are in run.json."""
        floors = (record.get("floors") or {}) | (results.get("floors") or {})
        pairs: Pairs = []
        for name, heading, figures in held_out_figures(results):
            interval = accuracy_interval(figures)
            pairs.append((heading, self.figures_text(figures, interval)))
            pairs += _floor_pairs(floors, name, figures, interval) if floors else []
        no_part = " (it has no part in the labels)"
        pairs += calibration_pairs(results, "logits of the network", if_zero=no_part)
        if unit := floors.get("unit"):
            accuracy = (floors.get("network") or results.get("valid") or {}).get(
                "valid" if floors.get("network") else "accuracy"
            )
            bag = (floors.get("bag_of_words") or {}).get("valid")
            pairs.append(
                (
                    "units",
                    f"one unit alone {unit['accuracy']:.2f} (unit {unit['unit']}); all "
                    f"{unit['of']:,}: {number(accuracy, 2)}; bag of words {number(bag, 2)}",
                )
            )
        return pairs

    def change_json(self, change: Any) -> dict[str, Any]:
        """Return the difference of two runs as plain values, that of the accuracy by its name."""
        plain = super().change_json(change)
        return {plain.pop("figure"): plain.pop("value"), **plain}


LABEL_REPORT: TaskReport = LabelReport()


def label_shares(counts: Mapping[str, int], *, advice: bool = True, noun: str = "label") -> str:
    """Return "neg 50.0 %, pos 50.0 %"; of many labels the most frequent ones.

    With advice, a dominant label is reported, since accuracy then says little.
    """
    total = max(sum(counts.values()), 1)
    names = list(counts)
    if len(counts) > MAX_LABELS:
        names = sorted(names, key=lambda name: -counts[name])[:MAX_LABELS]
    shares = [f"{shortened(name, 24)} {100 * counts[name] / total:.1f} %" for name in names]
    more = len(counts) - len(names)
    text = ", ".join(shares) + (f" and {count_of(more, noun)} more" if more else "")
    if not advice or max(counts.values(), default=0) < MOSTLY * total:
        return text
    return f"{text}; one label dominates: see macro-F1, or train with --set balance=true"


def floor_text(floors: Json) -> str:
    """Return the accuracy of the floors on the validation text, or on the test text."""
    majority = floors["majority"]
    split = next((name for name in HELD_OUT_NAMES if majority.get(name) is not None), None)
    if split is None:
        return f"most frequent label {shortened(majority['label'], 24)}; no text was held out"
    bag = (floors.get("bag_of_words") or {}).get(split)
    more = "" if bag is None else f"; bag of words (naive Bayes, words and pairs) {bag:.3f}"
    where = HELD_OUT_NAMES[split]
    return f"most frequent label {majority[split]:.3f}{more} of the {where} texts"


def calibration_pairs(results: Json, scores: str, if_zero: str = "") -> Pairs:
    """Return the factor on all `scores` of a calibrated run, and what it does to the errors.

    `if_zero` is a remark about a factor of 0.
    """
    valid, before = results.get("valid"), results.get("valid_uncalibrated")
    if not (valid and before):
        return []
    scale = f"{results['logit_scale']:.3f}"
    factor = f"{scores} times {scale}{if_zero if float(scale) == 0.0 else ''}"
    errors = f"{number(valid['ece'], 3)}, {number(before['ece'], 3)} before"
    return [("calibrated", f"{factor}: calibration error {errors}")]


def accuracy_interval(figures: Json) -> tuple[float, float] | None:
    """Return the 95 % interval of the accuracy of a text, or None without texts."""
    from charlm.inference.counts import LabelCounts  # needs numpy

    return LabelCounts.from_summary(figures).intervals().get("accuracy")


def _floor_pairs(
    floors: Json, name: str, figures: Json, interval: tuple[float, float] | None
) -> list[tuple[str, str]]:
    """Return the accuracy of the floors on a text, beside that of the run."""
    bag, most = (floors.get("bag_of_words") or {}).get(name), floors["majority"].get(name)
    pairs = []
    if bag is not None:
        change, ends = figures["accuracy"] - bag, ""
        if name == "test" and floors.get("difference"):
            change, low, high = floors["difference"]
            ends = f" ({100 * low:+.1f} to {100 * high:+.1f})"
        beside = f"accuracy {bag:.3f} by naive Bayes; this run {100 * change:+.1f} points{ends}"
        pairs.append(("bag of words", beside))
    if (alone := (floors.get("network") or {}).get(name)) is not None:
        mixed = (floors.get("bag") or {}).get(name)
        beside = "" if mixed is None else f"; that bag alone {mixed:.3f}"
        pairs.append(("network", f"accuracy {alone:.3f} without the bag mixed into it{beside}"))
    if most is not None and interval and interval[0] <= most:
        label = shortened(floors["majority"]["label"], 24)
        known = f"not shown to be better than the most frequent label ({label}: {most:.3f})"
        pairs.append(("warning", known))
    return pairs
