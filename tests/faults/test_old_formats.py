"""Runs that older charlms wrote are read, scored and gone on with.

`tests/fixtures/format-N` is a small run as the last charlm of format N wrote it, stopped half way;
`expected.json` tells what that charlm made of it. A new format brings a new fixture.
"""

import json
import shutil
from pathlib import Path

import pytest
from harness import problems

from charlm.api.model import load
from charlm.runs.layout import FORMAT
from charlm.training import start as starting
from charlm.training.resume import resume

FIXTURES = Path(__file__).parent.parent / "fixtures"
OLD = sorted(FIXTURES.glob("format-*"))


def test_every_format_so_far_has_a_fixture() -> None:
    assert [path.name for path in OLD] == [f"format-{n}" for n in range(1, FORMAT + 1)]


@pytest.mark.parametrize("run", OLD, ids=lambda path: path.name)
@pytest.mark.parametrize("engine", ["numpy", "torch"])
def test_an_old_run_scores_as_it_did(run: Path, engine: str) -> None:
    """To a millionth of a nat."""
    expected = json.loads((run / "expected.json").read_text("utf-8"))
    score = load(run, engine=engine).score(expected["text"])[0]
    assert score.tally.nats == pytest.approx(expected["nats"], abs=1e-5)


@pytest.mark.parametrize("run", OLD, ids=lambda path: path.name)
def test_an_old_run_is_gone_on_with(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole before, from the step where it stopped to its end, whole afterwards."""
    monkeypatch.setattr(starting, "keep_freed_memory", lambda: True)
    path = Path(shutil.copytree(run, tmp_path / "x"))
    assert problems(path) == []
    session = resume(path)
    begun = session.trainer.counters.step
    assert 0 < begun < 40
    records = list(session.records())
    assert records[-1].step == 40
    assert problems(path) == []
