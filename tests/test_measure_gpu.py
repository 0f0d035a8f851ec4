"""scripts/measure_gpu with tiny sizes on a processor: every stage runs and ends in a table."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

import check_gpu
import measure_gpu
from charlm.cli import main
from charlm.phases import listening, phase
from time_phases import Times

CELLS = ("lstm", "mingru")


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure two cells, and run commands in this process."""

    def run(program: Sequence[str]) -> None:
        _, script, other, *arguments = program
        with pytest.raises(SystemExit) as end:
            main([*(() if script == "-c" else ("-q",)), *arguments])
        assert end.value.code == 0
        if script != "-c":
            Path(other).write_text('{"total": 1.0}', encoding="utf-8")

    monkeypatch.setattr(check_gpu, "CELLS", CELLS)
    monkeypatch.setattr(measure_gpu, "CELLS", CELLS)
    monkeypatch.setattr(measure_gpu, "run_program", run)


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
    assert stages["check"]["lstm, 4,096 entries, fp32"]["captured"] == "equal"
    assert stages["check"]["loss in chunks as on the CPU"] == {"loss": 0.0, "gradients": 0.0} | {
        "took s": stages["check"]["loss in chunks as on the CPU"]["took s"]
    }
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


def test_rows_are_measured_in_another_process(tmp_path: Path) -> None:
    """As on a GPU, with the choice of rows by name."""
    stages = rows_of(tmp_path, "--apart", "--only", "speed", "check", "--rows=^gradients|^product")
    assert {stage: list(rows) for stage, rows in stages.items()} == {
        "speed": ["product in bf16"], "check": ["gradients 2x8"],
    }  # fmt: skip
    assert not [row["error"] for rows in stages.values() for row in rows.values() if "error" in row]


def test_nothing_is_started_after_the_limit(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, "--only", "ptb", "--limit=0")["ptb"]
    assert {row["error"] for row in rows.values()} == {"no time was left"}


def test_seconds_belong_to_the_innermost_phase() -> None:
    """By hand, with a clock that is set: 2 before, 1 + 3 in the outer one, 4 in the inner one."""
    now = iter([10.0, 12.0, 13.0, 17.0, 20.0, 99.0, 100.0])
    times = Times(lambda: next(now))
    with listening(times):
        with phase("outer"), phase("inner"):
            pass
        with phase("inner"):
            pass
    assert times.seconds == {"before": 2.0, "outer": 1.0 + 3.0, "inner": 4.0 + 1.0}
