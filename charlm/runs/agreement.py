"""Checks that several runs agree: that they have the same labels, and one text."""

from collections.abc import Sequence
from pathlib import Path

from charlm.errors import UsageError
from charlm.runs.layout import RECORD, home, read_record
from charlm.runs.locate import run_name
from charlm.text.labels import few_names


def check_same_labels(
    paths: Sequence[Path], labels: Sequence[Sequence[str]], noun: str = "labels"
) -> None:
    """Raise UsageError unless all runs have the same labels, in any order."""
    first, known = run_name(paths[0]), set(labels[0])
    for path, names in zip(paths[1:], labels[1:], strict=True):
        if set(names) == known:
            continue
        own = {
            first: [name for name in labels[0] if name not in names],
            run_name(path): [name for name in names if name not in known],
        }
        differing = "; ".join(f"only {run}: {few_names(few)}" for run, few in own.items() if few)
        raise UsageError(
            f"{first} and {run_name(path)} have different {noun} ({differing}); expected runs of "
            f"the same {noun}"
        )


def check_same_text(paths: Sequence[Path]) -> None:
    """Raise UsageError unless all runs have one text, of which they held out the same parts."""
    for path in paths:
        if not (home(path) / RECORD).exists():
            raise UsageError(
                f"{path} has no {RECORD}, which says what text a run held out; expected one text "
                "for all runs. Use --file"
            )
    first, *others = [read_record(home(path))["corpus"]["fingerprint"] for path in paths]
    for path, other in zip(paths[1:], others, strict=True):
        if other != first:
            raise UsageError(
                f"{run_name(paths[0])} and {run_name(path)} were trained on different texts, or "
                "held out different parts of them; expected one text for all runs. Use --file"
            )
