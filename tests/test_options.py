"""Options of settings: the same for every command that reads a text."""

import inspect

import pytest

from charlm.cli import app, evaluate, inside, sample
from charlm.cli.options import reading_flags, reading_settings, typed_values
from charlm.config.corpus import CorpusSettings, ReadSettings
from charlm.errors import UsageError
from charlm.text.corpus import Corpus

COMMANDS = {
    command.name: command.callback for command in app.registered_commands if command.callback
}


@pytest.mark.parametrize(
    "name", ["train", "eval", "score", "compare", "vocab", "search", "gradients"]
)
def test_every_command_that_reads_texts_takes_the_same_options(name: str) -> None:
    """There is one for each field of `ReadSettings`."""
    parameters = inspect.signature(COMMANDS[name]).parameters
    for field in reading_settings():
        assert parameters[field].default is None and "reading" not in parameters


def test_messages_name_the_flags_that_were_typed() -> None:
    """A flag with two forms appears in the typed form."""
    reading = {"column": "a b", "encoding": "cp1252", "header": False}
    assert reading_flags(reading) == {"--column", "--encoding", "--no-header"}
    assert reading_flags({"header": True}) == {"--header"}


def test_settings_are_rules_for_reading(tmp_path) -> None:
    """A corpus takes all of them, or single fields by name; wrong values are refused."""
    (tmp_path / "a.txt").write_bytes(b"\x93x\x94")
    settings = CorpusSettings(encoding="cp1252", sources=("a",))
    for options in ({"reading": settings}, {"encoding": "cp1252"}):
        assert "".join(Corpus([str(tmp_path / "a.txt")], **options).chunks()) == "“x”"
    with pytest.raises(UsageError, match="errors is 'ignore'; expected one of strict, replace"):
        ReadSettings(errors="ignore")


def test_flags_are_typed_unless_they_have_their_default() -> None:
    """Also a switch that was turned off, and the flags of every group name an option."""
    asked = sample.Asked(top_k=3, until_eos=False, weights="fp32", match="")
    assert typed_values(asked, *sample.OF_TEXT) == {"--top-k": 3, "--until-eos": False}
    assert typed_values(sample.Asked(), *sample.OF_TEXT) == {}
    form = evaluate.Asked(reading={}, reset=True, with_=["x"])
    assert typed_values(form, *evaluate.UNCONDITIONED) == {"--reset": True, "--with": ["x"]}
    assert list(typed_values(form, *evaluate.OF_MODELS)) == ["--reset"]
    assert typed_values(inside.Asked(top=2), *inside.VIEWS) == {"--top": 2}
