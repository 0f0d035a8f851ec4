"""A second log for TensorBoard (the extra `tensorboard`): event files beside metrics.jsonl.

    charlm train corpus.txt --log tensorboard
    tensorboard --logdir checkpoints

Every session writes a file of its own. It begins with the step from which it continues, so that
TensorBoard drops later steps of a session that was killed. The first file of a run also has the
records from before. The time of an event is the start of the run plus the time trained, so the
relative time in TensorBoard is training time without pauses.
"""

import importlib
import struct
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from charlm.config.tasks import TASKS
from charlm.config.training import TrainingSettings
from charlm.errors import EnvironmentFailure
from charlm.files.atomic import append_whole, explained
from charlm.runs.layout import METRICS, TENSORBOARD, read_metrics
from charlm.runs.shapes import FIGURES_OF

_TARGETS = dict.fromkeys(row.target for row in TASKS.values())
_FIGURES = dict.fromkeys(name for names in FIGURES_OF.values() for name in names)
SCALARS = {
    "step": {
        f"train/{name}": name
        for name in (
            *(f"nats_per_{target}" for target in _TARGETS), "learning_rate", "gradient_norm",
            *(f"{target}s_per_second" for target in _TARGETS),
        )
    },
    "evaluation": {
        f"valid/{name}": f"valid_{name}"
        for name in ("nats_per_token", "bits_per_char", "bits_per_byte", "perplexity", *_FIGURES)
    },
}  # fmt: skip
"""Names in TensorBoard, and the fields that they show, by kind of record."""


def library(module: str) -> Any:
    """Return a module of tensorboardX. Raises EnvironmentFailure if it is not installed."""
    try:
        importlib.import_module("tensorboardX")
        return importlib.import_module(f"tensorboardX.{module}")
    except ImportError as error:
        raise EnvironmentFailure(
            "--log tensorboard needs tensorboardX, which is not installed; install it with: "
            "pip install 'charlm[tensorboard]'"
        ) from error


def check_log(settings: TrainingSettings) -> None:
    """Raise EnvironmentFailure if the log that the settings name cannot be written."""
    if settings.log == "tensorboard":
        library("record_writer")


class EventLog:
    """Event file of a session that continues a run from `step`. Raises EnvironmentFailure."""

    def __init__(self, run: Path, record: Mapping[str, Any], step: int) -> None:
        self._events, self._checksum = library("proto.event_pb2"), library("record_writer")
        self._summaries = library("proto.summary_pb2")
        self._begun = datetime.fromisoformat(record["created"]).timestamp()
        folder = run / TENSORBOARD
        with explained(folder):
            folder.mkdir(exist_ok=True)
            number = len(list(folder.glob("events.*")))
            self.path = folder / f"events.out.tfevents.{number:06d}"
            self._append(step=step, file_version="brain.Event:2")
            if number:
                start = self._events.SessionLog(status=self._events.SessionLog.START)
                self._append(step=step + 1, session_log=start)
            elif (run / METRICS).exists():
                for earlier in read_metrics(run):
                    self.add(earlier)

    def add(self, record: Mapping[str, Any]) -> None:
        """Append the figures of a record, in the form of metrics.jsonl. Raises OSError."""
        names = SCALARS.get(record["kind"], {})
        values = [
            self._summaries.Summary.Value(tag=tag, simple_value=record[name])
            for tag, name in names.items()
            if record.get(name) is not None
        ]
        if values:
            summary = self._summaries.Summary(value=values)
            self._append(record["seconds"], step=record["step"], summary=summary)

    def _append(self, seconds: float = 0.0, **fields: Any) -> None:
        """Append an event as a TFRecord: its length and its bytes, each with a checksum."""
        data = self._events.Event(wall_time=self._begun + seconds, **fields).SerializeToString()
        checksum = self._checksum.masked_crc32c
        length = struct.pack("<Q", len(data))
        parts = (length, struct.pack("<I", checksum(length)), data)
        append_whole(self.path, b"".join([*parts, struct.pack("<I", checksum(data))]))
