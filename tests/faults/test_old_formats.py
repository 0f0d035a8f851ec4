"""Runs of older versions can be read, scored and resumed.

`tests/fixtures/format-N` is a small run that the last version of format N wrote and stopped half
way; `expected.json` is what that version computed. A new format needs a new fixture.
"""

import json
import shutil
from pathlib import Path

import pytest
from harness import problems

from charlm.api.loading import load
from charlm.runs.layout import FORMAT
from charlm.training.resume import resume

FIXTURES = Path(__file__).parent.parent / "fixtures"
OLD = sorted(FIXTURES.glob("format-*"))


def test_every_format_has_a_fixture() -> None:
    assert [path.name for path in OLD] == [f"format-{n}" for n in range(1, FORMAT + 1)]


@pytest.mark.parametrize("run", OLD, ids=lambda path: path.name)
@pytest.mark.parametrize("engine", ["numpy", "torch"])
def test_an_old_run_has_its_old_score(run: Path, engine: str) -> None:
    expected = json.loads((run / "expected.json").read_text("utf-8"))
    score = load(run, engine=engine).score(expected["text"])[0]
    assert score.tally.nats == pytest.approx(expected["nats"], abs=1e-5)


@pytest.mark.parametrize("run", OLD, ids=lambda path: path.name)
def test_an_old_run_can_be_resumed(run: Path, tmp_path: Path) -> None:
    """The run is intact before and after."""
    path = Path(shutil.copytree(run, tmp_path / "x"))
    assert problems(path) == []
    session = resume(path)
    begun = session.trainer.counters.step
    assert 0 < begun < 40
    records = list(session.records())
    assert records[-1].step == 40
    assert problems(path) == []
