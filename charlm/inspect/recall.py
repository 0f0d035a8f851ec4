"""Recall a letter after a gap: a task that shows which cells learn long-range dependencies.

Each line is a letter, a gap of noise, a question mark, and the letter again. The noise is fewer
than `lag` random letters x and y; nothing else in the text needs memory. A model knows the
letter only from a state `lag` tokens back, and the gradient must reach that state: if it vanishes
on the way, the letter is never learned (Bengio et al. 1994).
"""

import random
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from charlm.config.flags import by_section
from charlm.config.settings import Settings, settings_from
from charlm.inspect.gradients import GradientFlow, clip_rate, trained, window_flows
from charlm.runs.run import load_run, torch_model
from charlm.text.corpus import Corpus
from charlm.text.tokenizers.tokenizer_json import EOS

LETTERS = "abcdefgh"
NOISE, CUE = "xy", "?"
LAG = 100
"""Steps between reading a letter and recalling it."""
LINES = 4000
MEASURED_EACH, MEASURED_SEED = 4, 0
"""Number of lines per letter that a model is measured on, and the seed of their noise."""
GUESSED = 0.25
"""Largest fraction of letters that a guess may recall: of 32, at most 8 in 98 of 100 cases."""
STEPS = 1500
"""Training steps after which an LSTM recalls every letter over 100 tokens, with seeds 1 to 3."""


def recall_text(lag: int, seed: int) -> str:
    """Return the text of the task; it depends on the seed only."""
    generator = random.Random(seed)
    return "".join(
        _line(letter, generator.randint(0, lag - 1), generator) + "\n"
        for letter in generator.choices(LETTERS, k=LINES)
    )


def _line(letter: str, gap: int, generator: random.Random) -> str:
    return f"{letter}{''.join(generator.choices(NOISE, k=gap))}{CUE}{letter}"


def recall_settings(
    cell: str, *, seed: int, minutes: float | None = None, steps: int | None = None
) -> Settings:
    """Return the settings for one cell, equal for all cells. `minutes` replaces the steps."""
    length = {"minutes": minutes} if minutes else {"steps": steps or STEPS}
    return settings_from(
        by_section({
            "cell": cell, "layers": 1, "hidden": 64, "embedding": 16, "dropout": 0.0,
            "batch": 32, "bptt": 128, "learning_rate": 0.004, "seed": seed, "valid_frac": 0.02,
            "evals": 1, "calibrate": False, "precision": "fp32", "device": "cpu",
            "document": "line",
            "save_minutes": 60.0, **length,
        })
    )  # fmt: skip


def recall_flows(settings: Sequence[Settings], lag: int = LAG) -> Iterator[GradientFlow]:
    """Train a model for each settings on the task, and yield its gradient flow at the recall."""
    with tempfile.TemporaryDirectory() as folder:
        for chosen in settings:
            bptt = max(chosen.training.bptt or 0, lag + 4)  # a whole line
            chosen = replace(chosen, training=replace(chosen.training, bptt=bptt))
            corpus = Corpus.from_text(recall_text(lag, chosen.training.seed or 0), "line")
            yield recall_flow(trained(chosen, Path(folder), corpus), lag)


def recall_flow(path: Path, lag: int) -> GradientFlow:
    """Return the gradient flow at the recall, and the fraction of letters recalled."""
    vocabulary, model = load_run(path).vocabulary, torch_model(path).double()
    generator = random.Random(MEASURED_SEED)
    lines = [_line(letter, lag - 1, generator) for letter in LETTERS * MEASURED_EACH]
    ids = np.stack([vocabulary.encode(line).astype(np.int64) for line in lines], axis=1)  # (T, B)
    windows = torch.from_numpy(ids)
    with torch.no_grad():
        _, begin = model(torch.full((1, len(lines)), EOS))
        logits, _ = model(windows[:-1], begin)
    recalled = float((logits[-1].argmax(dim=-1) == windows[-1]).double().mean())
    return GradientFlow(
        name=path.name,
        cell=model.settings.cell,
        layers=window_flows(model, windows, begin),
        clipped=clip_rate(path),
        recalled=recalled,
        guessed=GUESSED,
    )
