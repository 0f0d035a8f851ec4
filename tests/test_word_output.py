"""Words in the output of `charlm score` and in the library: columns, rule, contexts, tables."""

import io
import json
import math
from pathlib import Path

import pandas
import pytest
from helpers import Call
from hypothesis import given, settings
from hypothesis import strategies as st

import charlm
from charlm.errors import UsageError
from charlm.inference.scores import Score
from charlm.inference.words import WordRule, WordScore
from charlm.report.formats import FORMATS, ScoredRow
from charlm.report.scores import word_table
from charlm.units import Tally

COLUMNS = [
    "sentence_id", "word_id", "word", "surprisal_base_e", "gap_base_e", "tokens", "oov", "start",
    "end", "word_rule",
]  # fmt: skip
WORDS = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Z"]), min_size=1, max_size=5
)
TABLE = "item\tbefore\ttext\n7\tab ca\tabc abd\n8\tca\t\n9\tabc\tab\n"


def scored(words: list[str]) -> Score:
    """Return a score with words that cost 1 nat, and their gaps 0.5."""
    parts = tuple(
        WordScore(word, 1.0, 0.5, len(word), at % 2 == 1, at, at + 1)
        for at, word in enumerate(words)
    )
    return Score(text=" ".join(words), tally=Tally(nats=2.0, tokens=2), words=parts)


@pytest.mark.parametrize(("name", "separator"), [("tsv", "\t"), ("csv", ",")])
@given(texts=st.lists(st.lists(WORDS, max_size=3), min_size=1, max_size=4), cell=WORDS)
@settings(max_examples=60)
def test_pandas_reads_each_word_back(
    name: str, separator: str, texts: list[list[str]], cell: str
) -> None:
    """A row for each word, and one for a text without words: its gap is all of the text."""
    writer = FORMATS[name](by="word", word_rule=WordRule(boundary="leading"), kept=["item"])
    rows = [
        ScoredRow(number=at, score=scored(words), kept={"item": cell})
        for at, words in enumerate(texts, start=1)
    ]
    data = (writer.header() + "".join(map(writer.lines, rows))).encode()
    default = pandas.read_csv(io.BytesIO(data), sep=separator)
    assert default.columns.tolist() == [*COLUMNS, "item"]
    expected = [(at, word) for at, words in enumerate(texts, start=1) for word in words or [""]]
    assert default.sentence_id.tolist() == [at for at, _ in expected]
    exact = pandas.read_csv(
        io.BytesIO(data), sep=separator, dtype={"word": str, "item": str}, keep_default_na=False
    )
    assert exact.word.tolist() == [word for _, word in expected]
    assert set(exact.item) == {cell}
    assert set(default.word_rule) == {"leading blank"}
    assert default.gap_base_e.tolist() == [0.5 if word else 2.0 for _, word in expected]


@pytest.mark.parametrize("name", ["lines", "stream"])
def test_the_entropy_of_a_word_is_that_of_all_tokens_before_it(runs: Path, name: str) -> None:
    """Before the first letter of each word; the surprisals are those without the entropies."""
    model = charlm.load(runs / name)
    text = "abc abd ca ab"
    words = model.words(text, entropy=True)
    for word, plain in zip(words, model.words(text), strict=True):
        following = model.next(text[: word.start], top=len(model.vocabulary))
        chances = [each.probability for each in following if each.probability]
        expected = -sum(chance * math.log(chance) for chance in chances)
        assert word.entropy == pytest.approx(expected, abs=1e-6)
        assert word._replace(entropy=None) == plain
    assert words.to_pandas().entropy.tolist() == [word.entropy for word in words]
    assert "entropy" not in model.words(text).rows()[0]
    (score,) = model.score([text], by="token", entropy=True)
    assert [token.entropy for token in score.tokens][4] == pytest.approx(words[1].entropy)
    with pytest.raises(UsageError, match="entropy with by='text'"):
        model.score(text, entropy=True)


@pytest.mark.parametrize("by", ["word", "token"])
def test_the_entropy_has_a_column_in_every_format(call: Call, runs: Path, by: str) -> None:
    """In the base of the output, beside the surprisal, which does not change."""
    flags = ("score", "--by", by, "--entropy", "--log-base", "2", "--format")
    model = charlm.load(runs / "stream")
    score = model.score("abc ab", by=by, entropy=True)[0]
    expected = [part.entropy / math.log(2) for part in (score.words or score.tokens)]
    for name, separator in (("tsv", "\t"), ("csv", ",")):
        _, out, _ = call(*flags, name, "abc ab")
        table = pandas.read_csv(io.StringIO(out), sep=separator)
        assert table.columns.tolist()[3:5] == ["surprisal_base_2", "entropy_base_2"]
        assert table.entropy_base_2.tolist() == pytest.approx(expected, abs=1e-6)
    _, out, _ = call(*flags, "jsonl", "abc ab")
    parts = json.loads(out)[f"{by}_scores"]
    assert [part["entropy"] for part in parts] == pytest.approx(expected)
    _, out, _ = call(*flags, "table", "abc ab")
    assert "entropy" in out and f"{expected[-1]:.3f}" in out
    writer = FORMATS["csv"](by=by, entropy=True)
    missing = writer.lines(ScoredRow(number=4, score=None))
    assert missing.count(",") == writer.header().count(",")


@pytest.mark.parametrize("flags", [(), ("--by", "text"), ("--by", "word", "--format", "srilm")])
def test_an_entropy_without_its_column_is_refused(
    call: Call, runs: Path, flags: tuple[str, ...]
) -> None:
    code, _, err = call("score", "--entropy", *flags, "abc")
    assert code == 2 and "--entropy" in err


def test_a_row_without_text_has_an_empty_row() -> None:
    writer = FORMATS["csv"](by="word")
    assert writer.lines(ScoredRow(number=4, score=None)) == "4,,,,,,,,,\n"


def test_a_table_of_words_fits_a_terminal() -> None:
    """Long words are cut, unknown ones marked; the rule is in the header."""
    from rich.console import Console

    console = Console(width=80, file=io.StringIO())
    console.print(word_table(scored(["a", "b" * 90]), "2", WordRule()))
    lines = console.file.getvalue().splitlines()
    assert "bits" in lines[0]
    assert "(trailing blank)" in lines[0]
    assert max(map(len, lines)) <= 80
    assert "b… (UNK)" in lines[2]
    assert "1.443" in lines[1]
    assert "█" in lines[1]


def test_a_text_without_words_has_no_table_of_words(call: Call, runs: Path) -> None:
    _, out, _ = call("score", "--by", "word", "--format", "table", "  ")
    assert "ln P" in out and "surprisal" not in out


def test_words_of_lines_of_a_file(call: Call, runs: Path) -> None:
    """The sum of surprisals and gaps is that of the sentence; stderr states the rule."""
    Path("lines.txt").write_text("abc abd\n\n ab  ca \n")
    status, out, err = call("score", "--run", "lines", "--file", "lines.txt", "--by", "word")
    assert status == 0
    assert "Surprisals include that the word ends (--boundary trailing" in err
    table = pandas.read_csv(io.StringIO(out), sep="\t")
    assert table.columns.tolist() == COLUMNS
    sums = table.groupby("sentence_id")[["surprisal_base_e", "gap_base_e"]].sum().sum(axis=1)
    scores = charlm.load(runs / "lines").score(["abc abd", "", " ab  ca "])
    assert sums.tolist() == pytest.approx([-score.log_probability for score in scores], abs=1e-5)
    assert table.word.dropna().tolist() == ["abc", "abd", "ab", "ca"]
    _, out, _ = call(
        "score", "--run", "lines", "--file", "lines.txt", "--by=word", "--format=jsonl"
    )
    items = [json.loads(line) for line in out.splitlines()]
    assert [item["word_rule"] for item in items] == ["trailing blank"] * 3
    assert [len(item["word_scores"]) for item in items] == [2, 0, 2]
    assert set(items[0]["word_scores"][0]) == {
        "word", "surprisal", "gap", "tokens", "oov", "start", "end"
    }  # fmt: skip


def test_the_columns_of_a_table_go_out(call: Call, runs: Path) -> None:
    """With a row for each word; --keep chooses."""
    Path("items.tsv").write_text(TABLE)
    source = ("score", "--file", "items.tsv", "--column", "text", "--by", "word", "--format", "tsv")
    table = pandas.read_csv(io.StringIO(call(*source)[1]), sep="\t")
    assert table.columns.tolist() == [*COLUMNS, "item", "before"]
    assert table.item.tolist() == [7, 7, 8, 9]
    kept = pandas.read_csv(io.StringIO(call(*source, "--keep", "item")[1]), sep="\t")
    assert kept.columns.tolist() == [*COLUMNS, "item"]


@pytest.mark.parametrize("by", ["text", "word", "token"])
def test_contexts_come_from_a_flag_or_a_column(by: str, call: Call, runs: Path) -> None:
    """Equal to those of the library."""
    Path("items.tsv").write_text(TABLE)
    source = ("score", "--run", "stream", "--file", "items.tsv", "--column", "text")
    source = (*source, "--by", by, "--format", "jsonl")
    model = charlm.load(runs / "stream")
    texts = ["abc abd", "ab"]
    for flag, value, context in (
        ("--context-column", "before", ["ab ca", "abc"]),
        ("--context", "ca ab", "ca ab"),
    ):
        status, out, _ = call(*source, flag, value)
        assert status == 0
        first, empty, last = [json.loads(line) for line in out.splitlines()]
        scores = model.score(texts, by=by, context=context)
        expected = [score.log_probability for score in scores]
        assert [first["log_probability"], last["log_probability"]] == pytest.approx(expected)
        assert empty["log_probability"] is None
    assert expected != [score.log_probability for score in model.score(texts)]


def test_a_context_of_another_document_is_reported(call: Call, runs: Path) -> None:
    _, _, err = call("score", "--run", "lines", "ab", "--context", "abc\n")
    assert "a context is read from the last document end on, so not 'abc\\n'" in err
    _, _, err = call("score", "--run", "lines", "ab", "--context", "abc\nca")
    assert "so only 'ca' of 'abc\\nca'" in err
    _, _, err = call("score", "--run", "lines", "ab", "--context", "abc ca")
    assert "document end" not in err


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--by", "words"], "--by is 'words'; expected"),
        (["--by", "word", "--tokens"], "--tokens with --by word"),
        (["--boundary", "leading"], "--boundary has no effect without --by word"),
        (["--word-chars", "text", "--tokens"], "--word-chars has no effect without --by word"),
        (["--by", "word", "--boundary", "trailin"], "did you mean 'trailing'?"),
        (["--by", "word", "--format", "scores"], "--by word with --format scores"),
        (["--context", "a", "--carry"], "--context with --carry"),
        (["--context-column", "a"], "--context-column has no effect without --file"),
    ],
)
def test_misuse_is_one_line(arguments: list[str], hint: str, call: Call, runs: Path) -> None:
    status, out, err = call("score", "ab ca", *arguments)
    assert (status, out) == (2, "")
    (line,) = (line for line in err.splitlines() if line.startswith("charlm: "))
    assert hint in line


def test_a_missing_context_column_is_one_line(call: Call, runs: Path) -> None:
    Path("items.tsv").write_text(TABLE)
    source = ("score", "--file", "items.tsv", "--column", "text", "--format", "jsonl")
    status, _, err = call(*source, "--context-column", "befor")
    assert status == 2
    assert "--context-column is 'befor'; expected another column" in err
    assert "item, before" in err
    status, _, err = call(*source, "--context-column", "before", "--context", "a")
    assert status == 2
    assert "were both given" in err


def test_tokens_is_an_alias(call: Call, runs: Path) -> None:
    assert call("score", "ab ca", "--tokens")[:2] == call("score", "ab ca", "--by", "token")[:2]


def test_the_library_lists_words(runs: Path) -> None:
    """A list of words of all texts; a table has their sentence and the rule."""
    model = charlm.load(runs / "stream")
    words = model.words(["ab ca", "", "abc"], boundary="leading")
    assert [word.word for word in words] == ["ab", "ca", "abc"]
    assert [len(score.words) for score in words.scores] == [2, 0, 1]
    table = words.to_pandas()
    assert table.sentence_id.tolist() == [1, 1, 3]
    assert table.word_id.tolist() == [1, 2, 1]
    assert table.surprisal.tolist() == [word.nats for word in words]
    assert set(table.word_rule) == {"leading blank"}
    assert "<table>" in words._repr_html_()
    (only,) = model.words("ab.", word_chars="text")[:1]
    assert only.word == "ab"
    assert math.isfinite(only.nats)
    with pytest.raises(charlm.CharlmError, match="context has 1 texts for 2 texts"):
        model.words(["ab", "ca"], context=["ab"])
