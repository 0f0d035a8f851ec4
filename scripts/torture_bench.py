"""What the parts of `scripts/torture` share: a table row, amounts, and an undisturbed run."""

import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests" / "faults"), str(ROOT / "tests"), str(ROOT)]

import harness as harness  # type: ignore[import-not-found]  # noqa: E402


@dataclass
class Row:
    """One kind of fault: how many were injected and survived, and what was observed."""

    kind: str
    injected: int
    survived: int
    note: str = ""


@dataclass
class Amounts:
    """Numbers of faults of each kind."""

    kills: int = 500
    flips: int = 1000
    runs: int = 20_000
    texts: int = 40_000
    settings: int = 40_000
    reads: int = 1000
    builders: int = 100
    steps: int = 100_000
    gigabytes: float = 1.0
    server_stops: int = 10


QUICK = Amounts(20, 100, 300, 500, 1000, 50, 5, 2000, 0.05, 2)


class Bench:
    """Folder for all runs, amounts, and a run that was never disturbed."""

    def __init__(self, folder: Path, amounts: Amounts) -> None:
        self.folder, self.amounts = folder, amounts
        self.whole = harness.finish(folder / "whole")
        self.expected = harness.newest_files(self.whole)

    def as_expected(self, path: Path) -> bool:
        """Return whether a run is intact and identical to the run that was never disturbed."""
        same: bool = harness.newest_files(path) == self.expected
        return same and harness.problems(path) == []
