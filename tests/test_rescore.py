"""`charlm rescore`: n-best lists in every format, in and out; weights; refusals with their line."""

import gzip
import json
from pathlib import Path

import pytest
from helpers import Call, oracle_file

import charlm
from charlm.api import rescoring
from charlm.text.nbest import NBestLists

GOOD, BAD = "She had read the letter.", "She had red the letter."


@pytest.fixture(scope="module")
def model() -> charlm.Model:
    """Return the built-in model of continuous text."""
    return charlm.load("prose")


def log_p(model: charlm.Model, text: str) -> float:
    return model.score(text)[0].penalized_log_probability


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


KALDI = f"u1-2 {GOOD}\nu1-1 {BAD}\nu-2-1\n"
TSV = f'utterance\tspeaker\tam\ttext\nu1\tx"y\t-1.5\t{BAD}\nu1\tz\t-2\t{GOOD}\nu2\t\t0\t\n'
JSONL = (
    f'{{"id": "u1", "x": 1.50, "hyps": [{{"text": "{BAD}", "am": -1.50}}, '
    f'{{"text": "{GOOD}", "am": -2, "tag": true}}]}}\n'
)


def test_srilm_lists_get_our_log10_in_place_of_lscore(
    model: charlm.Model, tmp_path: Path, call: Call, here: Path
) -> None:
    folder = tmp_path / "lists"
    written(folder / "u2", f"-120.50 -3 5 {GOOD}\n-120.1 -7.5 5 {BAD}\n-9 0 0\n")
    (folder / "u1.gz").write_bytes(gzip.compress(b"-1 0 1 ab pau\n"))
    code, _, err = call("rescore", str(folder), "--run", "prose", "--out", "new")
    assert (code, err) == (0, "")
    ours = [log_p(model, text) / 2.302585092994046 for text in (GOOD, BAD)]
    assert (here / "new" / "u2").read_text() == (
        f"-120.50 {ours[0]:.7g} 5 {GOOD}\n-120.1 {ours[1]:.7g} 5 {BAD}\n-9 0 0\n"
    )
    again = rescoring.read_lists(here / "new")
    assert [each.name for each in again] == ["u1", "u2"]
    assert again[0].hypotheses[0].words == 1  # without the pause
    code, out, _ = call("rescore", str(folder / "u2"), "--run", "prose")
    assert out == (here / "new" / "u2").read_text()


def test_kaldi_lists_become_costs_in_their_order(
    model: charlm.Model, call: Call, here: Path
) -> None:
    """A replacement for utils/rnnlm_compute_scores.sh; the hypothesis 1 is the best as given."""
    written(here / "words", KALDI)
    written(here / "ac", "u-2-1 7\nu1-1 10.5\nu1-2 11\n")
    code, out, _ = call("rescore", "words", "--run", "prose", "--acoustic", "ac")
    assert code == 0
    costs = [-log_p(model, text) for text in (GOOD, BAD)]
    assert out == f"u1-2\t{costs[0]:.6f}\nu1-1\t{costs[1]:.6f}\nu-2-1\t0.000000\n"
    lists = rescoring.read_lists("words", acoustic="ac")
    assert [each.text for each in lists[0].hypotheses] == [BAD, GOOD]
    assert lists[0].hypotheses[0].features == {"acoustic": -10.5}


def test_nemo_lists_get_a_column(model: charlm.Model, call: Call, here: Path) -> None:
    written(here / "nemo", f"{BAD}\t-1\n{GOOD}\t-2\n\t-3.5\nab\t-4\n")
    code, out, _ = call("rescore", "nemo", "--run", "prose", "--beam", "2")
    assert code == 0
    assert [line.rsplit("\t", 1)[0] for line in out.splitlines()] == [
        f"{BAD}\t-1", f"{GOOD}\t-2", "\t-3.5", "ab\t-4"
    ]  # fmt: skip
    assert float(out.splitlines()[1].rsplit("\t", 1)[1]) == pytest.approx(log_p(model, GOOD), 1e-6)


def test_tables_keep_their_columns(model: charlm.Model, call: Call, here: Path) -> None:
    written(here / "lists.tsv", TSV)
    code, out, err = call("rescore", "lists.tsv", "--run", "prose")
    assert (code, err) == (0, "")
    written(here / "out.tsv", out)
    pandas = pytest.importorskip("pandas")
    table = pandas.read_csv(here / "out.tsv", sep="\t", keep_default_na=False)
    assert list(table.columns) == ["utterance", "speaker", "am", "text", "charlm"]
    assert table["speaker"].tolist() == ['x"y', "z", ""]
    assert table["text"].tolist() == [BAD, GOOD, ""]
    assert table["charlm"][1] == pytest.approx(log_p(model, GOOD), abs=1e-6)
    again = rescoring.read_lists("out.tsv")  # a column named charlm is a feature of the input
    assert again.features == ("am", "input_charlm", "words")


def test_a_table_may_be_a_csv_file_of_a_spreadsheet(call: Call, here: Path) -> None:
    """Its columns are in any order, also behind a byte-order mark; the result is TSV."""
    table = f"\ufefftext;am;utterance;note\r\n{BAD};-1.5 ;u1;1,5x\r\n{GOOD};-2;u1;\r\n"
    for text in (table, table.replace(";", ",").replace("1,5x", '"1,5x"')):
        (here / "lists.csv").write_bytes(text.encode())
        code, out, _ = call("rescore", "lists.csv", "--run", "prose")
        assert code == 0
        assert out.splitlines()[0] == 'am\tutterance\tnote\t"text"\tcharlm'
        assert rescoring.read_lists("lists.csv").features == ("am", "words")
        _, out, _ = call("rescore", "lists.csv", "--run", "prose", "--best")
        assert out == f"u1 {GOOD}\n"


def test_costs_that_count_for_a_hypothesis_are_reported(call: Call, here: Path) -> None:
    """They rise along lists of five hypotheses; in a list of three that may be by chance."""
    rows = [f"u1\t{at}.5\t{-at}\t{7 % (at + 1)}\t{GOOD}\n" for at in range(5)]
    for count in (5, 3):
        written(here / "x.tsv", "utterance\tcost\tam\tother\ttext\n" + "".join(rows[:count]))
        arguments = ("rescore", "x.tsv", "--run", "prose", "--best")
        _, _, err = call(*arguments)
        assert ("cost rises from the first to the last" in err) == (count == 5)
        assert "am rises" not in err and "other rises" not in err
        assert "rises" not in call(*arguments, "--weight", "cost=-1")[2]
        assert "rises" not in call("rescore", "x.tsv", "--run", "prose")[2]  # no weights are used


def test_json_lines_keep_their_members(model: charlm.Model, call: Call, here: Path) -> None:
    written(here / "lists.jsonl", JSONL)
    code, out, _ = call("rescore", "lists.jsonl", "--run", "prose")
    assert code == 0
    assert '"x": 1.50' in out
    row = json.loads(out)
    assert [list(each) for each in row["hyps"]] == [
        ["text", "am", "charlm"], ["text", "am", "tag", "charlm"]
    ]  # fmt: skip
    assert row["hyps"][1]["charlm"] == pytest.approx(log_p(model, GOOD), abs=1e-6)


def test_weights_are_tuned_kept_and_used(call: Call, here: Path) -> None:
    written(here / "lists.jsonl", JSONL)
    written(here / "refs", f"u1 {GOOD}\n")
    code, out, err = call(
        "rescore", "lists.jsonl", "--run", "prose", "--refs", "refs", "--tune", "--out", "w.json"
    )
    assert code == 0
    assert "as given  %WER 20.00 [ 1 / 5, 0 ins, 0 del, 1 sub ]" in out
    assert "rescored  %WER 0.00 [ 0 / 5, 0 ins, 0 del, 0 sub ]" in out
    assert "change    -20.00, rescored minus as given" in out
    assert "--lm-weight" in err
    weights = json.loads((here / "w.json").read_text())["weights"]
    assert set(weights) == {"am", "charlm", "words"}
    best = ("rescore", "lists.jsonl", "--run", "prose", "--best")
    assert call(*best, "--weights", "w.json")[:2] == (0, f"u1 {GOOD}\n")
    assert call(*best, "--lm-weight", "0")[1] == f"u1 {BAD}\n"
    assert call(*best, "--lm-weight", "0", "--weight", "am=-1")[1] == f"u1 {GOOD}\n"
    written(here / "lines.jsonl", '{"id": "u2", "hyps": [{"text": "two\\n lines "}]}')
    assert call("rescore", "lines.jsonl", "--run", "prose", "--best")[1] == "u2 two lines\n"
    code, out, err = call(*best, "--refs", "refs", "--chars")
    assert (code, out) == (0, f"u1 {GOOD}\n")
    assert "%CER" in err
    call(*best, "--refs", "refs", "--json", "--out", "hyps")
    assert (here / "hyps").read_text() == f"u1 {GOOD}\n"


def test_lines_of_error_rates_are_not_broken(
    call: Call, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    written(here / "k", f"u-1 {GOOD}\n")
    written(here / "refs", f"u {BAD}\n")
    out = call("rescore", "k", "--run", "prose", "--refs", "refs")[1]
    assert "%WER 20.00 [ 1 / 5, 0 ins, 0 del, 1 sub ]  (few utterances)" in out.splitlines()[1]


def test_references_may_be_a_manifest_of_json_lines(call: Call, here: Path) -> None:
    """Utterances of NeMo have no names, so they are numbered from 1 as the lines are."""
    written(here / "nemo", f"{BAD}\t-1\n{GOOD}\t-2\n")
    written(here / "manifest.json", json.dumps({"audio_filepath": "a.wav", "text": GOOD}) + "\n")
    arguments = ("rescore", "nemo", "--run", "prose", "--beam", "2", "--refs", "manifest.json")
    code, out, _ = call(*arguments, "--json")
    assert code == 0
    result = json.loads(out)
    assert result["as_given"]["substitutions"] == 1
    assert result["change"] == {"rate": -0.2, "low": None, "high": None}
    assert result["rescored"]["rate"] == result["oracle"]["rate"] == 0.0


def test_texts_of_the_same_tokens_are_scored_once(
    model: charlm.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from charlm.inference.scoring import Scorer

    texts: list[str] = []
    score = Scorer._independent

    def noted(self: Scorer, items: list, by: str) -> object:
        texts.extend(item.text for item in items)
        return score(self, items, by)

    monkeypatch.setattr(Scorer, "_independent", noted)
    charlm.rescore(model, written(tmp_path / "k", f"a-1 {GOOD}\na-2 {BAD}\nb-1 {GOOD}\n"))
    assert sorted(texts) == sorted([GOOD, BAD])
    (one,) = charlm.rescore(model, written(tmp_path / "u", "a-1 a ☃\na-2 a ☂\n"))
    assert one.hypotheses[0].features == one.hypotheses[1].features
    assert len(texts) == 3


def test_unknown_words_have_a_price_which_is_reported(
    model: charlm.Model, call: Call, here: Path
) -> None:
    """A list in letters that the run does not know is most likely not meant for it."""
    written(here / "k", "a-1 Ω Ψ Ω\na-2 she\n")
    code, out, err = call("rescore", "k", "--run", "prose", "--unk-penalty", "5")
    assert code == 0
    assert "costs 5.000 nats" in err
    assert "unknown to the run" in err
    free = call("rescore", "k", "--run", "prose", "--unk-penalty", "0")[1]
    difference = float(out.split()[1]) - float(free.split()[1])
    assert difference == pytest.approx(15.0, abs=1e-5)


def test_a_mixture_rescores_too(call: Call, here: Path) -> None:
    """A run mixed with itself gives its own scores."""
    written(here / "lists.jsonl", JSONL)
    plain = call("rescore", "lists.jsonl", "--run", "prose")[1]
    code, out, err = call("rescore", "lists.jsonl", "--run", "prose", "--with", "prose=0.25")
    assert (code, "0.25" in err) == (0, True)
    pairs = zip(json.loads(plain)["hyps"], json.loads(out)["hyps"], strict=True)
    assert all(old["charlm"] == pytest.approx(new["charlm"], abs=1e-4) for old, new in pairs)


def test_bytes_are_decoded_and_warned_of_once(call: Call, here: Path) -> None:
    (here / "k").write_bytes("u-1 a cat\r\n".encode("utf-8-sig"))
    code, out, err = call("rescore", "k", "--run", "prose")
    assert (code, err.count("byte-order mark")) == (0, 1)
    (here / "k16").write_bytes("u-1 a cat\r\n".encode("utf-16"))
    assert call("rescore", "k16", "--run", "prose", "--encoding", "utf-16")[:2] == (0, out)
    code, _, err = call("rescore", "-", "--run", "prose")
    assert (code, "standard input" in err) == (2, True)


REFUSED = [
    ("srilm", "-1 0 2 a b\n-2 0\n", "line 2 has 2 fields"),
    ("srilm", "-1 0 3 a b\n", "'3' as nwords, before 2 words"),
    ("srilm", "-1 x 2 a b\n", "line 1 has 'x' as lscore"),
    ("srilm", "nan 0 2 a b\n", "line 1 has 'nan' as ascore"),
    ("srilm", "-1 0 " + "9" * 5000 + " a\n", "as nwords"),
    ("auto", "NBestList2.0\n(-1) a\n", "NBestList2.0, a format of Decipher"),
    ("srilm", "NBestList1.0\n(-1) a\n", "NBestList1.0, a format of Decipher"),
    ("kaldi", "u1-1 a\nu1 a\n", "line 2 begins with 'u1'"),
    ("kaldi", "u1-1 a\nu1-1 b\n", "line 2 repeats u1-1"),
    ("nemo", "a\t-1\nb -1\n", "line 2 has no tab"),
    ("nemo", "a\t-1\nb\t1e999\n", "line 2 has '1e999' as score"),
    ("nemo", "a\t-1\nb\t-1\nc\t-2\n", "3 hypotheses; expected a multiple of --beam 2"),
    ("tsv", "utterance\tam\ttext\nu1\t1\ta\nu1\tx\tb\n", "line 3 has 'x' as am"),
    ("tsv", "utterance\tam\ttext\nu1\tNaN\ta\n", "line 2 has 'NaN' as am"),
    ("tsv", "utterance\tam\ttext\nu1\t1\ta\nu1\t2\n", "line 3 has 2 fields"),
    ("tsv", "utterance\tam\ttext\nu1\t\ta\nu1\t2\tb\n", "line 2 has '' as am"),
    ("tsv", "utterance;am;text\nu1;-1,5;a\nu1;;b\n", "line 2 has '-1,5' as am; expected numbers"),
    ("tsv", "id\ttext\nu1\ta\n", 'no column "utterance"'),
    ("tsv", "utterance\ttext\nu1\ta\nu2\tb\nu1\tc\n", "line 4 begins utterance u1 again"),
    ("jsonl", '{"id": "u", "hyps": [{"text": "a", "am": NaN}]}', "line 1 has 'NaN' as am"),
    ("jsonl", '{"id": "u", "hyps": [{"text": "a", "am": 1}, {"text": "b"}]}', "1 lacks am"),
    ("jsonl", '{"id": "u", "hyps": [{"text": 1}]}', "the number 1 as text"),
    ("jsonl", '{"id": "u", "hyps": []}', "line 1 has no hypotheses"),
    ("jsonl", '{"id": "u", "hyps": [{"text": "a"}]}\n' * 2, "line 2 repeats utterance u"),
    ("jsonl", '{"hyps": [{"text": "a"}]}', "line 1 is another JSON value"),
    ("jsonl", '{"id": "u", "hyps"', "line 1 is not valid JSON"),
    ("auto", "she had read\nthe letter\n", "no format that is known for certain"),
    ("auto", "u-1\t-2\nv-1\t-3\n", "may be kaldi or nemo"),
    ("auto", "", "no format that is known for certain"),
    ("kaldi", "", "has no hypotheses"),
    ("kaldi", "u1-1 a\x00\xff\n", "is not valid UTF-8"),
]


@pytest.mark.parametrize(("name", "text", "problem"), REFUSED)
def test_bad_lists_are_refused_with_file_and_line(
    name: str, text: str, problem: str, call: Call, here: Path
) -> None:
    (here / "bad").write_bytes(text.encode("latin-1"))
    beam = ("--beam", "2") if name == "nemo" else ()
    code, out, err = call("rescore", "bad", "--format", name, "--run", "prose", *beam)
    assert (code, out) == (3, "")
    assert err.count("\n") == 1
    assert "bad" in err
    assert problem in err
    assert "expected" in err or "UTF-8" in err


def test_a_missing_file_is_named(call: Call, here: Path) -> None:
    code, out, err = call("rescore", "missing.jsonl", "--run", "prose")
    assert (code, out) == (3, "")
    assert err == "charlm: missing.jsonl does not exist; expected a file. Check the name\n"


@pytest.mark.parametrize(
    ("flag", "text", "problem"),
    [
        ("--graph", "u1-1 4\n", "other lacks u-2-1"),
        ("--graph", KALDI.replace("u-2-1", "u-2-1 1"), "line 1 has 'She had read"),
        ("--graph", "u1-1 1\nu1-2 2\nu-2-1 1\nu3-1 4\n", "words lacks u3-1"),
        ("--refs", "u1 a\n", "no reference for utterance u-2"),
        ("--refs", "u1 a\nu-2 b\nu3 c\n", "no hypotheses for utterance u3"),
        ("--refs", "u1 a\nu1 b\n", "other: line 2 repeats utterance u1"),
        ("--refs", "u1\nu-2\n", "no words"),
        ("--refs", '{"id": "u1"}\n', "other: line 1 lacks a text"),
    ],
)
def test_costs_and_references_that_do_not_fit_are_refused(
    flag: str, text: str, problem: str, call: Call, here: Path
) -> None:
    written(here / "words", KALDI)
    written(here / "other", text)
    code, _, err = call("rescore", "words", flag, "other", "--run", "prose")
    assert code == 3
    assert problem in err


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--best", "--weights", "nan.json"], "weight of words is nan"),
        (["--tune"], "--tune has no effect without --refs"),
        (["--beam", "3"], "--beam with lists in the format kaldi"),
        (["--format", "nemo"], "Add --beam N"),
        (["--best", "--weight", "lm=1"], "--weight names 'lm'"),
        (["--best", "--weight", "1"], "--weight is '1'"),
        (["--best", "--lm-weight", "nan"], "weight of charlm is nan"),
        (["--best", "--weights", "words"], 'no JSON with "weights"'),
        (["--out", "words"], "--out is words, which is read"),
        (["--refs", "words", "--best", "--tune"], "--tune and --best"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    options: list[str], problem: str, call: Call, here: Path
) -> None:
    written(here / "words", KALDI)
    written(here / "nan.json", '{"weights": {"charlm": 1, "words": NaN}}')
    code, _, err = call("rescore", "words", "--run", "prose", *options)
    assert code == 2
    assert problem in err


def test_weights_of_other_features_are_refused(call: Call, here: Path) -> None:
    written(here / "words", KALDI)
    written(here / "w.json", json.dumps({"weights": {"am": 1, "charlm": 1, "words": 0}}))
    code, _, err = call("rescore", "words", "--run", "prose", "--best", "--weights", "w.json")
    assert code == 2
    assert "has a weight for 'am'" in err


def test_the_library_rescores_and_tunes(model: charlm.Model, tmp_path: Path) -> None:
    lists = charlm.rescore(model, written(tmp_path / "lists.jsonl", JSONL))
    weights = charlm.tune_weights(lists, {"u1": GOOD})
    assert [each.text for each in lists.best(weights)] == [GOOD]
    assert lists.rows()[1]["rank"] == 2
    assert repr(lists) == "NBestLists(jsonl, 1 utterance, 2 hypotheses, features am, charlm, words)"


REWEIGHTED = {
    (0.0, 0.0): [4, 2, 1],
    (0.05, 0.0): [4, 2, 3],
    (0.1, 0.0): [4, 2, 3],
    (0.5, 0.0): [4, 3, 2],
    (1.0, 0.0): [1, 3, 2],
    (8.0, 0.0): [1, 3, 2],
    (0.2, 0.3): [4, 3, 3],
}
"""Weights of lscore and of words → the best hypotheses by SRILM's rescore-reweight."""


@pytest.mark.data
@pytest.mark.parametrize(("weights", "places"), REWEIGHTED.items())
def test_golden_lists_have_the_best_hypotheses_of_srilm(
    weights: tuple[float, float], places: list[int]
) -> None:
    lists = rescoring.read_lists(oracle_file("rescored"))
    assert lists.features == ("ascore", "lscore", "words")
    best = lists.best({"ascore": 1.0, "lscore": weights[0], "words": weights[1]})
    assert [each.line for each in best] == places


@pytest.mark.data
def test_scores_of_golden_lists_are_those_of_srilm(call: Call, here: Path) -> None:
    """With the model that SRILM used; `<unk>` of its output is a word that the model lacks."""
    model, folder = oracle_file("tiny3.arpa"), oracle_file("nbest")
    assert call("ngram", "import", str(model), "--name", "tiny3")[0] == 0
    run = ("--run", "tiny3", "--unk-penalty", "0")
    assert call("rescore", str(folder), *run, "--out", "new")[0] == 0
    golden = rescoring.read_lists(oracle_file("rescored"))
    for ours, theirs in zip(rescoring.read_lists(here / "new"), golden, strict=True):
        for new, old in zip(ours.hypotheses, theirs.hypotheses, strict=True):
            assert new.features["lscore"] == pytest.approx(old.features["lscore"], abs=1e-6)
    for weights, places in REWEIGHTED.items():
        options = ("--lm-weight", str(weights[0]), "--word-bonus", str(weights[1]))
        code, out, _ = call("rescore", str(folder), *run, "--best", *options)
        best = [
            utt.hypotheses[at - 1].text
            for utt, at in zip(rescoring.read_lists(folder), places, strict=True)
        ]
        assert (code, [line.split(" ", 1)[1] for line in out.splitlines()]) == (0, best)


@pytest.mark.data
def test_golden_lists_are_tuned_to_no_errors() -> None:
    """As by nbest-optimize, which finds 0 errors at 0.125 : 1."""
    lists = rescoring.read_lists(oracle_file("rescored"))
    start = {"ascore": 1.0, "lscore": 1.0, "words": 0.0}
    references = rescoring.read_references(lists, oracle_file("nbest.refs"))
    weights = charlm.tune_weights(lists, references, start=start)
    assert [each.line for each in lists.best(weights)] == [1, 3, 2]


MARKED = {
    "srilm": (f"-1 -2 5 <s> {GOOD} </s>\n-1.5 -2 7 <s> {BAD} </s>\n", ()),
    "kaldi": (f"u-1 <s> {GOOD} </s>\nu-2 {BAD} </s>\n", ()),
    "nemo": (f"<s> {GOOD} </s>\t-1\n<S>{BAD}</S>\t-2\n", ("--beam", "2")),
    "tsv": (f"utterance\ttext\tam\nu\t<s> {GOOD} </s>\t-1\nu\t{BAD} </s>\t-2\n", ()),
    "jsonl": (
        f'{{"id": "u", "hyps": [{{"text": "<s> {GOOD} </s>"}}, {{"text": "<s> {BAD}"}}]}}\n', ()
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MARKED)
def test_sentence_marks_around_a_hypothesis_are_not_scored(
    name: str, model: charlm.Model, call: Call, here: Path
) -> None:
    """They were scored as unknown words; the lists are written as they were given."""
    content, flags = MARKED[name]
    written(here / "lists", content)
    messages: list[str] = []
    beam = {"beam": 2} if flags else {}
    lists = charlm.rescore(model, "lists", format=name, warn=messages.append, **beam)
    own = {each.text: each for each in lists[0].hypotheses}
    assert own.keys() == {GOOD, BAD} and {each.words for each in own.values()} == {5}
    base = 2.302585092994046 if name == "srilm" else 1.0
    assert own[GOOD].features["charlm"] == pytest.approx(log_p(model, GOOD) / base, abs=1e-9)
    assert "with <s> or </s> around them" in messages[0] and len(messages) == 1
    code, out, err = call("rescore", "lists", "--format", name, *flags, "--run", "prose")
    assert code == 0 and "were left out (the first in line" in err
    if name != "kaldi":
        assert out.lower().count("<s>") == content.lower().count("<s>")
    code, out, _ = call("rescore", "lists", "--format", name, *flags, "--run", "prose", "--best")
    assert code == 0 and "s>" not in out


def test_lists_with_marks_that_are_not_counted_are_recognised(here: Path) -> None:
    written(here / "lists", MARKED["srilm"][0])
    assert rescoring.read_lists("lists").format_name == "srilm"


@pytest.mark.parametrize(
    "text", ["a <s> b", "a </s> b", "</s> a", "a <s>", "<s> <s> a", "a b</s> </s>", "a</S>b"]
)
def test_sentence_marks_inside_a_text_are_refused(text: str, here: Path, call: Call) -> None:
    written(here / "k", f"u-1 ok\nu-2 {text}\n")
    code, _, err = call("rescore", "k", "--run", "prose")
    assert code == 3 and "k: line 2 has <" in err and "only at the beginning" in err
    written(here / "k", "u-1 ok\n")
    written(here / "refs", f"u {text}\n")
    code, _, err = call("rescore", "k", "--run", "prose", "--refs", "refs")
    assert code == 3 and "refs: line 1 has <" in err


def test_sentence_marks_of_references_are_left_out(here: Path, call: Call) -> None:
    written(here / "k", f"u-1 {GOOD}\n")
    written(here / "refs", f"u <s> {GOOD} </s>\n")
    code, out, err = call("rescore", "k", "--run", "prose", "--refs", "refs", "--json")
    assert code == 0 and json.loads(out)["as_given"]["rate"] == 0.0
    assert "refs: 1 text with <s> or </s>" in err


def test_repeated_names_are_found_without_comparing_each_pair() -> None:
    """A folder of many utterances was compared name by name with all of them."""
    from charlm.text.nbest_formats import _repeated

    compared = 0

    class Name(str):
        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    names = [Name(f"u{at}") for at in range(300)]
    assert _repeated([*names, Name("u7"), Name("u3")]) == ["u3", "u7"]
    assert compared < 900


def test_each_text_is_encoded_once(model: charlm.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts were encoded to find equal ones, and again to score them."""
    from charlm.inference import scoring

    scorer = model.scorer()
    texts = ["a", "bb", "a", "a ☃", "a ☂", "ccc", "bb", ""]
    encoded: list[str] = []
    encode = scoring.Scorer._item
    monkeypatch.setattr(
        scoring.Scorer,
        "_item",
        lambda self, text, context: encoded.append(text) or encode(self, text, context),
    )
    whole = scorer.score_distinct(texts)
    assert encoded == list(dict.fromkeys(texts))
    alone = {text: scorer.score([text])[0] for text in whole}
    for size in (1, 2, 3):  # equal tokens of two groups are scored once too
        monkeypatch.setattr(scoring, "TEXTS_ENCODED", size)
        scores = scorer.score_distinct(iter(texts))
        assert scores.keys() == whole.keys()
        assert scores["a ☃"] is scores["a ☂"]
        for text, score in scores.items():
            assert score.tally.nats == pytest.approx(alone[text].tally.nats, rel=1e-5)


def test_weights_of_scores_of_another_base_are_refused(call: Call, here: Path) -> None:
    """Lists of SRILM have log10; the same columns in a table are scored with ln."""
    written(here / "lists" / "u1", f"-1 -2 5 {BAD}\n-1.5 -1 5 {GOOD}\n")
    rows = f"utterance\tascore\tlscore\ttext\nu1\t-1\t-2\t{BAD}\nu1\t-1.5\t-1\t{GOOD}\n"
    written(here / "lists.tsv", rows)
    written(here / "refs", f"u1 {GOOD}\n")
    tune = ("rescore", "lists", "--run", "prose", "--refs", "refs", "--tune", "--out", "w.json")
    assert call(*tune)[0] == 0
    record = json.loads((here / "w.json").read_text())
    assert record["log_base"] == "10"
    assert record["per_word"] == {"ascore": 0.25, "lscore": 0.3}
    best = ("--run", "prose", "--best", "--weights", "w.json")
    assert call("rescore", "lists", *best)[0] == 0
    code, out, err = call("rescore", "lists.tsv", *best)
    assert (code, out) == (2, "") and "scores of base 10" in err and "format tsv" in err
    del record["log_base"]  # a file of an earlier version: its format has the base
    written(here / "w.json", json.dumps(record))
    assert call("rescore", "lists.tsv", *best)[0] == 2
    written(here / "w.json", json.dumps({"weights": record["weights"], "log_base": "10"}))
    assert "format None" not in call("rescore", "lists.tsv", *best)[2]
    del record["format"], record["per_word"]  # a file that was written by hand
    written(here / "w.json", json.dumps(record))
    assert call("rescore", "lists.tsv", *best)[0] == 0


@pytest.mark.parametrize(("factor", "warned"), [(1.0, 0), (1.5, 0), (2.303, 1), (1 / 2.303, 1)])
def test_scores_that_differ_as_ln_and_log10_are_reported(
    factor: float, warned: int, here: Path
) -> None:
    def lists(scale: float) -> NBestLists:
        items = [{"text": text, "am": -scale * at} for at, text in enumerate((BAD, GOOD), 2)]
        return rescoring.read_lists(
            written(here / "x.jsonl", json.dumps({"id": "u", "hyps": items}) + "\n")
        )

    record = {"weights": {"am": 1, "words": 0}, "per_word": rescoring.scores_per_word(lists(1.0))}
    path, warnings = written(here / "w.json", json.dumps(record)), list[str]()
    rescoring.read_weights(path, lists(factor), warnings.append)
    assert len(warnings) == warned
    assert all("am is" in each and "ln and log10" in each for each in warnings)


@pytest.mark.parametrize("content", ["[]", '{"weights": {}, "per_word": 3, "log_base": []}'])
def test_a_damaged_file_of_weights_is_refused(content: str, call: Call, here: Path) -> None:
    written(here / "words", KALDI)
    written(here / "w.json", content)
    code, _, err = call("rescore", "words", "--run", "prose", "--best", "--weights", "w.json")
    assert code == 2 and "w.json" in err
