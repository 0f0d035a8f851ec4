"""The README and the guide: every command, code block, flag, link and file that they name."""

import codeop
import contextlib
import io
import itertools
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from helpers import Call

import write_guide
from charlm import benchmark
from charlm.cli import app
from charlm.cli import guide as pages
from charlm.nn.gpu import torch_release
from charlm.nn.onnx_model import FIRST_TORCH
from charlm.server.run import Server

ROOT = Path(__file__).resolve().parent.parent
PAGES = {path.stem: path for path in write_guide.PAGES}
TEXTS = {name: path.read_text(encoding="utf-8") for name, path in PAGES.items()}
README = TEXTS["README"]
TINY = ["--steps=2", "--hidden=4", "--batch=2", "--bptt=8", "--layers=1", "--seed=1", "--threads=1"]
LENGTHS = ("--minutes", "--epochs", "--steps", "--layers", "--hidden", "--params", "--more-minutes")
every_page = pytest.mark.parametrize("page", PAGES)


def blocks(page: str) -> list[tuple[str, str]]:
    """Return the code blocks of a page, each with its language."""
    return re.findall(r"^```(\w*)\n(.*?)^```", TEXTS[page], re.MULTILINE | re.DOTALL)


def code(page: str, language: str) -> list[str]:
    """Return the code blocks of a page that are in one language."""
    return [block for name, block in blocks(page) if name == language]


def commands(page: str) -> list[str]:
    """Return the commands of a page: lines of shell blocks, and those after $ in sessions."""
    lines = []
    for language, block in blocks(page):
        if language in ("", "console"):
            prompt = "$ " if language else ""
            starts = [line for line in block.splitlines() if line.startswith(prompt)]
            lines += [line.removeprefix(prompt).split("  #")[0].strip() for line in starts]
    return [line for line in lines if re.search(r"(^|[ (])charlm [a-z-]", line)]


def _write_examples(folder: Path) -> None:
    """Write the texts with labels, tags and translations, and the series, that the pages name."""
    labelled = "label\ttext\n" + "pos\tthe good apple\nneg\tthe bad pear\n" * 40
    for name in ("reviews", "test"):
        (folder / f"{name}.tsv").write_text(labelled, encoding="utf-8")
    tagged = "the DT O\nApple NNP B-ORG\nand CC O\npears NNS B-MISC\n\n" * 20
    for name in ("news", "valid", "test"):
        (folder / f"{name}.conll").write_text(tagged, encoding="utf-8")
    sides = {"en": "the apple\nand the pear\n" * 20, "de": "der Apfel\nund die Birne\n" * 20}
    for name, (ending, side) in itertools.product(("train", "dev", "test"), sides.items()):
        (folder / f"{name}.{ending}").write_text(side, encoding="utf-8")
    captions = "en\tde\n" + "the apple\tder Apfel\nand the pear\tund die Birne\n" * 20
    for name in ("captions", "captions.test"):
        (folder / f"{name}.tsv").write_text(captions, encoding="utf-8")
    row = "{}\t{}\t_\tNOUN\tNN{}\t_\t_\t_\t_\t_\n"
    treebank = (row.format(1, "pear", "") + row.format(2, "pears", "S") + "\n") * 20
    (folder / "treebank.conllu").write_text(treebank, encoding="utf-8")
    songs = "genre\ttext\n" + "jazz\tthe blue moon\nrock\tloud and fast\n" * 40
    (folder / "songs.tsv").write_text(songs, encoding="utf-8")
    (folder / "tunes.abc").write_text("X:1\nT: The Green Hill\nK: G\nG2 | B2\n\n" * 20)
    for name in ("molecules", "messages"):
        (folder / f"{name}.txt").write_text("CC(C)C\nC1CC1O\n" * 40)
    (folder / "quotes.csv").write_text('"One ""or""\ntwo."\nThree\n' * 40)
    (folder / "new.txt").write_text("the good pear\n", encoding="utf-8")
    (folder / "tweets.csv").write_text("pos,1,2,3,4,a pear\nneg,1,2,3,4,an apple\n" * 40)
    waves = [f"{number},{number % 7 - 0.01 * number}\n" for number in range(60)]
    for name in ("series", "new"):
        (folder / f"{name}.csv").write_text("".join(["time,value\n", *waves]))
    (folder / "table.csv").write_text("".join(waves))
    (folder / "series.txt").write_text("".join(wave.split(",")[1] for wave in waves))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with the texts that the pages name."""
    text = "the apple and pear salad\n" * 40
    for name in ("corpus", "train", "valid", "test", "names", "sentences", "old", "shakespeare"):
        (tmp_path / f"{name}.txt").write_text(text, encoding="utf-8")
    hypotheses = [{"text": f"the apple and {word} salad", "am": -1.5} for word in ("pair", "pear")]
    lists = json.dumps({"id": "utt1", "hyps": hypotheses})
    (tmp_path / "dev.jsonl").write_text(lists, encoding="utf-8")
    (tmp_path / "eval.jsonl").write_text(lists, encoding="utf-8")
    (tmp_path / "dev.refs").write_text("utt1 the apple and pear salad\n", encoding="utf-8")
    (tmp_path / "nbest").mkdir()
    (tmp_path / "nbest" / "utt1").write_text("-120.5 -9 3 an apple salad\n", encoding="utf-8")
    (tmp_path / "words_text").write_text("utt1-1 an apple salad\n", encoding="utf-8")
    (tmp_path / "novels").mkdir()
    (tmp_path / "novels" / "one.txt").write_text(text, encoding="utf-8")
    good, bad = "the apple and pear salad", "the apple and pair salad"
    pairs = f"item\tcondition\tsentence_good\tsentence_bad\n1\ta\t{good}\t{bad}\n"
    (tmp_path / "pairs.tsv").write_text(pairs, encoding="utf-8")
    items = f"item\tbefore\tsentence\n1\t{bad}\t{good}\n"
    (tmp_path / "items.tsv").write_text(items, encoding="utf-8")
    times = "".join(f"s1\t1\t{at}\t{word}\t300\n" for at, word in enumerate(good.split()))
    (tmp_path / "times.tsv").write_text("subject\titem\tposition\tword\ttime\n" + times)
    (tmp_path / "blimp" / "data").mkdir(parents=True)
    (tmp_path / "blimp" / "data" / "x.txt").write_text(f"{bad}\n{good}\n")
    (tmp_path / "list.csv").write_text("".join(f"{number},apple\n" for number in range(9)))
    (tmp_path / "reviews.csv").write_text("id,text\n" + "1,the apple and pear\n" * 40)
    _write_examples(tmp_path)
    for split, label in itertools.product(("train", "test"), ("pos", "neg")):
        (tmp_path / "aclImdb" / split / label).mkdir(parents=True)
        for number in range(4):
            (tmp_path / "aclImdb" / split / label / f"{number}.txt").write_text(f"{label} {number}")
    (tmp_path / "FOLDER" / "ptb").mkdir(parents=True)
    for part in ("train", "valid", "test"):
        (tmp_path / "FOLDER" / "ptb" / f"ptb.{part}.txt").write_text(text)
    (tmp_path / "key.txt").write_text("0123456789abcdef" * 4)
    (tmp_path / "key.txt").chmod(0o600)
    for block in code("settings", "toml"):
        (tmp_path / "settings.toml").write_text(block, encoding="utf-8")
    for name in ("CHARLM_CHECKPOINTS", "CHARLM_RUN", "CHARLM_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(benchmark, "MIN_ROUNDS", 1)
    monkeypatch.setattr(benchmark, "_process", lambda arguments: lambda: None)
    monkeypatch.setattr(Server, "startup", started_and_stopped(Server.startup))
    monkeypatch.setattr("webbrowser.open", lambda url: True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def started_and_stopped(startup: Any) -> Any:
    """Return the start of a server that stops it as soon as it answers."""

    async def start(server: Server, **arguments: Any) -> None:
        await startup(server, **arguments)
        server.should_exit = True

    return start


def shortened(arguments: list[str]) -> list[str]:
    """Return arguments that take less time: two steps of a tiny model, little to measure."""
    verb = next(word for word in arguments if not word.startswith("-"))
    if verb == "train":
        for at in [i for i, word in enumerate(arguments) if word in LENGTHS][::-1]:
            del arguments[at : at + 2]
        tiny = [f for f in TINY if "--task" not in arguments or "bptt" not in f]
        if "--from" in arguments:  # the sizes are those of the run
            return [*arguments, *(f for f in tiny if not f.startswith(LENGTHS) or "steps" in f)]
        if "--resume" not in arguments:
            return [*arguments, *tiny]
    extra = {
        "train": ["--more-steps", "1"],
        "search": ["--minutes", "0.02", "--trial-minutes", "0.005"],
        "reproduce": ["--budget", "0.001"] if "--budget" in arguments else [],
        "gradients": ["corpus.txt", "--lags", "9"],
        "serve": ["--port", "0"],
        "bench": ["--seconds", "0.01", "--hidden", "8"],
    }
    if verb == "gradients" and "--compare" in arguments:
        extra[verb] += ["--minutes", "0.001"]
    if verb == "eval" and not {"--file", "--worst", "waves", "songs"} & set(arguments):
        return [*arguments, "--file", "test.txt"]
    return arguments + extra.get(verb, [])


def run(line: str, call: Call) -> tuple[int, str, str]:
    """Run a line of a shell: a command, what is piped or redirected to it, `name=$(command)`."""
    line = re.sub(r"^\w+=\$\((.*)\)$", r"\1", line)
    before, _, command = line.rpartition(" | ")
    command, _, file = command.partition(" < ")
    stdin = Path(file).read_bytes() if file else None
    if before:
        stdin = subprocess.run(before, shell=True, capture_output=True, check=True).stdout
    return call(*shortened(shlex.split(command)[1:]), stdin=stdin)


@every_page
def test_every_command_runs(page: str, call: Call, folder: Path) -> None:
    if page == "onnx" and torch_release() < FIRST_TORCH:
        pytest.skip("the export needs a newer torch")
    if "charlm eval" in TEXTS[page]:  # a small run, to be the newest one
        call(*shortened(["train", "corpus.txt", "--name", "tiny"]))
    for line in commands(page):
        status, out, err = run(line, call)
        assert status == 0, f"{line}\n{err}"
        assert out or err, line


@every_page
def test_every_python_block_runs(page: str, folder: Path) -> None:
    for block in code(page, "python"):
        if write_guide.ADDRESS in block:  # tests/server/test_guide_examples.py runs it
            continue
        if "onnxruntime" in block:  # tests/test_onnx.py runs it
            continue
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile(block, page, "exec"), {})
        assert out.getvalue()


@every_page
def test_every_python_block_can_be_pasted_at_a_prompt(page: str) -> None:
    """A blank line ends the body of a loop there."""
    for block in code(page, "python"):
        lines: list[str] = []
        for line in [*block.splitlines(), ""]:
            lines.append(line)
            if codeop.compile_command("\n".join(lines), page) is not None:
                lines = []
        assert lines == []


@every_page
def test_every_flag_exists(page: str) -> None:
    tree: Any = typer.main.get_command(app)
    groups = [command for command in tree.commands.values() if hasattr(command, "commands")]
    every = [*tree.commands.values(), *(one for group in groups for one in group.commands.values())]
    options = [option for command in every for option in command.params]
    known = {flag for option in options for flag in (*option.opts, *option.secondary_opts)}
    text = re.sub(r"^```(sh|dockerfile)\n.*?^```", "", TEXTS[page], flags=re.MULTILINE | re.DOTALL)
    flags = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", text))
    assert flags <= known | {"--help"}


@every_page
def test_every_link_and_file_exists(page: str) -> None:
    links = re.findall(r"\]\(((?!http)[^)#]+)|src=\"([^\"]+)", TEXTS[page])
    files = [PAGES[page].parent / (link or image) for link, image in links]
    assert [file for file in files if not file.exists()] == []
    names = re.findall(r"`(?:python )?((?:scripts|tests|corpora|charlm)/[\w/.-]+)", TEXTS[page])
    assert [name for name in names if not (ROOT / name).exists()] == []


@every_page
def test_generated_tables_are_up_to_date(page: str) -> None:
    """If not, run: python scripts/write_guide.py."""
    assert write_guide.with_tables(TEXTS[page]) == TEXTS[page]


def test_a_long_session_is_shortened() -> None:
    after = "validation d\n  more\n$ charlm next\nrun e\n"
    text = f"$ charlm train a\ntext a\nrun b\n  more\nbest c\n{after}"
    short = f"$ charlm train a\ntext a\n...\n{after}"
    assert write_guide.kept_lines(text, "text|validation") == short
    assert write_guide.kept_lines(text, None) == text


# README


def test_the_readme_is_short_and_begins_with_the_two_scripts() -> None:
    assert README.count("\n") <= 200
    _, first = blocks("README")[0]
    for name in ("scripts/demo", "scripts/test"):
        assert name in first
        assert (ROOT / name).stat().st_mode & 0o111


def test_the_readme_lists_every_command_and_page() -> None:
    verbs = {command.name for command in app.registered_commands}
    verbs |= {group.typer_instance.info.name for group in app.registered_groups}
    rows = re.findall(r"^\| (`charlm [^|]+) \|", README, re.MULTILINE)
    assert set(re.findall(r"`charlm (\w+)`", " ".join(rows))) == verbs
    assert set(re.findall(r"\]\(charlm/guide/([\w-]+)\.md\)", README)) == set(pages.page_names())


def test_every_path_of_the_tree_exists() -> None:
    text = (ROOT / ".github" / "CONTRIBUTING.md").read_text(encoding="utf-8")
    names = re.findall(r"(?:^|  )([\w/.]+/)\s", text, re.MULTILINE)
    assert len(names) >= 12
    assert [name for name in names if not (ROOT / name).exists()] == []


# charlm guide


def test_the_guide_lists_its_pages(call: Call) -> None:
    """One line per page."""
    status, out, err = call("guide")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    for name, line in zip(pages.page_names(), lines, strict=False):
        assert line.split()[0] == name
        assert len(line.split()) > 3
        assert len(line) <= 80


@pytest.mark.parametrize("typed", ["settings", "set", "Settings.md"])
def test_a_page_is_found_by_its_name_or_the_beginning_of_it(typed: str, call: Call) -> None:
    """A pipe gets Markdown."""
    assert call("guide", typed) == (0, TEXTS["settings"], "")


def test_a_page_is_found_by_its_old_name(call: Call) -> None:
    """The page "scoring" was once called "scores"."""
    assert call("guide", "scores") == (0, TEXTS["scoring"], "")


@pytest.mark.parametrize(
    ("typed", "pages_named"),
    [
        ("setings", ["settings"]),
        ("s", ["samples", "scoring", "serve", "settings"]),
        ("dropout", ["cells"]),
    ],
)
def test_an_unknown_page_suggests_others(typed: str, pages_named: list[str], call: Call) -> None:
    status, out, err = call("guide", typed)
    assert (status, out) == (2, "")
    for name in pages_named:
        assert f"charlm guide {name}" in err


def test_a_terminal_gets_the_page_rendered(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "on_terminal", lambda: True)
    status, out, _ = call("guide", "cells")
    assert status == 0
    assert "# Cells" not in out
    assert "charlm guide settings" in out


def test_a_page_is_shown_without_heavy_imports() -> None:
    code = "import sys; from charlm.cli.guide import guide; guide('cells'); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = done.stdout.splitlines()[-1].split()
    assert "charlm" in modules
    assert not {"torch", "numpy", "rich.markdown"} & set(modules)
