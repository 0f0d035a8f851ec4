"""scripts/measure_gpu with tiny sizes on a processor: every stage runs and ends in a table."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

import check_gpu
import measure_gpu
from charlm.cli import main

CELLS = ("lstm", "mingru")


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure two cells, and run commands in this process."""

    def run(arguments: Sequence[str]) -> None:
        with pytest.raises(SystemExit) as end:
            main(list(arguments))
        assert end.value.code == 0

    monkeypatch.setattr(check_gpu, "CELLS", CELLS)
    monkeypatch.setattr(measure_gpu, "CELLS", CELLS)
    monkeypatch.setattr(measure_gpu, "run_command", run)


def rows_of(folder: Path, *arguments: str) -> dict[str, dict[str, dict[str, object]]]:
    path, text = folder / "figures.json", folder / "text.txt"
    text.write_text("the apple and the pear\n" * 60, encoding="utf-8")
    files = [str(text), f"--ptb={text}", f"--json={path}"]
    measure_gpu.main([*files, "--device=cpu", "--seconds=0", *arguments])
    content: dict[str, dict[str, dict[str, dict[str, object]]]] = json.loads(path.read_text())
    return content["stages"]


def test_all_stages_are_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Steps on static tensors have their own bits again, also after a checkpoint."""
    stages = rows_of(tmp_path)
    assert list(stages) == list(measure_gpu.STAGES)
    assert not [row["error"] for rows in stages.values() for row in rows.values() if "error" in row]
    for cell in CELLS:
        assert stages["check"][f"{cell} as on the CPU"]["gradients"] == 0.0
        compared = stages["check"][f"{cell}, fp32"]
        assert compared["captured"] == compared["resumed"] == "equal"
    read = stages["check"]["reading a text"]
    assert read["mean"] == read["worst"] == 0.0 and read["steps"] == 2_000
    shown = capsys.readouterr().out
    assert all(f"{stage}: {name}: " in shown for stage in stages for name in stages[stage])


def test_a_measurement_that_fails_is_one_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine is lent for minutes: what comes after it is measured."""

    def fail(*_: object) -> None:
        raise RuntimeError("no kernel\nfor this card")

    monkeypatch.setattr(measure_gpu, "peak", fail)
    rows = rows_of(tmp_path, "--only", "speed")["speed"]
    first = next(iter(rows.values()))
    assert first["error"] == "RuntimeError: no kernel"
    assert [cell in rows and "gain" in rows[cell] for cell in CELLS] == [True, True]


def test_nothing_is_started_after_the_limit(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, "--only", "ptb", "--limit=0")["ptb"]
    assert {row["error"] for row in rows.values()} == {"no time was left"}
