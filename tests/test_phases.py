"""Phases of long work: what the core reports, and what a terminal and a pipe show."""

import fcntl
import io
import math
import pty
import struct
import sys
import termios
from pathlib import Path

import numpy as np
import pytest
from helpers import encoded_documents, encoded_stream, engine, started, tiny_model, vocabulary_of
from rich.cells import cell_len

from charlm.cli import display as displays
from charlm.cli import progress as cli_progress
from charlm.cli.display import (
    BAR,
    DRAWN_AFTER,
    PLAIN_AFTER,
    PLAIN_GAP,
    Display,
    fitted,
    stderr_width,
)
from charlm.cli.output import Line, Verbosity
from charlm.cli.progress import validation_trend
from charlm.config.corpus import CorpusSettings, VocabularySettings
from charlm.inference import scoring
from charlm.inference.generation import READ_AT_ONCE, read_prompt
from charlm.inference.likelihood import evaluate
from charlm.inference.scoring import Scorer
from charlm.phases import Phase, advance, counted, listening, phase
from charlm.report.text import sparkline
from charlm.text.boundaries import STREAM
from charlm.text.dataset import load_dataset
from charlm.training.records import EvaluationRecord


class Recorder:
    """A listener that keeps every phase, with how many were open around it."""

    def __init__(self) -> None:
        self.all: list[tuple[int, Phase]] = []
        self.open: list[Phase] = []

    def begin(self, phase: Phase) -> None:
        self.all.append((len(self.open), phase))
        self.open.append(phase)

    def end(self, phase: Phase) -> None:
        assert self.open.pop() is phase

    @property
    def names(self) -> list[str]:
        return [phase.name for _, phase in self.all]


class Screen:
    """Display without a thread, with a clock that is set by hand and a list of what was shown."""

    def __init__(self, *, terminal: bool, width: int = 80) -> None:
        self.now, self.lines = 0.0, []
        show = self.lines.append
        self.display = Display(
            show if terminal else None, say=show, clock=lambda: self.now, width=lambda: width
        )

    def at(self, seconds: float) -> list[str]:
        """Return what is shown at a time."""
        self.now = seconds
        before = len(self.lines)
        self.display.tick()
        return self.lines[before:]


def test_the_innermost_phase_advances_and_the_listener_sees_it() -> None:
    recorder = Recorder()
    with listening(recorder), phase("outer", total=4) as outer:
        advance()
        with phase("inner", total=2) as inner:
            advance(3)
            assert inner.fraction is None  # more than was expected
        advance()
    assert outer.fraction == 0.5
    assert [(depth, one.name) for depth, one in recorder.all] == [(0, "outer"), (1, "inner")]
    assert recorder.open == []


def test_without_a_listener_or_a_phase_nothing_happens() -> None:
    advance()
    with phase("alone") as alone:
        assert list(counted(["ab", "c"])) == ["ab", "c"]
    assert (alone.fraction, alone.done) == (None, 3)


def test_a_phase_ends_with_an_error() -> None:
    recorder = Recorder()
    with pytest.raises(ValueError), listening(recorder), phase("work"):
        raise ValueError
    assert recorder.open == []


@pytest.mark.parametrize(
    ("document", "hold_out"), [("stream", "end"), ("line", "end"), ("line", "random")]
)
def test_reading_a_corpus_names_its_phases_and_comes_to_the_end_of_each(
    tmp_path: Path, document: str, hold_out: str
) -> None:
    path = tmp_path / "t.txt"
    path.write_text("".join(f"line {n % 7}\n" for n in range(500)), encoding="utf-8")
    recorder = Recorder()
    settings = CorpusSettings(sources=(str(path),), document=document, hold_out=hold_out)
    with listening(recorder):
        load_dataset(settings, VocabularySettings(unit="word"))
    repeats = "looking for repeats in the held-out text"
    last = ["building the vocabulary", "encoding the text"]
    assert recorder.names == ["reading t", repeats, *last]
    for _, one in recorder.all[-2:]:
        assert one.total and one.done == pytest.approx(one.total, rel=0.02)


@pytest.mark.parametrize("wide", [False, True])
def test_an_evaluation_advances_by_every_token_once(wide: bool) -> None:
    """Without padding, and without the pieces of a stream that are read again."""
    model = engine(tiny_model())
    if wide:
        model.max_rows = 16  # type: ignore[attr-defined]
    stream = encoded_stream(np.arange(5000) % 5)
    documents = encoded_documents([[2, 3, 1], [4] * 300 + [1], [1]])
    for text in (stream, documents):
        with phase("evaluating", total=len(text.ids)) as one:
            evaluate(model, text)
        assert one.done == one.total


def test_a_long_prompt_advances_by_every_token() -> None:
    """Sixty million characters on stdin were read for minutes without a sign of life."""
    recorder, reached = Recorder(), []
    model = engine(tiny_model())
    read = model.logits

    def logits(*given):
        reached.append(recorder.open[-1].done)
        return read(*given)

    model.logits = logits
    with listening(recorder):
        read_prompt(model, np.arange(2 * READ_AT_ONCE) % 5)
    assert reached == [0, READ_AT_ONCE, 2 * READ_AT_ONCE]
    assert [(one.name, one.done) for _, one in recorder.all] == [
        ("reading the prompt", 2 * READ_AT_ONCE + 1)
    ]


def test_distinct_texts_reach_the_end_one_part_after_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The number of tokens is not known before, but that of the texts is."""
    monkeypatch.setattr(scoring, "TEXTS_ENCODED", 4)
    monkeypatch.setattr(scoring, "TEXTS_AT_ONCE", 2)
    fractions: list[float | None] = []
    reach = scoring.reach
    monkeypatch.setattr(
        scoring, "reach", lambda part: (reach(part), fractions.append(shown.fraction))
    )
    vocabulary = vocabulary_of("abcde")
    scorer = Scorer(engine(tiny_model(vocab_size=len(vocabulary))), vocabulary, STREAM)
    with phase("scoring", unit="tokens") as shown:
        scorer.score_distinct(["a", "b", "a", "ab", "abc", "bc", "c"])
    assert fractions == pytest.approx([2 / 6, 4 / 6, 6 / 6])


def test_a_pipe_gets_a_line_for_a_long_phase_now_and_then() -> None:
    screen = Screen(terminal=False)
    one = Phase("encoding the text", total=200)
    screen.display.begin(one)
    assert screen.at(PLAIN_AFTER - 0.1) == []
    assert screen.at(PLAIN_AFTER) == ["encoding the text ..."]
    one.done = 50
    assert screen.at(PLAIN_AFTER + PLAIN_GAP - 0.1) == []
    assert screen.at(PLAIN_AFTER + PLAIN_GAP) == ["encoding the text: 25 %"]
    screen.display.end(one)
    assert screen.at(1000.0) == []


def test_a_count_is_shown_if_the_total_is_unknown() -> None:
    for terminal, expected in ((True, " reading a: 1,500 characters  0:40"), (False, "reading a:")):
        screen = Screen(terminal=terminal)
        with listening(screen.display), phase("reading a", unit="characters"):
            list(counted(["a" * 1000, "b" * 500]))
            (line,) = screen.at(40.0)
        assert line.endswith(expected) if terminal else line == "reading a: 1,500 characters"


def test_a_phase_may_have_a_line_for_logs() -> None:
    """Training in a pipe shows its step and loss."""
    screen = Screen(terminal=False)
    screen.display.begin(Phase("training", reached=0.5, line=f" 50 % step 9: {STEP}"))
    assert screen.at(100.0) == [f" 50 % step 9: {STEP}"]
    screen.display.begin(Phase("validating", reached=0.5))
    assert screen.at(200.0) == ["validating: 50 %"]


def test_a_terminal_shows_the_innermost_long_phase() -> None:
    screen = Screen(terminal=True)
    outer, inner = Phase("training", reached=0.0), Phase("validating")
    screen.display.begin(outer)
    assert screen.at(DRAWN_AFTER / 2) == []
    (first,) = screen.at(10.0)
    assert first.startswith("  0% |" + " " * BAR + "| training")
    screen.display.begin(inner)
    outer.reached = 0.25
    (second,) = screen.at(10.0 + DRAWN_AFTER / 2)
    assert second.startswith(" 25% |#####") and second.endswith("0:10, 0:31 left")
    (third,) = screen.at(12.0)
    assert third[1:] == " validating  0:02"


def test_the_time_left_counts_this_session_only() -> None:
    """The bug: minutes left were shown as seconds after a resume, as if all steps were new."""
    screen = Screen(terminal=True)
    one = Phase("training", reached=0.9)
    screen.display.begin(one)
    assert screen.at(1.0)[0].endswith("  0:01")
    one.reached = 0.91
    assert screen.at(10.0)[0].endswith("0:10, 1:30 left")


def test_quiet_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Verbosity, "level", 0)
    for terminal in (True, False):
        screen = Screen(terminal=terminal)
        screen.display.begin(Phase("reading"))
        assert screen.at(100.0) == []


STEP = "1.363 bits/char (0.945 nats)  118,462 tokens/s"


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_a_line_fits_the_terminal_and_keeps_the_time_left(width: int) -> None:
    """At 80 columns the time left was cut off, and a comma stood before the loss."""
    line = fitted(" 43% ", 0.43, STEP, "1:02:03, 1:17:10 left", width)
    assert len(line) < width and line.endswith("1:02:03, 1:17:10 left")
    assert ", 1.363" not in line
    if width >= 80:
        assert STEP in line
    if width >= 100:
        assert "|####" in line


def test_the_width_is_that_of_the_terminal_on_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    """With stdout in a pipe, as in $(charlm train), lines were 80 columns wide on any terminal."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 47, 0, 0))
    monkeypatch.delenv("COLUMNS", raising=False)
    with open(follower, "w") as terminal, open(leader, "rb"):  # noqa: PTH123
        monkeypatch.setattr(sys, "stderr", terminal)
        assert stderr_width() == 47
        monkeypatch.setenv("COLUMNS", "60")
        assert stderr_width() == 60
        monkeypatch.undo()


@pytest.mark.parametrize("name", ["reading 日本語の文章の長い長い名前", "reading a\nb\x1b[31m"])
def test_any_name_fits_on_one_line(name: str) -> None:
    """Characters of two columns are counted as such; control characters are escaped."""
    for width in (30, 40, 60):
        line = fitted("| ", 0.0, name, "0:45", width, most=0)
        assert cell_len(line) < width and line.endswith("0:45")
        assert line.isprintable()
    screen = Screen(terminal=False)
    screen.display.begin(Phase(name))
    assert all(line.isprintable() for line in screen.at(100.0))


def test_messages_replace_the_progress_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown = io.StringIO()
    Line.show(lambda text: shown.write(f"[{text}]") and None, "43 %")
    from charlm.cli.output import say

    say("a note")
    say("another")
    assert shown.getvalue() == "[43 %][]"
    assert capsys.readouterr().err == "a note\nanother\n"


def test_a_command_names_its_phases(monkeypatch: pytest.MonkeyPatch, call, tmp_path: Path) -> None:
    """Every part of a training and an evaluation that can take long has a name."""
    monkeypatch.chdir(tmp_path)
    recorder = Recorder()
    monkeypatch.setattr(displays, "Display", lambda *_: recorder)
    recorder.tick = lambda: None
    Path("a.txt").write_text("the cat sat on the mat.\n" * 60, encoding="utf-8")
    Path("b.txt").write_text("the cat sat.\n" * 5, encoding="utf-8")
    sizes = ["--layers", "1", "--hidden", "4", "--batch", "2", "--bptt", "8", "--steps", "12"]
    code, _, err = call("train", "a.txt", "--test", "b.txt", "--name", "m", *sizes)
    assert code == 0, err
    trained = recorder.names
    for name in (
        "loading PyTorch", "reading a", "reading b", "building the vocabulary",
        "encoding the text", "planning", "writing the encoded text", "training", "validating",
        "saving a checkpoint", "calibrating", "evaluating the test text",
        "checking what was memorised",
    ):  # fmt: skip
        assert name in trained
    recorder.all.clear()
    assert call("eval", "--run", "m", "--cache", "10", "--dynamic", "--temperature")[0] == 0
    for name in (
        "evaluating: valid", "choosing the weight of the cache", "evaluating: valid, cache",
        "measuring gradients", "choosing the rate of dynamic evaluation", "fitting the temperature",
        "evaluating: test, dynamic",
    ):  # fmt: skip
        assert name in recorder.names


@pytest.mark.parametrize(
    "options", [["x.txt"], ["--valid", "x.txt"], ["--vocab", "x.json"], ["x.txt", "--plan"]]
)
def test_missing_files_are_reported_before_pytorch_is_loaded(
    options: list[str], monkeypatch: pytest.MonkeyPatch, call
) -> None:
    recorder = Recorder()
    monkeypatch.setattr(displays, "Display", lambda *_: recorder)
    recorder.tick = lambda: None
    code, _, err = call("train", *options)
    assert (code, "does not exist" in err) == (3 + ("x.json" in options), True)
    assert "loading PyTorch" not in recorder.names


def test_a_wide_terminal_shows_the_trend_of_the_validations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind the newest step of a training; a log has no such trend."""
    assert validation_trend([3.0, math.nan, 2.0, math.inf, 1.0], 100) == "  validation █ ▅ ▁"
    assert validation_trend([2.0, 1.0], 99) == "" == validation_trend([2.0], 100)
    monkeypatch.setattr(cli_progress, "stderr_width", lambda: 120)
    session, recorder = started(tmp_path, steps=40, evals=4, ngram=0), Recorder()
    details, lines = [], []
    with listening(recorder), cli_progress._progress(session) as show:
        training = next(one for one in recorder.all if one[1].name == "training")[1]
        for record in session.records():
            show(record)
            details.append(training.detail)
            lines.append(training.line)
            if isinstance(record, EvaluationRecord) and record.progress < 1.0:
                assert not training.line  # a step before it would be shown after it
    nats = session.trainer.counters.validation_nats
    newest = [detail for detail in details if detail != "completing the run"][-1]
    assert newest.endswith(f"tokens/s  validation {sparkline(nats)}")
    assert len(nats) == 4 and not any("validation" in line for line in lines)
    assert lines[-1] == "completing the run ..."  # and not the last step again
