"""Lines and tables about training: plan, steps, validations, summary."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rich.table import Table

from charlm.commands import command, resume_command
from charlm.config.tasks import TASKS, is_labelled, task_name
from charlm.config.text_units import UNITS
from charlm.config.training import counted_length, length_of, precision_text
from charlm.files.escapes import escape_unprintable
from charlm.report.conditions import condition_text
from charlm.report.runs import result_pairs
from charlm.report.tables import advice_pairs, pairs_table
from charlm.report.task_reports import TaskReport, report_of, run_line
from charlm.report.text import duration, shortened, word_perplexity
from charlm.runs.built_in import source_log_loss
from charlm.runs.card import frequent_condition, model_shape, part_read
from charlm.runs.pair import is_backward_half, is_pair, length_factor
from charlm.training.records import EvaluationRecord, FinishedRecord, Review, StepRecord
from charlm.training.review import NGRAM
from charlm.units import Tally, bits, count_of, perplexity

if TYPE_CHECKING:
    from charlm.training.session import Session


def describe_plan(record: Mapping[str, Any], path: Path | None = None) -> list[str]:
    """Describe in a few lines what will be trained, and where."""
    precision, processes = record["precision"], record["machine"].get("processes", 1)
    device = record["machine"]["device"] + (f", {processes} processes" if processes > 1 else "")
    report = report_of(record["settings"])
    text, model, run = report.plan_lines(record) if report else _plan_lines(record)
    lines = [
        *text,
        *_parent_lines(record),
        model,
        run,
        f"device {device}, {precision_text(precision)} ({precision['reason']})",
        *_outlook(record),
        *([f"into   {path}"] if path else []),
    ]
    return [escape_unprintable(line) for line in lines]


def _plan_lines(record: Mapping[str, Any]) -> tuple[list[str], str, str]:
    """Return lines about the text, and those about the model and the run."""
    settings, corpus = record["settings"], record["corpus"]
    model, unit = settings["model"], settings["vocabulary"]["unit"]
    sizes = {name: f"{name} {part['tokens']:,}" for name, part in corpus["parts"].items()}
    if (most := settings["training"].get("valid_tokens")) and part_read(record, most):
        about = "" if corpus["document"] == "stream" else "about "  # whole documents are read
        sizes["valid"] += f" ({about}{most:,} read)"
    parts = ", ".join(sizes.values())
    return (
        [
            f"text   {corpus['name']}: {parts} {unit} tokens, {corpus['vocabulary']:,} entries",
            *([f"with   {shares}"] if (shares := condition_text(record)) else []),
        ],
        f"model  {model_shape(model)}, {record['parameters']:,} weights, dropout "
        f"{model['dropout']:g}",
        run_line(record, "batch {batch_size} x {bptt}"),
    )


def _parent_lines(record: Mapping[str, Any]) -> list[str]:
    """Describe the run that a fine-tuned run starts from."""
    if not (about := record.get("from")):
        return []
    grown = record["corpus"]["vocabulary"] - about["entries"]
    growth = f"its {about['entries']:,} entries and {grown:,} new" if grown else "its vocabulary"
    frozen = record["settings"]["training"].get("freeze_layers")
    more = f"; {count_of(frozen, 'layer')} frozen" if frozen else ""
    return [f"from   run {about['run']}, with {growth}{more}"]


def _outlook(record: Mapping[str, Any]) -> list[str]:
    """Describe passes, memory and the expected loss; runs of old versions have no plan."""
    planned = record.get("planned")
    if not planned:
        return []
    read = "series" if UNITS[record["settings"]["vocabulary"]["unit"]].numeric else "text"
    processes = record.get("machine", {}).get("processes", 1)
    each = f" for each of {processes} processes" if processes > 1 else ""
    line = (
        f"plan   about {_passes(planned['passes'])} passes over the {read}, "
        f"{planned['memory_bytes'] / 1e9:.1f} GB of memory{each}"
    )
    if planned.get("speed_measured"):
        line += " (varies with the load)"
    return [line, *([f"expect {_expectation(record)}"] if planned["expected"] else [])]


def _passes(passes: float) -> str:
    """Format a number of passes; below 0.1 with one significant digit."""
    return f"{passes:.1f}" if passes >= 0.1 else f"{passes:.1g}"


def _expectation(record: Mapping[str, Any]) -> str:
    expected, unit = record["planned"]["expected"], record["settings"]["vocabulary"]["unit"]
    low, high = expected["low"], expected["high"]
    if not UNITS[unit].letter and low > 2.0:
        shown = f"perplexity {perplexity(expected['nats'], 1):.0f} " + (
            f"({perplexity(low, 1):.0f} to {perplexity(high, 1):.0f})"
        )
    else:
        shown = f"{expected['nats']:.2f} nats/token ({low:.2f} to {high:.2f})"
    return f"about {shown} on the validation text"


def step_line(record: StepRecord, unit: str) -> str:
    """Format loss and speed of a step; the loss as is usual for the unit."""
    speed = f"{record.tokens_per_second:,.0f} {record.target}s/s"
    if record.target != "token":
        return f"{record.nats_per_token:.3f} nats/{record.target}  {speed}"
    return f"{_loss(record.nats_per_token, unit)}  {speed}"


def plain_step_line(record: StepRecord, unit: str) -> str:
    """Format a step for logs, with the progress and the time left."""
    line = f"{100 * record.progress:3.0f} % step {record.step:,}: {step_line(record, unit)}"
    if not 0.0 < record.progress < 1.0:
        return line
    return f"{line}  {duration(record.seconds * (1.0 / record.progress - 1.0))} left"


def _loss(nats: float, unit: str) -> str:
    letter = UNITS[unit].letter
    if not letter:
        value = perplexity(nats, 1)
        return f"perplexity {value:.{1 if value >= 10 else 3}f}"  # near 3 for single symbols
    return f"{bits(nats):.3f} bits/{letter} ({nats:.3f} nats)"


def evaluation_line(record: EvaluationRecord, unit: str, report: TaskReport | None = None) -> str:
    """Format a validation; `report` is that of the task."""
    mark = "  best so far" if record.best else ""
    if report:
        figures = report.figures_text(record.tally.summary())
    else:
        tally = cast(Tally, record.tally)
        figures = (
            f"{_loss(tally.nats_per_token, unit)}{word_perplexity(tally.word_perplexity, unit)}"
        )
    return (
        f"{100 * record.progress:3.0f} % step {record.step:,}: validation {figures}  "
        f"{duration(record.seconds)}{mark}"
    )


def summary_table(record: Mapping[str, Any], finished: FinishedRecord) -> Table:
    """Summarize a training session."""
    reasons = {
        "complete": "complete",
        "patience": "stopped early: validation no longer improved",
    }
    target = TASKS[task_name(record["settings"])].target
    pairs: list[tuple[str, str]] = [
        ("run", f"{record['name']}: {reasons.get(finished.reason, finished.reason)}"),
        ("trained", f"{count_of(finished.step, 'step')}, {count_of(finished.tokens, target)}, "
                    f"{duration(finished.seconds)}"),
    ]  # fmt: skip
    if report := report_of(record["settings"]):
        pairs += report.result_pairs(record, finished.results())
    else:
        pairs += _result_pairs(record, finished)
    if finished.valid:
        best = f"from step {finished.best_step:,}"
        if not finished.review and finished.complete and finished.best_step < finished.step:
            best += f" of {finished.step:,}; later ones were no better on the validation text"
        if "from" in record and not finished.best_step:
            best = f"those of run {record['from']['run']}: training has not improved on them"
        pairs.append(("best weights", best))
    else:
        held_out = "valid" in record["corpus"]["parts"]
        why = "not reached yet" if held_out else "no text was held out"
        pairs.append(("validation", f"{why}; the newest weights are kept"))
    if finished.review:
        pairs += review_pairs(finished.review, record["settings"]["vocabulary"]["unit"])
    return pairs_table(pairs)


def _result_pairs(record: Mapping[str, Any], finished: FinishedRecord) -> list[tuple[str, str]]:
    """Return the figures of a language model on its texts, and what they are compared with."""
    results = finished.results() | {"old_valid": None}  # it is compared with the parent's
    pairs = result_pairs(record, results, record["settings"]["vocabulary"]["unit"])
    pairs += _parent_pairs(record, finished)
    valid = finished.valid
    if not isinstance(valid, Tally):
        return pairs
    if own := None if valid.oov else source_log_loss(record):
        distance = valid.bits_per_char - own
        percent = f"{100 * distance / own:+.1f} %"
        pairs.append(
            ("entropy of source", f"{own:.4f} bits/char; distance {distance:.4f} ({percent})")
        )
    if (record.get("planned") or {}).get("expected"):
        pairs.append(("expected", _expectation(record)))
    return pairs


def _parent_pairs(record: Mapping[str, Any], finished: FinishedRecord) -> list[tuple[str, str]]:
    """Return the figures before and after fine-tuning, on the new text and on the parent's."""
    if not (about := record.get("from")):
        return []
    unit, pairs = record["settings"]["vocabulary"]["unit"], []
    texts = (("new text", about["valid"], finished.valid),
             ("old text", about["old_valid"], finished.old_valid))  # fmt: skip
    for name, before, after in texts:
        if before and before["nats_per_token"] is not None and after:
            pairs.append((name, _change(before["nats_per_token"], after.nats_per_token, unit)))
    if not (about["old_valid"] or frequent_condition(record)):  # with conditions, none is kept
        why = f"run {about['run']} keeps no validation text, so forgetting is not measured"
        pairs.append(("old text", why))
    return pairs


def _change(before: float, after: float, unit: str) -> str:
    """Return two losses as "2.512 before, 1.732 after, in bits/char"."""
    letter = UNITS[unit].letter
    figures = [bits(n) if letter else perplexity(n, 1) for n in (before, after)]
    shown = [f"{value:.{1 if not letter and value >= 10 else 3}f}" for value in figures]
    return f"{shown[0]} before, {shown[1]} after, in {f'bits/{letter}' if letter else 'perplexity'}"


def review_pairs(review: Review, unit: str) -> list[tuple[str, str]]:
    """Return advice after training, and how much samples copy from the training text."""
    pairs = advice_pairs(review.advice)
    memory = review.memory
    if memory is None:
        return pairs
    noun = {"char": "character", "byte": "byte"}.get(UNITS[unit].letter, "token")
    longest = f"longest passage copied from the training text: {count_of(memory.overlap, noun)}"
    pairs += [("copying", longest), ("", shortened(repr(memory.text), 60))]
    if memory.novel is not None:
        held = memory.novel_held_out
        beside = "" if held is None else f" (held-out text: {100 * held:.0f} %)"
        new = f"{100 * memory.novel:.0f} % of the {NGRAM}-{noun} sequences in samples are new"
        pairs.append(("", new + beside))
    return pairs


def next_commands(path: Path, record: Mapping[str, Any], finished: FinishedRecord) -> list[str]:
    """Return commands to try next with this model."""
    half = is_backward_half(path)
    path = path.parent if half else path
    if not finished.complete:
        processes = record["machine"].get("processes", 1)
        return [f"saved; resume with: {resume_command(run=path, processes=processes)}"]
    if is_pair(record["settings"]["model"]):  # its other half comes next
        return []
    if is_labelled(record["settings"]):
        row = TASKS[task_name(record["settings"])]
        use: tuple[object, ...] = (row.verb, "some text of yours")
        worst: tuple[object, ...] = ("--worst", 10)
        if row.verb == "sample":  # numbers
            use, worst = (row.verb, "--len", 48), ()
        measured = [("eval", *worst)] if finished.valid or finished.test else []
        tries: list[tuple[object, ...]] = [use, *measured, ("info",)]
        return ["next:", *(f"  {command(*some, run=path)}" for some in tries)]
    condition = frequent_condition(record)
    sampled = ("--condition", condition) if condition else ()
    scored = ("--by", "condition") if condition else ()
    words: list[tuple[object, ...]] = [
        ("sample", *sampled, *_sample_options(record)),
        *([("score", *scored, *_texts_to_score(record))] if not half else []),
        *([("eval",)] if finished.valid or finished.test else []),
        *([("fill", "some ___ of yours")] if half else []),
        ("info",),
    ]
    return ["next:", *(f"  {command(*some, run=path)}" for some in words)]


def complete_line(session: "Session") -> str:
    """Say that a run is complete, and how to train it for longer."""
    path, trainer = session.path, session.trainer
    unit, value = length_of(asdict(trainer.settings))
    value *= length_factor(unit, trainer.model.settings)
    length = f"complete after {counted_length(unit, value)}"
    if trainer.completion == "patience":
        length = f"over after {trainer.passes:.1f} passes, since validation no longer improved"
    more, processes = (f"--more-{unit}", f"{value:.15g}"), trainer.processes.count
    words = resume_command(*more, run=path, processes=processes)
    return (
        f"run {path.name} is {length}, so nothing was changed. To train it for "
        f"{counted_length(unit, value, 'more ')}: {words}"
    )


def _sample_options(record: Mapping[str, Any]) -> tuple[object, ...]:
    """Return options for a first look at samples."""
    document = record["corpus"]["document"]
    if document == "line":
        return ("--n", 10)
    if document == "paragraph":
        return ("--n", 3, "--until-eos")
    return ("--len", 500 if UNITS[record["settings"]["vocabulary"]["unit"]].letter else 100)


def _texts_to_score(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Return texts to score: two alternatives for a model of lines."""
    if record["corpus"]["document"] == "line":
        return ("one line of yours", "another line")
    return ("some text of yours",)
