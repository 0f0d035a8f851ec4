"""`charlm play`: the session, its commands, and the terminal."""

import contextlib
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers import Call
from waiting import wait_until

import charlm
from charlm.api.model import Model
from charlm.api.play import Session, Token
from charlm.api.prompt import COMMANDS, QUOTES, Prompt
from charlm.cli import play
from charlm.errors import CharlmError, EnvironmentFailure, UsageError
from charlm.report.heat import SIGNED, SURPRISAL, rich_style, signed_level, surprisal_level
from charlm.units import bits

TEXT = "abc abd é\nab ca\n" * 10
TINY = {
    "hidden_size": 4, "embedding_size": 3, "num_layers": 1, "steps": 8, "batch_size": 2, "bptt": 4,
    "seed": 1, "precision": "fp32", "device": "cpu", "threads": 1, "learning_rate": 0.05,
}  # fmt: skip
KINDS = {
    "stream": {},
    "lines": {"document": "line", "cell": "gru"},
    "words": {"unit": "word"},
    "blanks": {"unit": "word", "words": "whitespace"},
    "bytes": {"unit": "byte"},
    "bpe": {"unit": "bpe", "max_size": 264},
    "verse": {"document": "paragraph"},
    "backward": {"direction": "backward"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny runs of several kinds, and the n-gram model of one."""
    path = tmp_path_factory.mktemp("checkpoints")
    for name, settings in KINDS.items():
        text = TEXT.replace("ca\n", "ca\n\n") if name == "verse" else TEXT
        list(charlm.train(text=text, name=name, checkpoints=path, **{**TINY, **settings}))
    charlm.ngram(like=path / "stream", order=3, name="counts", checkpoints=path)
    return path


@pytest.fixture(params=[name for name in KINDS if name != "backward"] + ["counts", "mixed"])
def model(request: pytest.FixtureRequest, folder: Path) -> Model:
    if request.param == "mixed":
        return charlm.load("stream", checkpoints=folder, with_="counts=0.3")
    return charlm.load(request.param, checkpoints=folder)


@pytest.fixture
def stream(folder: Path) -> Model:
    return charlm.load("stream", checkpoints=folder)


def prompt_of(model: Model, **options) -> Prompt:
    return Prompt(Session(model, **{"length": 12, "seed": 4, **options}))


def enter(prompt: Prompt, *lines: str) -> str:
    """Type lines; return the text that the last one showed."""
    shown = ""
    for line in lines:
        shown = "".join(each.text for each in prompt.enter(line) if isinstance(each, Token))
    return shown


def notes(prompt: Prompt, *lines: str) -> list[str]:
    """Type lines; return the notes about the last one."""
    shown: list[str] = []
    for line in lines:
        shown = [each for each in prompt.enter(line) if isinstance(each, str)]
    return shown


# The text


def test_several_turns_are_one_sample_of_the_seed(model: Model) -> None:
    """For every unit; a model of lines ends its turn at the end of a line."""
    prompt = prompt_of(model)
    shown = enter(prompt, "ab") + enter(prompt, "") + enter(prompt, "")
    whole = model.sample(36, prompt="ab", seed=4)
    if model.run.boundaries.document == "line":
        whole = model.sample(12, prompt="ab", seed=4, until_eos=True)
        shown = shown.partition("\n")[0]
    assert shown == whole.removesuffix("\N{REPLACEMENT CHARACTER}")
    assert prompt.session.text.startswith("ab" + shown)


def test_typed_text_is_read_as_by_the_other_commands(model: Model) -> None:
    """The tally is that of `step`, and the next tokens are those of `next`."""
    prompt = prompt_of(model, length=0)
    enter(prompt, f"{QUOTES}ab ca", f"ab abd{QUOTES}")
    typed = prompt.session.text
    log_probability, _ = model.step(model.state(), typed)
    assert prompt.session.tally.nats == pytest.approx(-log_probability, abs=1e-4)
    ids = [token.id for token in prompt.session.place.tokens]
    assert ids == model.vocabulary.encode_marked(model.run.boundaries.mark(typed))[0].tolist()
    first = prompt.session.next(1)[0]
    others = {token.id: token.probability for token in model.next(typed, top=3)}
    assert others[first.id] == pytest.approx(first.probability, abs=1e-5)


def test_a_model_of_lines_writes_one_line_a_turn(folder: Path) -> None:
    prompt = prompt_of(charlm.load("lines", checkpoints=folder), length=500)
    for line in ("ab", "", ""):
        assert enter(prompt, line).count("\n") == 1
        assert prompt.session.text.endswith("\n")


def test_unknown_tokens_are_no_alternatives(model: Model) -> None:
    tokens = prompt_of(model).session.next(10**6)
    assert {token.id for token in tokens} == {*range(len(model.vocabulary))} - {0}


def test_words_without_blanks_are_joined_by_one(folder: Path) -> None:
    prompt = prompt_of(charlm.load("blanks", checkpoints=folder), length=0)
    enter(prompt, "abc", "abd", "  ca ", "")
    assert prompt.session.text == "abc abd ca"


def test_a_character_of_two_bytes_is_completed_by_the_next_turn(folder: Path) -> None:
    prompt = prompt_of(charlm.load("bytes", checkpoints=folder), length=0)
    first, second = "é".encode()
    vocabulary = prompt.session.model.vocabulary
    for byte in (first, second):
        (index,) = (at for at in range(2, len(vocabulary))
                    if vocabulary.byte_lengths[at] == 1 and vocabulary.token_text(at) in
                    (bytes([byte]).decode("latin-1"), f"<0x{byte:02X}>"))  # fmt: skip
        list(prompt.session.continued(prompt.session.picked(index)))
    assert prompt.session.text == "é"
    enter(prompt, "é", "/back")
    assert prompt.session.text == "é"
    list(prompt.session.continued(prompt.session.picked(index)))
    assert prompt.session.text == "éé"


def test_undo_again_and_back_keep_the_state_of_the_model(model: Model) -> None:
    """A text comes back with its seed, so the same tokens follow it."""
    prompt = prompt_of(model, length=6)
    session = prompt.session
    enter(prompt, "ab", "")
    before, places = session.text, [turn.place for turn in session.turns]
    shown = enter(prompt, " c")
    assert session.text != before
    enter(prompt, "/undo")
    assert session.text == before
    assert session.place is places[-1]
    assert enter(prompt, " c") == shown
    version = session.text
    enter(prompt, "/again 7")
    assert session.text.startswith(before)
    assert session.place.seed == 7
    enter(prompt, "/undo")
    assert session.text == version
    kept = session.place.tokens[:-4]
    enter(prompt, "/back 4")
    assert session.place.tokens == kept
    rest = prompt_of(model, length=6)
    ids = [token.id for token in kept]
    for index in ids:
        rest.session.turns[-1] = rest.session.turns[-1].__class__(
            typed=rest.session.place, place=rest.session.picked(index)
        )
    assert session.next(3)[0].probability == pytest.approx(
        rest.session.next(3)[0].probability, abs=1e-5
    )
    enter(prompt, "/back 1000000")
    assert session.text == ""
    assert enter(prompt, "/seed 4", "") == enter(prompt_of(model, length=6), "")


def test_again_writes_the_turn_of_another_seed(stream: Model) -> None:
    prompt = prompt_of(stream)
    enter(prompt, "ab")
    shown = enter(prompt, "/again 9")
    assert shown == stream.sample(12, prompt="ab", seed=9)
    before = prompt.session.text
    shown = enter(prompt, "", "/again 9")
    assert shown == stream.sample(12, prompt=before, seed=9)
    seeds = {notes(prompt, "/again")[0] for _ in range(2)}
    assert len(seeds) == 2


def test_an_alternative_is_picked_by_its_number(model: Model) -> None:
    prompt = prompt_of(model, length=0)
    enter(prompt, "ab")
    lines = notes(prompt, "/alt 3")
    third = prompt.session.next(3)[2]
    assert "%" in lines[2]
    shown = enter(prompt, "3")
    assert prompt.session.place.tokens[-1].id == third.id
    assert shown == prompt.session.place.tokens[-1].text
    enter(prompt, "/undo", "/alt", "x", "3")
    assert prompt.session.text.endswith("3")


def test_closing_the_text_keeps_what_was_shown(model: Model) -> None:
    """As Ctrl-C does; then the seed continues with the next token."""
    prompt = prompt_of(model, length=10)
    shown = prompt.enter("ab")
    first = [next(shown) for _ in range(3)]
    shown.close()
    assert [*prompt.session.place.tokens[-3:]] == first
    whole = prompt_of(model, length=10)
    enter(whole, "ab")
    if model.run.boundaries.document != "line":
        enter(prompt, "/len 7", "")
        assert prompt.session.text == whole.session.text


# Commands


def test_settings_are_shown_and_changed(stream: Model) -> None:
    prompt = prompt_of(stream)
    assert notes(prompt, "/set") == ["temperature 1  top_k 0  top_p 1  min_p 0"]
    assert notes(prompt, "/set temperature 0.5", "/set temperature") == ["temperature 0.5"]
    assert notes(prompt, "/set top_k 12345678") == ["top_k 12345678"]
    assert notes(prompt, "/set top_k 0") == ["top_k 0"]
    assert notes(prompt, "/set len 3", "/len") == ["len 3"]
    assert notes(prompt, "/set seed 5", "/seed") == ["seed 5"]
    assert enter(prompt, "/set temperature 0", "ab") == stream.sample(
        3, prompt="ab", seed=5, temperature=0.0
    )
    assert enter(prompt, "/set temperature 1", "/set top_k 1", "/set seed 8", "") == stream.sample(
        3, prompt=prompt.session.text[:5], seed=8, top_k=1
    )


def test_a_unit_colours_the_text_as_it_grows(model: Model) -> None:
    """Token by token it has the values of `hidden`; full colour is at a round number."""
    prompt = prompt_of(model)
    enter(prompt, f"{QUOTES}ab", f"ca{QUOTES}")
    if model.run.kind == "ngram":
        with pytest.raises(UsageError, match="n-gram"):
            list(prompt.enter("/unit 1:2"))
        return

    def values(line: str) -> list[float]:
        """Return the values that a line shows."""
        return [each.value for each in prompt.enter(line) if isinstance(each, Token)]

    whole = values("/unit 1:2")
    values(" b")
    grown = values("")
    redrawn = values("/show")
    assert grown == pytest.approx(redrawn[-len(grown) :], abs=1e-5)
    assert max(map(abs, whole)) <= 1.0
    assert max(map(abs, whole)) > 0.4
    hidden = model.hidden(prompt.session.text)
    if hidden.tokens[: len(redrawn)].tolist() == [t.id for t in prompt.session.place.tokens]:
        ratios = np.array(redrawn) / hidden.unit("1:2")[: len(redrawn)]
        assert ratios == pytest.approx(np.full(len(redrawn), ratios[0]), rel=1e-3)
    assert values("/again 3")[-1] == pytest.approx(values("/show")[-1], abs=1e-5)
    assert values("/unit")[-1] is None


def test_units_of_another_signal_and_mistakes(stream: Model) -> None:
    prompt = prompt_of(stream)
    assert notes(prompt, "/unit 1:0") == ["unit 1:0, cell: blue to -1, orange to 1"]
    assert "output of the layer" in notes(prompt, "/unit 1:0 h")[0]
    for line, problem in (("2:0", "unit is '2:0'"), ("x", "unit is 'x'"), ("1:0 q", "'q'")):
        with pytest.raises(UsageError, match=problem):
            list(prompt.enter(f"/unit {line}"))
    assert all(token.value is not None for token in prompt.enter("a") if isinstance(token, Token))


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("/nothing", "/nothing is not a command; /[?] lists them"),
        ("/agian", "/agian is not a command; did you mean 'again'[?] Text that"),
        ("/undo 3", "/undo 3: expected nothing after /undo"),
        ("/quit now", "/quit now: expected nothing after /quit"),
        ("/set nonsense 3", "there is no setting 'nonsense'; expected one of temperature, top_k"),
        ("/set temprature 3", "there is no setting 'temprature'; did you mean 'temperature'"),
        ("/set temperature hot", "temperature is 'hot'; expected a number"),
        ("/set temperature nan", "temperature is nan; expected"),
        ("/set temperature -1", "temperature is -1"),
        ("/set top_p 0", "top_p is 0"),
        ("/set top_k 1.5", "top_k is '1.5'; expected a whole number"),
        ("/len -1", "len is -1; expected a whole number, 0 or more"),
        ("/len 9e9", "len is '9e9'"),
        ("/seed -3", "seed is -3"),
        ("/seed " + "9" * 5000, "seed is '999"),
        ("/back 0", "/back is 0; expected a whole number, 1 or more"),
        ("/back x", "/back is 'x'"),
        ("/alt 0", "/alt is 0"),
        ("/undo", "there is nothing to undo"),
        ("/save", "/save has no name"),
        ("/save \0", "cannot write"),
        ("/save " + "x" * 5000, "cannot write"),
        ("/save no folder/f.txt", "cannot write no folder/f.txt"),
        ("/save .", "the folder . exists; expected a new name"),
        ("a\udfffb", "half of a surrogate pair"),
        ("\udc80", "half of a surrogate pair"),
    ],
)
def test_a_mistake_is_named_and_changes_nothing(line: str, problem: str, stream: Model) -> None:
    prompt = prompt_of(stream)
    settings = prompt.session.sampling, prompt.session.length
    with pytest.raises(CharlmError, match=problem):
        list(prompt.enter(line))
    assert (prompt.session.sampling, prompt.session.length) == settings
    assert len(prompt.session.turns) == 1


def test_strange_text_is_read_as_unknown_tokens(model: Model) -> None:
    """Escapes, marks of direction, other scripts, and a line of 20,000 characters."""
    prompt = prompt_of(model, length=3)
    strange = "\x1b[31m\x07\u202e猫\0\tx"
    shown = notes(prompt, strange)
    assert prompt.session.text.startswith(strange.strip() if "\t" not in strange else strange[:3])
    if not model.vocabulary.spec.byte_level:
        assert "not in the vocabulary, read as UNK" in shown[0]
        assert prompt.session.tally.oov
    enter(prompt, "ab" * 10_000, "//undo")
    assert "/undo" in prompt.session.text
    assert "//" not in prompt.session.text


def test_text_of_several_lines_is_typed_between_quotes(stream: Model) -> None:
    prompt = prompt_of(stream, length=0)
    enter(prompt, f"{QUOTES}one")
    assert prompt.is_open
    enter(prompt, "/undo", f"two{QUOTES} ")
    assert not prompt.is_open
    assert prompt.session.text == "one\n/undo\ntwo"
    enter(prompt, f"{QUOTES}x{QUOTES}", QUOTES)
    prompt.close()
    enter(prompt, "y")
    assert prompt.session.text.endswith("twoxy")


def test_a_text_is_saved_and_no_file_is_replaced(
    stream: Model, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But one that the session has written itself is."""
    (here / "old.txt").write_text("old")
    prompt = prompt_of(stream)
    enter(prompt, "é", "/save new text.txt", "", "/save new text.txt")
    assert (here / "new text.txt").read_text(encoding="utf-8") == prompt.session.text
    with pytest.raises(UsageError, match=r"the file old.txt exists; expected a new name"):
        list(prompt.enter("/save old.txt"))
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space")))
    with pytest.raises(EnvironmentFailure, match=r"cannot write full.txt: No space"):
        list(prompt.enter("/save full.txt"))
    assert sorted(path.name for path in here.iterdir()) == ["new text.txt", "old.txt"]


def test_the_score_names_unknown_tokens(stream: Model) -> None:
    prompt = prompt_of(stream, length=0)
    assert notes(prompt, "/score")[0].startswith("0 tokens, ln P")
    (line,) = notes(prompt, "ab猫", "/score")
    assert line.startswith("3 tokens, 1 unknown, ln P -")
    assert f"{prompt.session.tally.bits_per_char:.4f} bits per character" in line


def test_every_command_is_in_the_help(stream: Model) -> None:
    prompt = prompt_of(stream)
    text = "\n".join(notes(prompt, "/?"))
    for name, command in COMMANDS.items():
        assert command.about in text
        assert name == "help" or f"/{name}" in text
    enter(prompt, "/quit")
    assert prompt.ended


def test_a_model_that_reads_backward_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="reads backward, so its text grows at the beginning"):
        Session(charlm.load("backward", checkpoints=folder))


# The terminal


def test_without_a_terminal_sample_is_named(call: Call, here: Path) -> None:
    status, out, err = call("play", "--run", "tales", stdin=b"ab\n")
    assert (status, out) == (2, "")
    assert "charlm sample --prime TEXT --run tales" in err


class Typist:
    """A person who types lines; an exception is raised in place of its line."""

    def __init__(self, *lines: str | BaseException) -> None:
        self.lines, self.prompts = iter(lines), list[str]()

    def __call__(self, prompt: str) -> str:
        self.prompts.append(prompt)
        line = next(self.lines, EOFError())
        if isinstance(line, BaseException):
            raise line
        return line


@pytest.fixture
def typed(call: Call, here: Path, folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a function that runs `charlm play` for a person who types lines."""
    monkeypatch.setattr(play, "_is_terminal", lambda: True)
    monkeypatch.setenv("XDG_STATE_HOME", str(here / "state"))
    monkeypatch.setenv("HOME", str(here))

    def run(*lines: str | BaseException, more: tuple[str, ...] = ()) -> tuple[str, str, list[str]]:
        typist = Typist(*lines)
        monkeypatch.setattr("builtins.input", typist)
        arguments = ["play", "stream", "--checkpoints", str(folder), "--seed", "4", *more]
        status, out, err = call(*arguments)
        assert status == 0
        return out, err, typist.prompts

    return run


def test_the_terminal_shows_text_notes_and_mistakes(typed, stream: Model) -> None:
    """The text alone is on stdout; without a terminal it has no colour."""
    lines = ["ab", "/set", "/x", "/set temperature -1", "/unit 9:9", f"{QUOTES}c", f"d{QUOTES}"]
    out, err, prompts = typed(*lines, more=("--len", "9"))
    first = stream.sample(9, prompt="ab", seed=4)
    assert out.startswith(first)
    assert "\x1b" not in out
    assert "seed 4; " in err
    assert "temperature 1" in err
    assert "/x is not a command" in err
    assert "\ntemperature is -1; expected" in err
    assert re.search("/unit is '9:9'; .* Find some with charlm inside --find", err)
    assert prompts == [*["> "] * 6, ". ", "> "]


def test_each_token_has_the_colour_of_its_level(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """That of its surprisal, or of its unit; a line end has none."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.delenv("NO_COLOR", raising=False)
    screen = play.Screen("light", 50)
    for value in (None, -1.0):
        screen.show(Token(id=2, text="a\n", nats=1.5, value=value))
    styles = [
        rich_style(surprisal_level(bits(1.5), 50), "light", SURPRISAL),
        rich_style(signed_level(-1.0), "light", SIGNED),
    ]
    lines = capfd.readouterr().out.splitlines()
    for line, style in zip(lines, styles, strict=True):
        red, green, blue = style.bgcolor.get_truecolor()
        assert f"48;2;{red};{green};{blue}ma\x1b[0m" in line


def test_ctrl_c_leaves_only_twice(typed) -> None:
    stop = KeyboardInterrupt()
    assert len(typed(stop, "/len", stop, stop, "ab")[2]) == 4
    assert typed(f"{QUOTES}a", stop, "/len 0")[2] == ["> ", ". ", "> ", "> "]
    assert "Ctrl-C again, or Ctrl-D, leaves" in typed(stop, stop)[1]


def test_a_line_that_is_not_utf8_is_ignored(typed) -> None:
    broken = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
    for line in (broken, "a\udcff"):
        out, err, _ = typed(line)
        assert out == "\n"
        assert "the line is not valid UTF-8" in err


def test_only_the_user_may_read_the_history(typed, here: Path, monkeypatch) -> None:
    readline = pytest.importorskip("readline")
    typed("ab", more=("--no-history",))
    path = play.history_file()
    assert path.is_relative_to(here)
    assert not path.exists()
    readline.clear_history()
    readline.add_history("a secret line")
    before = os.umask(0)
    try:
        typed("ab")
    finally:
        os.umask(before)
    assert "a secret line" in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    readline.clear_history()
    typed("ab")
    assert readline.get_history_item(1) == "a secret line"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.unlink()
    path.parent.rmdir()
    path.parent.write_text("a file in place of the folder")
    assert "the history was not kept" in typed("ab")[1]
    readline.clear_history()


@pytest.fixture
def terminal(here: Path, folder: Path) -> Iterator[tuple[subprocess.Popen, int]]:
    """`charlm play` in a terminal of its own."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    code = (
        "import fcntl, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
        "from charlm.cli import main; main()"
    )
    environment = os.environ | {"XDG_STATE_HOME": str(here), "TERM": "xterm-256color"}
    environment.pop("NO_COLOR", None)
    arguments = ["play", "stream", "--checkpoints", str(folder), "--len", "100000000"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdin=theirs, stdout=theirs, stderr=theirs,
        start_new_session=True, env=environment,
    )  # fmt: skip
    os.close(theirs)
    os.set_blocking(ours, False)
    yield process, ours
    process.kill()
    process.wait()
    os.close(ours)


def test_ctrl_c_stops_the_text_and_ctrl_d_leaves(terminal) -> None:
    """In a terminal; the tokens are coloured, and no torch is loaded."""
    process, ours = terminal
    seen = bytearray()

    def read_until(part: bytes) -> None:
        """Read what the terminal shows, up to a part of it."""

        def is_there() -> bool:
            with contextlib.suppress(BlockingIOError):
                seen.extend(os.read(ours, 1 << 16))
            return part in seen

        wait_until(is_there, process)
        del seen[: seen.index(part) + len(part)]

    read_until(b"> ")
    if (maps := Path(f"/proc/{process.pid}/maps")).exists():
        assert "torch" not in maps.read_text()
    os.write(ours, b"ab\n")
    read_until(b"\x1b[")
    os.write(ours, b"\x03")
    read_until(b"\n> ")
    os.write(ours, b"/score\n")
    read_until(b" tokens, ln P")
    read_until(b"> ")

    def has_left() -> bool:
        """Press Ctrl-D; a terminal forgets it if readline has not yet taken over."""
        with contextlib.suppress(OSError):
            os.write(ours, b"\x04")
        return process.poll() is not None

    wait_until(has_left)
    assert process.returncode == 0
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
