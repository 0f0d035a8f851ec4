"""Measurement of how far back the gradient reaches, in a run or in small models of cells."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from charlm.api.evaluation import run_corpus
from charlm.config.flags import by_section
from charlm.config.settings import settings_from
from charlm.inspect.gradients import GradientFlow, compared_flows, run_flow
from charlm.inspect.recall import LAG, LETTERS, recall_flows, recall_settings, recall_text
from charlm.runs.run import load_run
from charlm.text.sources.rows import Warn

LAGS = 200
"""Default number of tokens back for a text."""


def run_gradients(
    path: Path,
    files: Sequence[str] = (),
    *,
    reading: Mapping[str, Any] | None = None,
    lags: int | None = None,
    warn: Warn = lambda _: None,
) -> GradientFlow:
    """Measure the gradient in a run, on files or on the text that it keeps.

    `reading` has fields of `ReadSettings`; `lags` is the number of tokens back (LAGS); `warn` takes
    warnings about the files. Raises CorpusError if the text is missing or too short.
    """
    corpus = run_corpus(load_run(path), files, reading) if files else None
    flow = run_flow(path, corpus, lags or LAGS)
    for sentence in corpus.warnings if corpus else ():
        warn(sentence)
    return flow


def compare_gradients(
    cells: Sequence[str],
    files: Sequence[str] = (),
    *,
    reading: Mapping[str, Any] | None = None,
    minutes: float | None = None,
    lags: int | None = None,
    seed: int = 1,
) -> Iterator[GradientFlow]:
    """Train a small model of each cell and yield its gradient flow.

    Models are trained on files, `minutes` each (1), or without files on the task of
    `inspect.recall`. Raises UsageError for an unknown cell.
    """
    cells = list(dict.fromkeys(cells))
    if not files:
        recalled = [recall_settings(cell, seed=seed, minutes=minutes) for cell in cells]
        return recall_flows(recalled, lags or LAG)
    fixed = {"num_layers": 1, "hidden_size": 128, "minutes": minutes or 1.0, "seed": seed}
    given = {"sources": tuple(files), **(reading or {}), **fixed}
    settings = [settings_from(by_section({**given, "cell": cell})) for cell in cells]
    return compared_flows(settings, lags or LAGS)


def describe_task(lags: int | None, seed: int) -> str:
    """Describe the task on which `compare_gradients` trains without files."""
    lag = lags or LAG
    example = recall_text(8, seed).partition("\n")[0]
    return (
        f"recall a letter after up to {lag} tokens, such as {example}; measured at {lag}, "
        f"guessing gives {100 / len(LETTERS):.0f} %"
    )
