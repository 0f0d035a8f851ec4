"""Messages about wrong command lines: what was typed, what was expected, what to do."""

from pathlib import Path

import pytest
from helpers import Call

import charlm
from charlm.cli import app
from charlm.cli.frame import joined_lines
from charlm.errors import UsageError
from charlm.units import count_of

pytestmark = pytest.mark.usefixtures("here")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("sample --n 0", "--n is '0'; expected a whole number of at least 1. See: charlm sample"),
        ("sample --temperature x", "--temperature is 'x'; expected a number. See: charlm sample"),
        ("search --minutes 0", "--minutes is '0'; expected a number of at least 0.001. See"),
        ("sample --prime", "--prime needs a value after it. See: charlm sample --help"),
        (
            "vectors nearest a --top",
            "--top needs a value after it. See: charlm vectors nearest --help",
        ),
        ("sample - --run my", "use: charlm sample --prime - --run my"),
        ("eval x.txt --run my", "use: charlm eval --file x.txt --run my"),
        ("explain a", "text is 'a'; expected two letters or more"),
        ("gradients --compare rnn,lstn", "--compare is 'lstn'; expected one of rnn, lstm, gru"),
        ("gradients --compare rnn,", "--compare is ''; expected one of rnn, lstm, gru"),
        ("explain ab --cell esn", "--cell is 'esn'; expected one of rnn, lstm, gru"),
        ("--colour", "there is no option --colour. See: charlm --help"),
        ("--run my sample", "before the command; put it after: charlm COMMAND --run. See"),
        ("train --lr 1", "there is no option --lr; did you mean --learning-rate? See"),
        ("sample --temp 1", "there is no option --temp; did you mean --temperature? See"),
        ("trian", "there is no command 'trian'; did you mean 'train'? See: charlm --help"),
        ("generate", "there is no command 'generate'; did you mean 'sample'? See"),
        ("runs remove a", "there is no command 'remove'; did you mean 'rm'? See: charlm runs"),
        ("export my", "did you mean 'ngram export' or 'runs export' or 'vectors export'? See"),
        ("delete my", "there is no command 'delete'; did you mean 'runs rm'? See"),
        ("nearest a", "there is no command 'nearest'; did you mean 'vectors nearest'? See"),
        ("score a --json", "there is no option --json; did you mean --format jsonl? See"),
        ("vectors good", "no command 'good'; did you mean 'charlm vectors nearest good'? See"),
        ("vectors nearst", "there is no command 'nearst'; did you mean 'nearest'? See"),
        ("runs good", "there is no command 'good'. See: charlm runs --help"),
        ("help", "there is no command 'help'. See: charlm --help"),
        ("compare", "RUNS is missing. See: charlm compare --help"),
        ("train x.txt --cell LSTM", "esn (did you mean 'lstm'?)"),
        ("settings lr", "setting 'lr' is not known; did you mean 'learning_rate'?"),
        ("sample --temperature -1", "--temperature is -1; expected at least 0"),
        ("sample --top-p 2", "--top-p is 2; expected more than 0 and at most 1"),
        ("train x.txt --unit words", "--unit is 'words'; expected one of char"),
        ("train x.txt --hidden 0", "--hidden is 0; expected at least 1"),
        ("train x.txt --hidden 8 --set hidden_size=9", "--hidden was given by --set too; give it"),
        ("train x.txt --set hidden_size=0", "charlm: hidden_size is 0; expected"),
        ("train x.txt --set skip=maybe", "charlm: skip is 'maybe'; expected true or false"),
        ("sample --run tales --engine gpu", "--engine is 'gpu'; expected one of auto, native, num"),
        ("train x.txt --device gpu", "cuda, mps (did you mean 'cuda'?)"),
        ("train x.txt --cell lstn", "esn (did you mean 'lstm'?)"),
        ("train x.txt --stateless --set random_bptt=true", "random_bptt with --stateless, whose"),
        ("train x.txt --tie --embedding one-hot", "--tie with --embedding one-hot, which has no"),
        ("search --knobs= x.txt", "--knobs is empty; expected some of num_layers"),
        ("search x.txt --knobs seed", "--knobs has an unknown setting 'seed'; expected some of"),
        ("search x.txt --knobs bptt,dropout --set dropout=0", "--set dropout fixes a setting that"),
        ("train x.txt --continue", "--continue has no effect without --name. Add --name, or"),
        ("train x.txt --minutes 1 --epochs 3", "--epochs and --minutes were given; expected one"),
    ],
)
def test_a_wrong_value_is_named_with_its_flag(words: str, problem: str, call: Call) -> None:
    """The message has the typed flag and value, the allowed values, and one command."""
    status, out, err = call(*words.split())
    assert (status, out) == (2, "")
    assert problem in err


@pytest.mark.parametrize(
    ("texts", "hint"),
    [
        (["a.txt"], "to score the lines of this file: charlm score --file a.txt"),
        (["she", "read", "it"], "3 texts are scored; put a sentence into quotes"),
        (["she read it", "she red it", "x"], ""),
    ],
)
def test_score_points_out_a_file_name_and_a_missing_quote(texts, hint: str, call: Call) -> None:
    Path("a.txt").write_text("a\n", encoding="utf-8")
    status, _, err = call("score", *texts, "--run", "tales")
    assert status == 0
    assert hint in err
    assert ("scored as a sentence" in err or "into quotes" in err) == bool(hint)


def test_a_file_in_place_of_a_command_is_trained_on(call: Call) -> None:
    """`charlm my.txt` is what someone types who has read no manual."""
    Path("my.txt").write_text("to be\n", encoding="utf-8")
    status, _, err = call("my.txt")
    assert status == 2
    assert "'my.txt' is a file, not a command; did you mean 'charlm train my.txt'?" in err


def test_a_text_in_place_of_a_command_is_no_file(call: Call) -> None:
    """The story: a text longer than the name of a file may be ended with a traceback."""
    text = "what comes next " * 20
    assert call(text)[::2] == (2, f"charlm: there is no command {text!r}. See: charlm --help\n")


def test_messages_use_the_spelling_of_the_user(call: Call) -> None:
    """An alias appears as typed; names in a file and keywords of the library stay names."""
    for flag in ("--valid-frac", "--valid-fraction"):
        assert f"{flag} is 7; expected" in call("train", "x.txt", flag, "7")[2]
    Path("my.toml").write_text("[model]\nhidden_size = 0\n", encoding="utf-8")
    _, _, err = call("train", "x.txt", "--config", "my.toml", "--hidden", "3")
    assert "my.toml: hidden_size is 0; expected at least 1" in err
    for name in ("hidden", "hidden_size"):
        with pytest.raises(UsageError, match=f"^{name} is 0; expected at least 1"):
            charlm.train("x.txt", **{name: 0})


def test_advice_names_the_flags_of_settings(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that were not typed too; a typed alias appears as typed."""
    monkeypatch.chdir(tmp_path)
    Path("x.txt").write_text("a b\n" * 50, encoding="utf-8")
    for words, advice in (
        ("--hold-out random", "Name their unit with --document line"),
        ("--column 2", "or add --input-format"),
        ("--valid x.txt --valid-frac 0.2", "--valid-frac 0.2 has no effect with --valid x.txt"),
    ):
        assert advice in call("train", "x.txt", *words.split())[2]


def test_a_flag_and_its_alias_are_one_setting(call: Call) -> None:
    """Both together are refused."""
    _, _, err = call("train", "x.txt", "--valid-frac", "0.1", "--valid-fraction", "0.2")
    assert "--valid-fraction and --valid-frac are names of one setting" in err


def test_paragraphs_of_help_wrap_at_any_width() -> None:
    """Lines of the source are joined; a blank line separates paragraphs."""
    assert joined_lines("One\ntwo.\n\nThree\nfour.") == "One two.\n\nThree four."
    for one in app.registered_commands:
        paragraphs = (one.callback.__doc__ or "").split("\n\n") if one.callback else []
        assert paragraphs and not any("\n" in paragraph.strip() for paragraph in paragraphs)


def test_a_run_may_follow_resume(call: Call) -> None:
    """`--resume` takes no text, so an argument beside it is the run."""
    status, _, err = call("train", "--resume", "nothing")
    assert status == 4
    assert "no run 'nothing'" in err


def test_advice_for_stdin_repeats_the_command(call: Call) -> None:
    """The advice is the typed command with the missing words."""
    status, _, err = call("sample", "--run", "tales", "--len", "5", stdin=b"Once upon")
    assert status == 2
    assert "Start from it with: charlm sample --run tales --len 5 --prime -, or" in err


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("train x.txt --seed -1", "--seed is -1; expected at least 0\n"),
        ("train x.txt --steps 0", "--steps is 0; expected at least 1\n"),
        ("train x.txt --steps 3000000000", "expected at least 1 and at most 2,147,483,648\n"),
        ("train x.txt --mos 0", "--mos is 0; expected at least 1 and at most 256\n"),
    ],
)
def test_a_huge_bound_is_named_only_if_it_is_exceeded(words: str, problem: str, call: Call) -> None:
    """No `at most 9.22337e+18` beside a seed of -1."""
    assert call(*words.split())[2].endswith(problem)


@pytest.mark.parametrize("flag", ["--stop", "--separator"])
def test_an_escape_that_is_taken_literally_is_reported(flag: str, call: Call) -> None:
    """A shell passes a backslash and an n; the warning says how to write a line end."""
    words = ["sample", "--run", "tales", "--len", "3", "--seed", "1", "--n", "2", flag]
    assert rf"{flag} '\\n--' is taken literally" in call(*words, r"\n--")[2]
    assert r"use $'\n--' in bash" in call(*words, r"\n--")[2]
    assert "literally" not in call(*words, "\n--")[2]


def test_numbers_and_nouns_agree() -> None:
    """One step, two steps."""
    assert [count_of(n, "step") for n in (0, 1, 2000)] == ["0 steps", "1 step", "2,000 steps"]


def test_tables_have_no_blanks_at_the_ends_of_lines(call: Call) -> None:
    """They would be in the way in a pipe or a copied block."""
    _, out, _ = call("next", "--run", "tales", "--top", "3", "the ")
    assert out and not any(line.endswith(" ") for line in out.splitlines())
