"""A new setting is one field: everything else is made from it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import Call

from charlm.config.settings import table

PROGRAM = """
import sys
from dataclasses import dataclass
from charlm.config import settings
from charlm.config.fields import above, setting
from charlm.config.training import TrainingSettings

@dataclass(frozen=True, kw_only=True)
class MoreSettings(TrainingSettings):
    warmth: float = setting(
        0.5, "Warmth of the run", at_least=0.0, at_most=2.0, aliases=("--heat",), unit="suns"
    )

settings.SECTIONS["training"] = MoreSettings
from charlm.cli import main
main(sys.argv[1:])
"""


def charlm(folder: Path, *words: str) -> tuple[int, str, str]:
    """Run the command line of a charlm with one more setting."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words], cwd=folder, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_a_new_setting_is_one_field(tmp_path: Path) -> None:
    """It has a flag, --set, a range, help, a row in the table, and is kept with the run."""
    (tmp_path / "a.txt").write_text("the cat sat on the mat\n" * 60, encoding="utf-8")
    shown = " ".join(charlm(tmp_path, "train", "--help")[1].replace("│", " ").split())
    assert "Warmth of the run. (default: 0.5)" in shown
    assert "--warmth" in charlm(tmp_path, "settings")[1]
    facts = json.loads(charlm(tmp_path, "settings", "warmth", "--json")[1])
    assert (facts["default"], facts["unit"], facts["aliases"]) == (0.5, "suns", ["--heat"])
    for words in (["--warmth", "3"], ["--set", "warmth=3"], ["--heat", "3"]):
        status, _, err = charlm(tmp_path, "train", "a.txt", *words)
        assert status == 2 and "is 3; expected at least 0 and at most 2" in err
    small = ["--steps", "2", "--hidden", "4", "--layers", "1", "--batch", "2", "--bptt", "8"]
    status, _, err = charlm(tmp_path, "train", "a.txt", "--warmth", "1.5", "--name", "w", *small)
    assert status == 0, err
    record = json.loads((tmp_path / "checkpoints" / "w" / "run.json").read_text(encoding="utf-8"))
    assert record["settings"]["training"]["warmth"] == 1.5
    assert record["origins"]["training.warmth"] == "flag"


@pytest.mark.parametrize("name", table())
def test_every_setting_can_be_shown(name: str, call: Call) -> None:
    """In full, with its flag or its name."""
    status, out, err = call("settings", name)
    assert (status, err) == (0, "")
    assert f".{name}" in out and (table()[name].flag or f"--set {name}=") in out


def test_settings_are_listed_and_found(call: Call) -> None:
    """By flag and by keyword; an unknown one gets the nearest name; JSON has every fact."""
    status, out, err = call("settings")
    assert (status, err) == (0, "")
    assert all((setting.flag or name) in out for name, setting in table().items())
    rows = json.loads(call("settings", "--json")[1])["settings"]
    assert [row["name"] for row in rows] == list(table())
    assert "--valid-fraction" in call("settings", "valid-frac")[1]
    assert call("settings", "mos")[1] == call("settings", "mixture")[1]
    assert "| `--hidden` (`hidden_size`) |" in call("settings", "--format", "markdown")[1]
    status, out, err = call("settings", "dropuot")
    assert (status, out) == (2, "")
    assert "did you mean 'dropout'?" in err
