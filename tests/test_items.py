"""Items: whole documents that pass rules, and separators between samples."""

import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import Call, engine, tiny_model, vocabulary_of
from hypothesis import given
from hypothesis import strategies as st

import charlm
from charlm.errors import CharlmError, RunError, UsageError
from charlm.inference.generation import Piece, generate
from charlm.inference.items import Items, Rules
from charlm.phases import Phase, listening
from charlm.runs.known import known_documents
from charlm.text.tokenizers.tokenizer_json import EOS

NAMES = ["ab", "abc", "ba", "bab", "cab", "cc", "aab", "bca", "acb", "cba"] * 3
Draw = Any


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny runs of lines, of paragraphs and of one stream."""
    folder = tmp_path_factory.mktemp("runs")
    names = "".join(f"{name}\n" for name in NAMES)
    settings = {"hidden_size": 4, "embedding_size": 3, "num_layers": 1, "batch_size": 2, "bptt": 4,
                "threads": 1, "seed": 1, "device": "cpu", "steps": 8}  # fmt: skip
    for name in ("line", "paragraph", "stream"):
        text = names.replace("\n", "\n\n") if name == "paragraph" else names
        list(charlm.train(text=text, name=name, checkpoints=folder, document=name, **settings))
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path: Path, runs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder; the tiny runs are the ones that commands find."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHARLM_CHECKPOINTS", str(runs))
    monkeypatch.delenv("CHARLM_RUN", raising=False)
    return tmp_path


# The search for items


def generator_of(texts: list[str], *, length: int = 9) -> Draw:
    """Return a generator whose attempts give these texts in turn, each ended if it fits."""

    def draw(first: int, samples: int) -> Iterator[Piece]:
        for step in range(length):
            for number in range(samples):
                text = texts[(first + number) % len(texts)]
                if step < len(text):
                    yield Piece(sample=number, text=text[step], tokens=1, nats=1.0, id=5)
                elif step == len(text):
                    yield Piece(sample=number, text="", tokens=1, nats=0.5, id=EOS)

    return draw


def items_of(texts: list[str], count: int, **options: Any) -> Items:
    """Return the search over texts that are generated in turn."""
    limit = options.pop("limit", None)
    rules = Rules(**options)
    return Items(generate=generator_of(texts), count=count, length=9, rules=rules, limit=limit)


words = st.lists(st.text("abc", max_size=4), min_size=1, max_size=12)


@given(words, st.integers(1, 30), st.booleans(), st.integers(0, 3))
def test_items_equal_a_plain_loop(texts: list[str], count: int, unique: bool, min_len: int) -> None:
    limit, expected = 40, []
    for attempt in range(limit):
        text = texts[attempt % len(texts)]
        if len(text) >= min_len and not (unique and text in [t for t, _ in expected]):
            expected.append((text, attempt))
    items = items_of(texts, count, unique=unique, min_len=min_len, limit=limit)
    if len(expected) < count:
        kept = []
        with pytest.raises(RunError, match=f"{len(expected)} of {count} items"):
            kept += [(item.text, item.attempt) for item in items]
        assert (items.kept, items.attempts) == (len(expected), limit)
        assert items.kept + sum(items.rejected.values()) == limit
        return
    assert [(item.text, item.attempt) for item in items] == expected[:count]
    assert items.attempts == expected[count - 1][1] + 1
    assert items.kept + sum(items.rejected.values()) == items.attempts


def test_each_rule_rejects_and_counts_its_own_items() -> None:
    items = items_of(
        ["a", "abcd", "bbb", "abb", "abc", "abc", "aba"], 2, unique=True, min_len=2, max_len=3,
        match="^a", is_known=lambda text: text == "abb",
    )  # fmt: skip
    assert [item.text for item in items] == ["abc", "aba"]
    assert items.rejected == {
        "shorter than --min-len": 1, "longer than --max-len": 1, "without a match": 1,
        "in the training text": 1, "repeated": 1,
    }  # fmt: skip


def test_rules_apply_to_the_item_with_its_prompt() -> None:
    """A backward model has the prompt at the end."""
    for backward, whole in ((False, "yza"), (True, "ayz")):
        rules = Rules(match=f"^{whole}$", min_len=3, max_len=3)
        options = {"prompt": "yz", "backward": backward, "rules": rules}
        items = Items(generate=generator_of(["a"]), count=1, length=9, **options)
        assert [(item.text, item.whole) for item in items] == [("a", whole)]


def test_an_item_that_does_not_end_is_cut() -> None:
    """Its nats and tokens are those of all its pieces."""
    items = Items(generate=generator_of(["abcdefghij", "ab"]), count=2, length=9)
    cut, whole = items
    assert (cut.text, cut.tokens, cut.nats, cut.cut) == ("abcdefghi", 9, 9.0, True)
    assert (whole.text, whole.tokens, whole.nats, whole.cut) == ("ab", 3, 2.5, False)
    assert items.cut == 1


def test_the_search_for_items_is_a_phase_that_counts_attempts() -> None:
    """It is closed while an item is used."""
    open_phases: list[Phase] = []
    counts: list[float] = []

    class Listener:
        def begin(self, phase: Phase) -> None:
            open_phases.append(phase)

        def end(self, phase: Phase) -> None:
            counts.append(open_phases.pop().done)

    with listening(Listener()):
        for _ in items_of(["a", "b", "ab"], 3, match="a.", limit=30):
            assert not open_phases
    assert sum(counts) >= 9


@pytest.mark.parametrize(
    ("rules", "message"),
    [({"match": "("}, "regular expression"), ({"min_len": 3, "max_len": 2}, "--max-len"),
     ({"min_len": -1}, "--min-len is -1")],
)  # fmt: skip
def test_invalid_rules_are_refused(rules: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Rules(**rules)


def test_samples_can_be_generated_from_a_later_number() -> None:
    """`first` skips samples."""
    model, vocabulary = engine(tiny_model(scale=4.0)), vocabulary_of("abc")
    options: dict[str, Any] = {"length": 12, "seed": 3}

    def texts(first: int, samples: int) -> list[str]:
        pieces = list(generate(model, vocabulary, samples=samples, first=first, **options))
        return ["".join(p.text for p in pieces if p.sample == n) for n in range(samples)]

    assert texts(0, 5) == [*texts(0, 2), *texts(2, 3)]
    assert len(set(texts(0, 5))) == 5


# Documents of the run


@pytest.mark.parametrize("settings", [
    {"unit": "char"}, {"unit": "byte"}, {"unit": "word"}, {"unit": "bpe", "max_size": 270},
    {"unit": "char", "lowercase": True}, {"unit": "char", "direction": "backward"},
    {"unit": "word", "words": "whitespace"}, {"unit": "char", "document": "paragraph"},
])  # fmt: skip
def test_documents_of_the_training_text_are_known(settings: dict[str, Any], here: Path) -> None:
    """Held-out documents are known too, parts of documents are not."""
    names = [f"{a}{b} {c}" for a, b, c in itertools.product("aB", "bé", "cdefghij")]
    end = "\n\n" if settings.get("document") == "paragraph" else "\n"
    given = {"document": "line", "steps": 1, "hidden_size": 4, "embedding_size": 3, "seed": 1,
             "num_layers": 1, "batch_size": 2, "bptt": 4, "threads": 1} | settings  # fmt: skip
    list(charlm.train(text=end.join(names) + end, name="r", checkpoints=here, **given))
    model = charlm.load(here / "r")
    is_known = known_documents(model.run)
    assert all(is_known(name) for name in names)
    if settings.get("lowercase"):
        assert is_known("Ab c")
    assert not any(is_known(text) for text in ("ab", "ab c ab c", "ca b", "c"))


def test_a_run_without_its_text_reads_the_sources_again(here: Path) -> None:
    (here / "names.txt").write_text("".join(f"{name}\n" for name in NAMES))
    settings = {"hidden_size": 4, "num_layers": 1, "steps": 1, "seed": 1, "threads": 1}
    list(charlm.train("names.txt", document="line", name="r", checkpoints=here, **settings))
    shutil.rmtree(here / "r/data")
    assert known_documents(charlm.load(here / "r").run)("abc")
    (here / "names.txt").unlink()
    with pytest.raises(CharlmError, match="is not there"):
        known_documents(charlm.load(here / "r").run)


# The command


def test_a_model_of_lines_prints_one_item_per_line(call: Call, runs: Path) -> None:
    """They are the items of the library."""
    status, out, _ = call("sample", "line", "--n", "5", "--seed", "1")
    assert status == 0
    items = list(charlm.load(runs / "line").items(5, seed=1))
    assert out == "".join(f"{item.text}\n" for item in items)
    assert call("sample", "line", "--n", "2", "--seed", "1")[1] == out[: len(out) - sum(
        len(item.text) + 1 for item in items[2:]
    )]  # fmt: skip
    plain = call("sample", "line", "--no-until-eos", "--seed", "1", "--len", "40")[1]
    assert plain.startswith(items[0].text + "\n")


def test_filters_apply_to_every_item_and_attempts_are_reported(call: Call) -> None:
    flags = ["--unique", "--new", "--match", "^a", "--min-len", "2", "--max-len", "9"]
    status, out, err = call("sample", "line", "--n", "8", "--seed", "1", *flags)
    assert status == 0
    lines = out.splitlines()
    assert len(set(lines)) == 8
    assert not set(lines) & set(NAMES)
    assert all(line.startswith("a") and 2 <= len(line) <= 9 for line in lines)
    output = call("sample", "line", "--n", "8", "--seed", "1", "--json", *flags)[1].splitlines()
    records = [json.loads(line) for line in output]
    assert [record["text"] for record in records] == lines
    assert [record["sample"] for record in records] == list(range(8))
    assert all(record["log_probability"] <= 0 for record in records)
    assert f"8 items in {records[-1]['attempt'] + 1} attempts (" in err


def test_too_few_items_are_an_error_after_the_items_found(call: Call) -> None:
    """The message says how many were rejected and why."""
    status, out, err = call(
        "sample", "line", "--temperature", "0", "--n", "3", "--unique", "--attempts", "7"
    )
    assert status == 4
    assert len(out.splitlines()) == 1
    assert "1 of 3 items were found in 7 attempts (6 repeated)" in err
    assert "--attempts" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["stream", "--unique"], "--unique is for items"),
        (["stream", "--new"], "--document line"),
        (["paragraph", "--match", "a"], "expected --until-eos"),
        (["line", "--no-until-eos", "--min-len", "2"], "but --no-until-eos was given"),
        (["line", "--attempts", "5"], "--attempts has no effect"),
        (["line", "--print0", "--separator", "x"], "--print0 and --separator"),
        (["line", "--json", "--print0"], "--json"),
        (["line", "--json", "--separator", "x"], "--json"),
        (["line", "--min-len", "3", "--max-len", "2"], "--max-len"),
    ],
)
def test_options_without_effect_are_refused(arguments: list[str], message: str, call: Call) -> None:
    """The message names the option that they need."""
    status, out, err = call("sample", *arguments, "--seed", "1")
    assert (status, out) == (2, "")
    assert message in err


@pytest.mark.parametrize("run", ["line", "paragraph", "stream"])
def test_samples_can_be_separated_again(run: str, call: Call, runs: Path) -> None:
    model = charlm.load(runs / run)
    flags = ["sample", run, "--n", "3", "--seed", "1", "--len", "20"]
    if run == "line":
        texts = [item.text for item in model.items(3, seed=1, length=20)]
    else:
        pieces = list(model.generate(20, samples=3, seed=1))
        texts = ["".join(p.text for p in pieces if p.sample == number) for number in range(3)]
    assert call(*flags, "--separator", "<|>")[1].split("<|>") == texts
    assert call(*flags, "--print0")[1].split("\0") == [*texts, ""]
    end = "\n" if run == "line" else "\n\n"
    shown = [text.removesuffix("\n") for text in texts]
    assert call(*flags)[1] == end.join(shown) + "\n"


def test_rules_apply_to_paragraphs_with_until_eos(call: Call) -> None:
    status, out, _ = call(
        "sample", "paragraph", "--until-eos", "--n", "3", "--unique", "--new", "--seed", "1"
    )
    assert status == 0
    paragraphs = out.removesuffix("\n").split("\n\n")
    assert len(set(paragraphs)) == 3
    assert not set(paragraphs) & set(NAMES)


def test_an_item_that_was_cut_is_reported(call: Call) -> None:
    err = call("sample", "line", "--n", "4", "--len", "1", "--seed", "1")[2]
    assert "cut at 1 token; allow more with --len" in err


@pytest.mark.parametrize(
    ("words", "document", "start"),
    [("", "line", "ba"), ("", "paragraph", "ab\nba"), ("text", "line", "ba"),
     ("text", "paragraph", "ab\nba"), ("whitespace", "paragraph", "ba"),
     ("whitespace", "stream", "ba")],
)  # fmt: skip
def test_an_item_includes_the_open_document_of_its_prompt(
    words: str, document: str, start: str, here: Path
) -> None:
    """The last line or paragraph; the last line if line ends are EOS."""
    settings = {"hidden_size": 4, "num_layers": 1, "steps": 1, "seed": 1, "threads": 1}
    text = "ab\n\nba\nab\n\n" * 20
    cut = {"unit": "word", "words": words} if words else {"unit": "char"}
    list(charlm.train(text=text, document=document, name="r", checkpoints=here, **cut, **settings))
    (item,) = charlm.load(here / "r").items(1, prompt="cc\n\nab\nba", seed=1, length=9)
    assert item.whole == start + item.text


def test_items_need_a_model_with_ends(runs: Path) -> None:
    with pytest.raises(UsageError, match="--document line"):
        charlm.load(runs / "stream").items(2)
    with pytest.raises(UsageError, match="count is 0"):
        charlm.load(runs / "line").items(0)
