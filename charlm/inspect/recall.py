"""A task with a known lag: recall a letter after a gap. It shows which cells can learn from afar.

Each line is a letter, a gap of noise, a question mark, and the letter again. The noise is x and y
at random, fewer than `lag` letters of it, and nothing else in the text needs memory. What a model
knows about the letter must come from a state `lag` tokens back, and so must the gradient that
teaches it: if that vanishes on the way, the letter is never learned (Bengio et al. 1994).
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
"""Steps from reading a letter to the state that has to recall it."""
LINES = 4000
MEASURED_EACH, MEASURED_SEED = 4, 0
"""Lines with each letter on which a model is measured, and the seed of their noise."""
STEPS = 1500
"""Steps after which an LSTM recalls every letter over 100 tokens, for each of the seeds 1 to 3."""


def recall_text(lag: int, seed: int, lines: int = LINES) -> str:
    """Return the text of the task: the same for the same seed."""
    draw = random.Random(seed)
    return "".join(
        _line(letter, draw.randint(0, lag - 1), draw) + "\n"
        for letter in draw.choices(LETTERS, k=lines)
    )


def _line(letter: str, gap: int, draw: random.Random) -> str:
    return f"{letter}{''.join(draw.choices(NOISE, k=gap))}{CUE}{letter}"


def recall_settings(
    cell: str, *, seed: int, minutes: float | None = None, steps: int | None = None
) -> Settings:
    """Return the settings of one cell; they are the same for all. `minutes` replace the steps."""
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
    """Train a model of each settings on the task, and yield its gradient flow at the recall."""
    with tempfile.TemporaryDirectory() as folder:
        for chosen in settings:
            bptt = max(chosen.training.bptt or 0, lag + 4)  # a whole line
            chosen = replace(chosen, training=replace(chosen.training, bptt=bptt))
            corpus = Corpus.from_text(recall_text(lag, chosen.training.seed or 0), "line")
            yield recall_flow(trained(chosen, Path(folder), corpus), lag)


def recall_flow(path: Path, lag: int) -> GradientFlow:
    """Return the gradient of the loss at the recall, and how many letters are recalled."""
    vocabulary, model = load_run(path).vocabulary, torch_model(path).double()
    draw = random.Random(MEASURED_SEED)
    lines = [_line(letter, lag - 1, draw) for letter in LETTERS * MEASURED_EACH]
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
    )
