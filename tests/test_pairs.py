"""Minimal pairs: every file format read exactly, accuracies by hand, `charlm pairs`."""

import gzip
import io
import json
import math
from pathlib import Path

import pandas
import pytest
from helpers import Call, engine, uniform_model, vocabulary_of
from hypothesis import given
from hypothesis import strategies as st

import charlm
from charlm.api.pairs import read_pairs
from charlm.config.text_units import TEXT_UNITS
from charlm.errors import CorpusError, EnvironmentFailure, UsageError
from charlm.inference.bootstrap import fraction_interval
from charlm.inference.pairs import PairsResult, score_questions
from charlm.inference.scoring import Scorer
from charlm.inference.suites import score_items
from charlm.text import splitting
from charlm.text.boundaries import Boundaries
from charlm.text.pair_files import Pair
from charlm.text.syntaxgym import Prediction, SuiteItem, parse_formula

BLIMP = [
    {"sentence_good": "a b", "sentence_bad": "a b c", "UID": "p", "linguistics_term": "t"},
    {"sentence_good": "b a b", "sentence_bad": "b a", "UID": "q", "linguistics_term": "t"},
]
TABLE = "item\tsentence_bad\tsentence_good\tphenomenon\n7\ta b c\ta b\tt\n8\tb a\tb a b\tu\n"


def sentences(pairs: list[Pair]) -> list[tuple[str, str]]:
    return [(pair.good, pair.bad) for pair in pairs]


def jsonl(rows: list[dict]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


# Files


def test_a_folder_of_blimp_files_has_paradigms_and_phenomena(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text(jsonl(BLIMP[:1]))
    (tmp_path / "q.jsonl.gz").write_bytes(gzip.compress(jsonl(BLIMP[1:]).encode()))
    (tmp_path / "LICENSE").write_text("one\ntwo\nthree\n")
    warnings: list[str] = []
    pairs = read_pairs([str(tmp_path)], warn=warnings.append)
    assert sentences(pairs) == [("a b", "a b c"), ("b a b", "b a")]
    assert [(pair.paradigm, pair.phenomenon) for pair in pairs] == [("p", "t"), ("q", "t")]
    (warning,) = warnings
    assert warning.startswith(f"{tmp_path / 'LICENSE'} was skipped, since")


def test_odd_lines_of_text_are_bad_and_even_lines_good(tmp_path: Path) -> None:
    """Zorro's files; the paradigm is the name of the file."""
    (tmp_path / "agreement-noun.txt").write_text("the cats sits .\nthe cat sits .\nx y\nx z\n")
    pairs = read_pairs([str(tmp_path)])
    assert sentences(pairs) == [("the cat sits .", "the cats sits ."), ("x z", "x y")]
    assert {pair.paradigm for pair in pairs} == {"agreement-noun"}


def test_a_table_keeps_its_other_columns(tmp_path: Path) -> None:
    path = tmp_path / "own.tsv"
    path.write_text(TABLE)
    pairs = read_pairs([str(path)])
    assert sentences(pairs) == [("a b", "a b c"), ("b a b", "b a")]
    assert [pair.phenomenon for pair in pairs] == ["t", "u"]
    assert [dict(pair.cells) for pair in pairs] == [{"item": "7"}, {"item": "8"}]
    assert pairs[0].paradigm == "own"


@pytest.mark.parametrize(
    ("header", "columns"),
    [("x,s1,s2", ["s1", "s2"]), ("x,grammatical,ungrammatical", []), ("x,a_good,a_bad", [])],
)
def test_columns_are_named_or_fit(tmp_path: Path, header: str, columns: list[str]) -> None:
    path = tmp_path / "own.csv"
    path.write_text(f'{header}\n1,"a, b",c\n')
    warnings: list[str] = []
    assert sentences(read_pairs([str(path)], columns=columns, warn=warnings.append)) == [
        ("a, b", "c")
    ]
    assert bool(warnings) == (not columns)


@given(rows=st.lists(st.tuples(st.text(min_size=1), st.text(min_size=1)), min_size=1, max_size=4))
def test_any_sentences_in_json_are_read_exactly(rows: list, tmp_path_factory) -> None:
    rows = [row for row in rows if all(text.isprintable() for text in row)]
    path = tmp_path_factory.mktemp("x") / "x.jsonl"
    path.write_text(jsonl([{"sentence_good": good, "sentence_bad": bad} for good, bad in rows]))
    if rows:
        assert sentences(read_pairs([str(path)])) == rows


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("x.txt", "a\nb\nc\n", "line 3"),
        ("x.txt", "a\n\nc\nd\n", "line 2"),
        ("x.txt", "", "no pairs"),
        ("x.jsonl", "", "no pairs"),
        ("x.tsv", "sentence_good\tsentence_bad\n", "no pairs"),
        ("x.jsonl", jsonl([*BLIMP, {"sentence_good": "a"}]), 'line 3 has no "sentence_bad"'),
        ("x.jsonl", jsonl([*BLIMP, {"sentence_bad": "a"}]), 'line 3 has no "sentence_good"'),
        ("x.jsonl", jsonl(BLIMP)[:-20], "line 2"),
        ("x.tsv", TABLE + "9\t\ta b\tt\n", 'line 4 has no "sentence_bad"'),
        ("x.tsv", TABLE + "9\ta\n", "line 4 has 2 fields"),
        ("x.tsv", "one\ttwo\na\tb\n", "--columns"),
        ("x.tsv", "sentence_good\ttwo\na\tb\n", "--columns"),
        ("x.csv", "a_good,a_bad,b_good,b_bad\na,b,c,d\n", "--columns"),
        ("x.tsv", "one sentence with five words\tand another one of five\n1\t2\n", "--no-header"),
    ],
)
def test_data_that_are_no_pairs_are_refused_with_their_line(
    tmp_path: Path, name: str, content: str, found: str
) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(CorpusError, match=found) as caught:
        read_pairs([str(path)])
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


# SyntaxGym

FORMULAS = [
    ("(3;%a%) > (3;%b%)", True),
    ("(3;%a%) < (3;%b%)", False),
    ("(3;%a%)=(2;%b%)", True),
    ("(3;%a%) = (3;%b%)", False),
    ("(*;%a%) > 7.9", True),
    ("(*;%a%) - 1 - 1 = 6", True),
    ("5+4=9-1+1", True),
    ("5 - 4 - 3 < 0", True),
    ("((3;%a%) > (3;%b%)) & ((2;%a%) > (2;%b%))", False),
    ("((3;%a%) > (3;%b%)) | ((2;%a%) > (2;%b%))", True),
    ("(1;%a%) + (2;%a%) - ((2;%b%) - (1;%b%)) < 0.001", True),
    ("1 > 2 | 2 > 1 & 3 > 4", False),
]
BITS = {"a": {1: 1.0, 2: 3.0, 3: 4.0}, "b": {1: 0.0, 2: 4.000001, 3: 2.0}}


@pytest.mark.parametrize(("text", "expected"), FORMULAS)
def test_formulas_by_hand(text: str, expected: bool) -> None:
    assert parse_formula(text, "x")(BITS) is expected


WRONG = [
    "",
    "(3;%a%) >",
    "1 > 2)",
    "(1 > 2",
    "1 ! 2",
    "1 2",
    "(x;%a%)",
    "(" * 5000 + "1" + ")" * 5000,
]


@pytest.mark.parametrize("text", WRONG, ids=lambda text: text[:12])
def test_formulas_that_are_not_valid_are_refused(text: str) -> None:
    with pytest.raises(CorpusError, match="x: the formula"):
        parse_formula(text, "x")


def suite(*formulas: str, regions: tuple[str, ...] = ("a", "b", "", "a")) -> dict:
    conditions = [
        {
            "condition_name": name,
            "regions": [
                {"region_number": number, "content": text if name == "long" else text[:1]}
                for number, text in enumerate(regions, start=1)
            ],
        }
        for name in ("long", "short")
    ]
    items = [{"item_number": 5, "conditions": conditions}]
    predictions = [{"type": "formula", "formula": formula} for formula in formulas]
    return {"meta": {"name": "agree"}, "predictions": predictions, "items": items}


def test_the_surprisal_of_a_region_is_that_of_its_words(tmp_path: Path) -> None:
    """A word of the uniform model costs log2 V bits; empty regions cost nothing."""
    path = tmp_path / "x.json"
    content = suite("(2;%long%) > (2;%short%)", "(3;%long%) = 0", regions=("a", "b b a", "", "a"))
    path.write_text(json.dumps(content))
    result = score_questions(uniform(), read_pairs([str(path)]))
    each = math.log2(len(uniform().vocabulary))
    assert result[0].surprisals["long"] == pytest.approx({1: each, 2: 3 * each, 3: 0, 4: each})
    assert result[0].surprisals["short"] == pytest.approx({1: each, 2: each, 3: 0, 4: each})
    assert [row.is_correct for row in result] == [True, True]
    assert [each.name for each in result.paradigms] == [
        "agree, prediction 1", "agree, prediction 2",
    ]  # fmt: skip
    assert [each.name for each in result.phenomena] == ["agree"]


@pytest.mark.parametrize("unit", TEXT_UNITS)
def test_regions_sum_to_the_words_of_the_sentence(unit: str) -> None:
    vocabulary = vocabulary_of("a b abba bab\n" * 3, unit)
    scorer = Scorer(engine(uniform_model(len(vocabulary))), vocabulary, Boundaries(document="line"))
    item = SuiteItem(
        suite="s",
        number="1",
        conditions={"x": [(1, "abba b"), (2, "bab"), (3, ""), (4, "a b")]},
        predictions=[Prediction(text="1 > 0", holds=parse_formula("1 > 0", "x"))],
    )
    (result,) = score_items(scorer, [item])
    (score,) = scorer.score(["abba b bab a b"], by="word")
    assert sum(result.surprisals["x"].values()) == pytest.approx(
        sum(word.nats for word in score.words) / math.log(2), abs=1e-5
    )
    assert result.surprisals["x"][2] == pytest.approx(score.words[2].nats / math.log(2), abs=1e-5)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda content: content.pop("meta"), ""),
        (lambda content: content["predictions"].append({"formula": "(9;%long%) > 1"}), "region 9"),
        (lambda content: content["predictions"].append({"formula": "(1;%x%) > 1"}), '"x"'),
        (lambda content: content["predictions"].append({}), "formula"),
        (lambda content: content["items"].append({}), "item 2"),
        (lambda content: content.update(items={}), "items"),
    ],
)
def test_suites_that_are_damaged_are_refused(tmp_path: Path, change, found: str) -> None:
    content = suite("(2;%long%) > (2;%short%)")
    change(content)
    path = tmp_path / "x.json"
    path.write_text(json.dumps(content))
    if not found:
        assert [item.suite for item in read_pairs([str(path)])] == ["x"]
        return
    with pytest.raises(CorpusError, match=found) as caught:
        read_pairs([str(path)])
    assert str(path) in str(caught.value)


# Scores. Each token of a uniform model costs ln V, so shorter sentences are more probable


def uniform(penalty: float = 0.0) -> Scorer:
    vocabulary = vocabulary_of("a b\n", "word", words="whitespace")
    boundaries = Boundaries(document="line", line_end_is_eos=True)
    model = engine(uniform_model(len(vocabulary)))
    return Scorer(model, vocabulary, boundaries, unk_penalty=penalty)


def result_of(*rows: tuple[str, str], penalty: float = 0.0) -> PairsResult:
    pairs = [Pair(good=good, bad=bad, paradigm=good[0]) for good, bad in rows]
    return score_questions(uniform(penalty), pairs)


def test_accuracies_by_hand() -> None:
    """Right, wrong, a tie, and two pairs that differ in their number of unknown words."""
    result = result_of(("a", "a b"), ("a b", "b"), ("b a", "a b"), ("b", "x y"), ("b x", "b"))
    assert [row.margin > 0 for row in result] == [True, False, False, True, False]
    total = result.total
    assert (total.pairs, total.correct, total.ties) == (5, 2, 1)
    assert (total.equal_oov_pairs, total.equal_oov_correct) == (3, 1)
    by_name = {each.name: each for each in result.paradigms}
    assert by_name["a"].accuracy == 1 / 2 and by_name["b"].accuracy == 1 / 3
    assert result.mean_accuracy == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert result.mean_equal_oov_accuracy == pytest.approx((1 / 2 + 0) / 2)
    assert result.phenomena == []
    assert result[0].margin == pytest.approx(math.log(len(uniform().vocabulary)))


def test_sentences_of_the_same_tokens_are_a_tie_in_any_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are scored once: floats of two batches may differ in their last digit."""
    rows = [("a x " * n, "a y " * n) for n in range(1, 40)]
    scored: list[str] = []
    score = Scorer._independent

    def noted(self: Scorer, items: list, by: str) -> object:
        scored.extend(item.text for item in items)
        return score(self, items, by)

    monkeypatch.setattr(Scorer, "_independent", noted)
    assert result_of(*rows).total.ties == len(scored) == len(rows)


def test_paragraphs_with_other_blank_lines_are_no_tie() -> None:
    """A scored text is one document, so its blank lines are tokens."""
    vocabulary = vocabulary_of("a b\n")
    model = engine(uniform_model(len(vocabulary)))
    scorer = Scorer(model, vocabulary, Boundaries(document="paragraph"))
    (score,) = score_questions(scorer, [Pair(good="a\n\nb", bad="a\n\n\nb")])
    assert score.margin == pytest.approx(math.log(len(vocabulary)), rel=1e-5)


def test_the_unk_penalty_decides_between_numbers_of_unknown_words() -> None:
    rows = [("a b", "x")]
    assert not result_of(*rows)[0].margin > 0
    assert result_of(*rows, penalty=5.0)[0].margin > 0


def test_the_interval_of_wilson() -> None:
    """Figures of Newcombe 1998, table I, method 3."""
    assert fraction_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert fraction_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert fraction_interval(29, 29) == pytest.approx((0.8830, 1.0), abs=5e-5)


# Splitting


def test_moses_splits_as_the_vocabulary_writes() -> None:
    pytest.importorskip("sacremoses")
    wikitext = vocabulary_of("a @-@ b 1 @,@ 2 . ,\n" * 2, "word", words="whitespace")
    text = "It's a well-known 1,000, isn't it?"
    assert splitting.moses(wikitext)(text) == "It 's a well @-@ known 1 @,@ 000 , isn 't it ?"
    treebank = vocabulary_of("is n't a , b\n" * 2, "word", words="whitespace")
    assert splitting.moses(treebank)(text) == "It 's a well-known 1,000 , is n't it ?"


def test_auto_splits_only_if_fewer_words_are_unknown() -> None:
    pytest.importorskip("sacremoses")
    vocabulary = vocabulary_of("it is n't so . <unk>\n" * 2, "word", words="whitespace")
    notes: list[str] = []
    plain = splitting.splitter("auto", vocabulary, ["it isn't so."], notes.append)
    assert plain("it isn't so.") == "it is n't so ."
    assert "0 unknown words in place of 2" in notes[0]
    already = splitting.splitter("auto", vocabulary, ["it is n't x ."], notes.append)
    assert already("is n't so.") == "is n't so."
    letters = splitting.splitter("auto", vocabulary_of(), ["it isn't so."], notes.append)
    assert letters("so.") == "so."
    assert len(notes) == 1


def test_a_result_names_its_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splitting, "moses", lambda vocabulary: str.lower)
    model, rows = charlm.load("tales"), [("The dog", "the dog")]
    assert charlm.pairs(model, rows).summary()["split"] == "none"
    result = charlm.pairs(model, rows, split="moses")
    assert (result.summary()["split"], result.total.ties) == ("moses", 1)


def test_without_sacremoses_one_line_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sacremoses", None)
    vocabulary = vocabulary_of("a b\n", "word", words="whitespace")
    with pytest.raises(EnvironmentFailure, match=r"charlm\[moses\]"):
        splitting.splitter("moses", vocabulary, [], print)
    monkeypatch.setattr(splitting, "find_spec", lambda _: None)
    notes: list[str] = []
    assert splitting.splitter("auto", vocabulary, ["a b.", "b."], notes.append)("b.") == "b."
    assert "charlm[moses]" in notes[0]
    splitting.splitter("auto", vocabulary, ["a x .", "x"], notes.append)
    assert len(notes) == 1


# The library and the command


def test_the_library_takes_rows() -> None:
    model = charlm.load("tales")
    rows = [("the dog sleeps .", "the dog sleep ."), BLIMP[0]]
    result = charlm.pairs(model, rows)
    assert [row.pair.paradigm for row in result] == ["pairs", "p"]
    scores = model.score(["the dog sleeps .", "the dog sleep ."])
    assert result[0].good == pytest.approx(scores[0].log_probability, abs=1e-4)
    assert result[0].bad == pytest.approx(scores[1].log_probability, abs=1e-4)
    assert len(result.to_pandas()) == 2
    for row in ("ab", ("a",), {"sentence_good": "a"}, ("a", 1)):
        with pytest.raises(UsageError, match=r"rows\[0\]"):
            charlm.pairs(model, [row])
    with pytest.raises(CorpusError, match="no pairs"):
        charlm.pairs(model, [])


def test_the_command_writes_tables_json_and_rows(call: Call, here: Path) -> None:
    Path("a.jsonl").write_text(jsonl(BLIMP))
    Path("b.tsv").write_text(TABLE)
    Path("c.json").write_text(json.dumps(suite("(2;%long%) > (4;%short%)")))
    status, out, err = call("pairs", "a.jsonl", "b.tsv", "--run", "tales")
    assert (status, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    assert all(word in out for word in ("paradigm", "phenomenon", "all pairs", "mean of 3"))
    summary = json.loads(call("pairs", "a.jsonl", "b.tsv", "--run", "tales", "--json")[1])
    assert [row["name"] for row in summary["paradigms"]] == ["p", "q", "b"]
    assert summary["total"]["pairs"] == 4
    _, out, _ = call("pairs", "c.json", "--run", "tales", "--format", "tsv")
    (row,) = pandas.read_csv(io.StringIO(out), sep="\t").to_dict("records")
    assert row["paradigm"] == "agree" and set(json.loads(row["surprisals"])) == {"long", "short"}
    _, out, _ = call("pairs", "b.tsv", "--run", "tales", "--format", "tsv", "--log-base", "2")
    rows = pandas.read_csv(io.StringIO(out), sep="\t")
    assert rows.sentence_good.tolist() == ["a b", "b a b"]
    assert rows.item.tolist() == [7, 8]
    assert (rows.correct == (rows.margin_base_2 > 0)).all()


def test_rows_of_pairs_are_read_back_by_pandas_and_charlm(call: Call, here: Path) -> None:
    """With quotes and tabs in them; the other columns of the table are among them."""
    sentences = ('He said "no".', "a, b; c\td"), ("ab\ncd", "NA")
    good, bad = zip(*sentences, strict=True)
    Path("x.jsonl").write_text(
        jsonl([
            {"sentence_good": one, "sentence_bad": two, "item": place, "correct": "x"}
            for place, (one, two) in enumerate(sentences)
        ])
    )  # fmt: skip
    _, out, _ = call("pairs", "x.jsonl", "--run", "tales", "--format", "tsv")
    rows = pandas.read_csv(io.StringIO(out), sep="\t", keep_default_na=False)
    assert (tuple(rows.sentence_good), tuple(rows.sentence_bad)) == (good, bad)
    assert rows.item.tolist() == [0, 1] and set(rows.input_correct) == {"x"}
    Path("y.tsv").write_text(out)
    assert [(pair.good, pair.bad) for pair in read_pairs(["y.tsv"])] == list(sentences)


@pytest.mark.parametrize(
    ("arguments", "status", "found"),
    [
        (["missing.jsonl"], 3, "missing.jsonl"),
        (["a.txt"], 3, "a.txt: line 1"),
        (["a.txt", "--columns", "x"], 2, "--columns is 'x'; expected GOOD,BAD"),
        (["a.jsonl"], 3, "Choose another with --columns"),
        (["a.txt", "--split", "x"], 2, "--split"),
        (["a.txt", "--format", "csv"], 2, "--format"),
        (["a.txt", "--json", "--format", "tsv"], 2, "--json"),
    ],
)
def test_wrong_calls_are_refused_in_one_line(
    call: Call, here: Path, arguments: list[str], status: int, found: str
) -> None:
    Path("a.txt").write_text("only one\n")
    Path("a.jsonl").write_text('{"sentence_good": 1, "sentence_bad": "b"}\n')
    code, out, err = call("pairs", *arguments, "--run", "tales")
    assert (code, out) == (status, "")
    assert found in err.splitlines()[-1]
