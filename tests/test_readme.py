"""The README is run: every command, every code block, every flag and file that it names."""

import contextlib
import io
import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest
import typer

from charlm import benchmark
from charlm.cli import app, main
from charlm.config.flags import FLAGS
from charlm.config.settings import SECTIONS

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
TINY = ["--steps=2", "--hidden=4", "--batch=2", "--bptt=8", "--layers=1", "--seed=1", "--threads=1"]


def commands() -> list[str]:
    """Every line of a shell block that calls charlm, without what follows a pipe."""
    lines = [line for language, block in BLOCKS if not language for line in block.splitlines()]
    stripped = [line.removeprefix("$ ").split("  #")[0].strip() for line in lines]
    found = {line for line in stripped if line.startswith("charlm ")}
    return sorted(found, key=lambda line: (not line.startswith("charlm train"), line))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the README's commands name."""
    path = tmp_path_factory.mktemp("readme")
    for name in ("corpus.txt", "train.txt", "valid.txt", "test.txt", "names.txt", "sentences.txt"):
        (path / name).write_text("the apple and pear salad\n" * 40, encoding="utf-8")
    pairs = "item\tcondition\tsentence_bad\n1\ta\tthe apple and pair salad\n"
    (path / "pairs.tsv").write_text(pairs, encoding="utf-8")
    (path / "list.csv").write_text("".join(f"{number},apple\n" for number in range(9)))
    return path


def shortened(command: str) -> list[str]:
    """Its arguments; training is cut to two steps of a tiny model, sampling to few tokens."""
    arguments = shlex.split(command)[1:]
    if arguments[0] == "train" and "--resume" not in arguments:
        lengths = {"--minutes", "--epochs", "--layers", "--hidden"}
        lengths |= {"--name"} if "--direction" not in arguments else set()
        while found := lengths & set(arguments):
            at = arguments.index(found.pop())
            del arguments[at : at + 2]
        arguments += TINY
    if arguments[0] == "search":
        arguments += ["--minutes", "0.02", "--trial-minutes", "0.005"]
    if arguments[0] == "gradients":
        arguments += ["corpus.txt", "--minutes", "0.001", "--lags", "9"]
    if arguments[0] == "bench":
        arguments += ["--seconds", "0.01", "--hidden", "8"]
    if arguments[0] == "eval" and "--file" not in arguments:
        arguments += ["--file", "test.txt"]
    return arguments


def output_of(command: str) -> str:
    """What it writes; it ends without an error."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as end:
        main(shortened(command))
    assert end.value.code == 0
    return out.getvalue()


@pytest.mark.parametrize("command", commands())
def test_every_command_runs(command: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it stands there. The run that it names is the one that another command has trained."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(benchmark, "MIN_ROUNDS", 1)
    monkeypatch.setattr(benchmark, "_process", lambda arguments: lambda: None)
    if "--run gaps" in command and not Path("checkpoints/gaps").exists():
        output_of(next(other for other in commands() if "--name gaps" in other))
    if "--name gaps" in command and Path("checkpoints/gaps").exists():
        return  # has run already, for one of those
    assert output_of(command) or command.startswith("charlm train")


def test_the_library_example_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python block, with what it prints."""
    monkeypatch.chdir(folder)
    (block,) = [block for language, block in BLOCKS if language == "python"]
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(block, "README.md", "exec"), {})
    assert "finished 20" in out.getvalue()
    assert "Model('checkpoints/" in out.getvalue()


def test_the_scripts_at_the_top_exist() -> None:
    """Both commands of the first block, in its first screen."""
    first = BLOCKS[0][1]
    for name in ("scripts/demo", "scripts/test"):
        assert name in first
        assert (ROOT / name).stat().st_mode & 0o111


def test_every_verb_is_in_the_table() -> None:
    """And the table names no verb that is not there."""
    verbs = {command.name for command in app.registered_commands}
    verbs |= {group.typer_instance.info.name for group in app.registered_groups}
    assert set(re.findall(r"^\| `charlm (\w+)", README, re.MULTILINE)) == verbs


def test_every_flag_that_is_named_exists() -> None:
    """A renamed flag makes the README wrong."""
    homes = [*(ROOT / "charlm" / "cli").glob("*.py"), *(ROOT / "scripts").glob("*.py")]
    source = "".join(path.read_text(encoding="utf-8") for path in homes)
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", README))
    missing = {flag for flag in named if not re.search(rf'["/]{flag}["/]', source)} - {"--help"}
    assert not missing


def test_every_other_setting_is_in_the_table_with_its_default() -> None:
    """The rows of `--set` against the settings; what has a flag of its own need not be there."""
    rows = re.findall(r"^\| (`[\w`, ]+`) \| (.+?) \|", README, re.MULTILINE)
    named = {name for names, _ in rows for name in re.findall(r"`(\w+)`", names)}
    known = {f.name: f.default for cls in SECTIONS.values() for f in fields(cls)}
    options = {option.name for option in typer.main.get_command(app).commands["train"].params}
    without = set(known) - {FLAGS.get(name, name) for name in options} - {"one_hot"}
    assert without <= named
    for names, defaults in rows:
        for name, told in zip(re.findall(r"`(\w+)`", names), defaults.split(", "), strict=False):
            if name in known and isinstance(known[name], float | int | bool):
                assert told == str(known[name]).lower().removesuffix(".0"), name


def test_every_path_of_the_tree_exists() -> None:
    """The listing under `The tree` against the folder."""
    block = next(block for _, block in BLOCKS if "charlm/errors.py" in block)
    paths = re.findall(r"^([\w/.]+/[\w.]*)\s|\s{2,}([\w/.]+/[\w.]*)\s", block, re.MULTILINE)
    names = [first or second for first, second in paths]
    assert len(names) >= 12
    assert [name for name in names if not (ROOT / name).exists()] == []
