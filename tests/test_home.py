"""Users without a home folder, as in a container that runs with a user id of its own."""

import errno
from pathlib import Path

import platformdirs
import pytest

from charlm.cli import play
from charlm.config.corpus import CorpusSettings, VocabularySettings
from charlm.errors import EnvironmentFailure
from charlm.text import idcache
from charlm.text.dataset import load_dataset
from charlm.text.home import is_homeless


@pytest.fixture(params=["newer", "older"])
def homeless(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A user with no home folder, in a folder that can be written.

    Releases of platformdirs up to 4.9 return a path below "~", newer ones raise RuntimeError.
    """
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "CHARLM_CACHE"):
        monkeypatch.delenv(name, raising=False)

    def find(name: str) -> str:
        if request.param == "older":
            return f"~/.{name}"
        raise RuntimeError("could not determine the home directory for '~'")

    monkeypatch.setattr(platformdirs, "user_cache_dir", find)
    monkeypatch.setattr(platformdirs, "user_state_dir", find)
    monkeypatch.setattr(idcache, "CACHED_FROM_BYTES", 0)  # every text is cached
    monkeypatch.chdir(tmp_path)
    Path("t.txt").write_text("to be or not to be\n" * 20)
    return tmp_path


def load() -> None:
    load_dataset(CorpusSettings(sources=("t.txt",)), VocabularySettings())


def test_a_large_text_asks_for_a_home_or_a_cache(homeless: Path) -> None:
    """It was an unexpected error, or wrote into a folder named ~."""
    with pytest.raises(EnvironmentFailure, match=r"no home folder.*Set HOME.*CHARLM_CACHE") as said:
        load()
    assert "\n" not in str(said.value)
    assert [path.name for path in homeless.iterdir()] == ["t.txt"]


def test_the_folder_in_charlm_cache_needs_no_home(
    homeless: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHARLM_CACHE", str(homeless / "cache"))
    load()
    assert list((homeless / "cache").iterdir())


def test_the_prompt_keeps_no_history(homeless: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is usable all the same."""
    pytest.importorskip("readline")
    assert play.history_file() is None
    with play._kept_history():
        pass
    assert "the history is not kept: this user has no home folder" in capsys.readouterr().err
    assert [path.name for path in homeless.iterdir()] == ["t.txt"]


def test_errors_of_libraries_about_the_home_folder_are_known() -> None:
    """pathlib's words, and those of platformdirs."""
    with pytest.raises(RuntimeError) as caught, pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.path.expanduser", lambda path: path)
        Path.home()
    assert is_homeless(caught.value)
    assert is_homeless(RuntimeError("could not determine the home directory for '~/.cache'"))
    assert not is_homeless(RuntimeError("CUDA out of memory"))
    assert not is_homeless(OSError("no home directory"))


@pytest.mark.parametrize(
    ("number", "advice"),
    [(errno.EACCES, ". Name another folder"), (errno.ENOSPC, ". Free some space, or name another")],
)
def test_the_advice_fits_the_error_of_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, advice: str
) -> None:
    """Free space does not help where writing is not allowed."""

    def refuse(*_: object) -> None:
        raise OSError(number, "refused")

    monkeypatch.setattr(idcache, "CACHED_FROM_BYTES", 0)
    monkeypatch.setenv("CHARLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(idcache, "_clear_old", refuse)
    monkeypatch.chdir(tmp_path)
    Path("t.txt").write_text("to be or not to be\n" * 20)
    with pytest.raises(EnvironmentFailure, match="cannot write the id cache") as said:
        load()
    assert advice in str(said.value)
