"""Training sessions of tiny runs that tests of several tasks share."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import nested

from charlm.api.sessions import Request, start_run
from charlm.runs.tensors import tensors_from_file
from charlm.text.corpus import Corpus
from charlm.training.records import FinishedRecord, Review
from charlm.training.resume import halves, resume
from charlm.training.session import Session

TINY: dict[str, Any] = {
    "batch_size": 8, "seed": 1, "threads": 1, "precision": "fp32", "steps": 6, "evals": 2,
    "hidden_size": 4, "embedding_size": 4, "num_layers": 1,
}  # fmt: skip


def trained(session: Session) -> Path:
    """Train to the end, and return the folder of the run."""
    list(session.records())
    return session.path


def finished(session: Session) -> FinishedRecord:
    """Train to the end, and return the last record."""
    *_, last = session.records()
    assert isinstance(last, FinishedRecord)
    return last


def weights(path: Path) -> dict[str, torch.Tensor]:
    return tensors_from_file(path / "model.safetensors")


def parent_runs(folder: Path, text: str, directions: dict[str, str], **values: Any) -> Path:
    """Train a language model of each name and direction in a folder, and return the folder."""
    found = Review(train={}, advice=[])
    for name, direction in directions.items():
        flags = nested(**values, direction=direction)
        request = Request(flags=flags, name=name, checkpoints=folder)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("charlm.training.language.review", lambda *_: found)
            for half in halves(start_run(request, corpus=Corpus.from_text(text, "line"))):
                trained(half)
    return folder


def check_resumed(
    start: Callable[[str], Session], stopped: Callable[[Path], None] = lambda _: None
) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor]]:
    """Check that a run that stops and resumes equals one that does not, and return log and weights.

    `start` starts a run of a name. `stopped` gets the folder of the run that has stopped.
    """
    paths = []
    for name in ("whole", "stopped"):
        session = start(name)
        if name == "stopped":
            for record in session.records():
                if record.kind == "evaluation":
                    session.trainer.stop("interrupted")
            stopped(session.path)
            session = resume(session.path)
        paths.append(trained(session))
    logs = [
        [
            {key: value for key, value in json.loads(line).items() if "second" not in key}
            for line in (path / "metrics.jsonl").read_text().splitlines()
            if "interrupted" not in line
        ]
        for path in paths
    ]
    assert logs[0] == logs[1] and len(logs[0]) == 3
    first, second = map(weights, paths)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    return logs[0], first


def check_frozen(own: dict[str, torch.Tensor], parents: Path) -> None:
    """Check that the encoder of a run is that of its parent `both`, in both directions."""
    forward, backward = weights(parents / "both"), weights(parents / "both" / "backward")
    for name in forward.keys() - {"output.weight", "output.bias"}:
        assert torch.equal(own[name], forward[name])
        assert torch.equal(own[f"backward.{name}"], backward[name])
