"""Runs that give translations: loading, predict, eval, compare and inside."""

import csv
import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from helpers import Call
from test_floors import imported_after
from translate_runs import PAIRS, translate_run

import charlm
from charlm.api.loading import load, load_model
from charlm.api.translation_evaluation import compare_translations, evaluate_translations
from charlm.api.translations import TranslateModel
from charlm.errors import CorpusError, RunError, UsageError
from charlm.inference.translation_counts import DRAWN, TranslationCounts
from charlm.report.translations import TRANSLATE_REPORT
from charlm.runs import layout
from charlm.runs.translate_run import MAX_TOKENS, load_translate_run

TEXTS = ["the dog ran", "", "a cat saw the red dog", "  ", "zebra"]


@pytest.fixture
def run(here: Path) -> Path:
    return translate_run(here / "checkpoints" / "de", kept="train valid test")


@pytest.fixture
def model(run: Path) -> TranslateModel:
    loaded = load(run)
    assert isinstance(loaded, TranslateModel)
    return loaded


# ------------------------------------------------------------------ the library


def test_load_gives_the_translator(run: Path) -> None:
    model = charlm.load(run, engine="numpy")
    assert isinstance(model, TranslateModel)
    assert (model.labels, model.run.engine) == ((), "numpy")
    assert "word entries to" in repr(model) and list(model.history) == []
    with pytest.raises(UsageError, match="weights int8 with run de, which gives translations"):
        charlm.load(run, weights="int8")
    with pytest.raises(UsageError, match=r"gives translations, not text.*charlm predict --run"):
        load_model(run)


@pytest.mark.parametrize("engine", ["auto", "numpy", "torch"])
@pytest.mark.parametrize("unit", ["word", "char", "bpe"])
def test_engines_give_the_same_translations(unit: str, engine: str, tmp_path: Path) -> None:
    path = translate_run(tmp_path / "x", unit=unit, cell="gru", num_layers=2)
    first, other = (load_translate_run(path, engine=name) for name in ("numpy", engine))
    for one, two in zip(first.translate(TEXTS), other.translate(TEXTS), strict=True):
        assert one.text == two.text and one.source == two.source
        assert one.probability == pytest.approx(two.probability, abs=1e-5)


def test_cells_that_only_torch_computes_translate_too(tmp_path: Path) -> None:
    run = load_translate_run(translate_run(tmp_path / "x", cell="qrnn"))
    assert run.engine.startswith("torch") and len(run.translate(TEXTS)) == len(TEXTS)


def test_an_answer_depends_on_its_text_and_the_beam(model: TranslateModel) -> None:
    answers = model.predict(iter(TEXTS))
    assert [bool(answer.tokens) for answer in answers] == [True, False, True, False, True]
    assert [answer.text for answer in (answers[1], answers[3])] == ["", ""]
    assert [each.text for each in model.predict(TEXTS[2])] == [answers[2].text]
    wide = model.predict(TEXTS[0], beam=50)[0]
    greedy = model.predict(TEXTS[0], beam=1)[0]
    assert wide.probability >= greedy.probability - 1e-6
    assert model.as_read(TEXTS[0])[0].text == answers[0].text and model.as_read(" ") == []
    for beam in (0, 51, 2.0, True):
        with pytest.raises(UsageError, match=f"beam is {beam}; expected a number from 1 to 50"):
            model.predict("a", beam=beam)
    with pytest.raises(UsageError, match=r"texts\[1\] is 5; expected a str"):
        model.predict(["a", 5])
    with pytest.raises(CorpusError, match="surrogate"):
        model.predict("a \ud800")


def test_long_texts_are_refused(model: TranslateModel) -> None:
    """A text of 100,000 tokens would need gigabytes for its attention."""
    model.predict("dog " * MAX_TOKENS)
    with pytest.raises(CorpusError, match=r"'dog dog .* has 1,001 tokens; expected at most 1,000"):
        model.predict("dog " * (MAX_TOKENS + 1))


def test_figures_are_those_of_the_answers(model: TranslateModel) -> None:
    texts, references = zip(*PAIRS, strict=True)
    references = (f"{model.predict(texts[0])[0].text} ", *references[1:])
    counts = model.evaluate(texts, references)
    outputs = [answer.text for answer in model.predict(texts)]
    _, answers = model.run.evaluate(model.run.encoded(PAIRS))  # attention would fill the memory
    assert [each.text for each in answers] == outputs
    assert all(each.attention.size == 0 and each.tokens for each in answers)
    assert counts.copied == sum(answer.copied for answer in model.predict(texts)) > 0
    expected = TranslationCounts.of(outputs, [reference.strip() for reference in references])
    assert [getattr(counts, name) for name in DRAWN] == [getattr(expected, n) for n in DRAWN]
    assert counts.right >= 1
    assert counts.tokens == sum(
        len(model.run.languages.target.encode(reference)) + 1 for reference in references
    )
    parts = [model.evaluate(*part) for part in zip(texts, references, strict=True)]
    assert counts.nats == pytest.approx(sum(part.nats for part in parts), abs=1e-4)
    with pytest.raises(UsageError, match="1 references for 5 texts"):
        model.evaluate(texts, ["a"])
    with pytest.raises(UsageError, match=r"references\[1\] is ' '; expected some words"):
        model.evaluate(["a", "b"], ["c", " "])


def test_a_pickled_model_gives_the_same_answers(model: TranslateModel) -> None:
    copy = pickle.loads(pickle.dumps(model))
    pairs = zip(copy.predict(TEXTS), model.predict(TEXTS), strict=True)
    assert all(one.text == two.text for one, two in pairs)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: (path / layout.TARGET).write_text("{}"), layout.TARGET),
        (lambda path: (path / layout.TARGET).unlink(), layout.TARGET),
        (
            lambda path: (path / layout.TARGET).write_bytes((path / layout.TOKENIZER).read_bytes()),
            "target.json has .* entries, config.json expects",
        ),
        (lambda path: (path / layout.WEIGHTS).write_bytes(b"x" * 100), layout.WEIGHTS),
    ],
)
def test_damaged_files_are_named(damage, message: str, run: Path) -> None:
    damage(run)
    with pytest.raises(RunError, match=message):
        load(run)


def test_an_edited_target_is_noticed(run: Path) -> None:
    """Two entries in each other's place would translate to wrong words."""
    text = (run / layout.TARGET).read_text()
    swapped = text.replace('"Hund"', '"X"').replace('"Katze"', '"Hund"').replace('"X"', '"Katze"')
    assert swapped != text
    (run / layout.TARGET).write_text(swapped)
    with pytest.raises(RunError, match=r"target.json"):
        load(run)


# ------------------------------------------------------------------ eval and compare


def test_evaluation_of_what_the_run_held_out(model: TranslateModel) -> None:
    result = evaluate_translations(model.run, worst=2, beam=2)
    assert list(result.counts) == ["valid", "test"] and result.beam == 2
    counts = result.counts["test"]
    expected = model.evaluate(*zip(*PAIRS, strict=True), beam=2)
    assert counts.rows is not None and expected.rows is not None
    summary, again = counts.summary(), expected.summary()
    assert summary.pop("intervals") == again.pop("intervals")
    assert summary == pytest.approx(again)
    assert [each.chrf for each in result.worst["test"]] == sorted(
        TranslationCounts.of([output.text], [reference]).chrf
        for output, (_, reference) in zip(
            model.predict([text for text, _ in PAIRS], beam=2), PAIRS, strict=True
        )
    )[:2]
    assert result.floors["test"]["exact"] == 0.0 and result.floors["test"]["chrf"] > 5


def test_a_run_compared_with_itself_differs_by_nothing(run: Path, here: Path) -> None:
    other = translate_run(here / "checkpoints" / "other", kept="valid test", seed=5)
    for path in (run, other):
        (path / layout.RECORD).write_text("{}")
    runs = [load_translate_run(path) for path in (run, run, other)]
    pairs = here / "pairs.tsv"
    pairs.write_text("en\tde\n" + "".join(f"{a}\t{b}\n" for a, b in PAIRS))
    result = compare_translations(runs, [str(pairs)], target="de", reading={"column": "en"})
    assert result.differences[0] is None
    same, changed = result.differences[1:]
    assert same is not None and changed is not None
    for name in DRAWN:
        assert (same[name].value, same[name].low, same[name].high, same[name].p) == (0, 0, 0, 1)
        assert same[name].verdict == "no difference shown"
        value = getattr(result.counts[2], name) - getattr(result.counts[0], name)
        assert changed[name].value == value
        assert changed[name].low <= changed[name].high
    assert (changed["chrf"].verdict == "worse") == (changed["chrf"].high < 0)


@pytest.mark.usefixtures("run")
def test_eval_reads_tables_and_parallel_files(call: Call) -> None:
    Path("x.en").write_text("".join(f"{a}\n" for a, _ in PAIRS))
    Path("x.de").write_text("".join(f"{b}\n" for _, b in PAIRS))
    Path("x.tsv").write_text("en\tde\n" + "".join(f"{a}\t{b}\n" for a, b in PAIRS) + "a\t\n")
    held_out = json.loads(call("eval", "--json")[1])["test"]
    table = ["--file", "x.tsv", "--column", "en", "--target", "de"]
    for flags in (["--file", "x.en", "--target", "x.de"], table):
        status, out, err = call("eval", "--json", *flags)
        assert status == 0, err
        assert {k: v for k, v in json.loads(out).items() if k != "run"} == {
            k: v for k, v in held_out.items() if k != "run"
        }
    assert "1 row without a text or a translation skipped" in err
    status, out, err = call("eval", "--worst", "2", "--beam", "1", *table)
    assert status == 0, err
    assert "beam 1" in out and "chrF" in out and "reference" in out and "copy" in out
    for name, words in (
        ("x.en", ["--file", "x.en"]),  # a test without translations has no figures
        ("--beam", ["--beam", "51"]),
        ("nope", ["--file", "x.tsv", "--column", "en", "--target", "nope"]),
    ):
        status, out, err = call("eval", *words)
        assert status in (2, 3) and out == "" and name in err


def test_the_floor_is_described_once() -> None:
    """It is behind the figures, or alone before there are some."""
    short = {"exact": 0.0, "chrf": 14.0, "reference_letters": 9.0}
    record = {"corpus": {"target_vocabulary": 20}, "floors": {"copy": {"valid": short}}}
    floor = ("floor", "a copy of the source has exact 0.000, chrF 14.0")
    results = {"valid": {"texts": 4, "nats_per_token": 2.0, **short}}
    for own in ({}, {"valid": {"nats_per_token": 2.0}}, results):
        report = TRANSLATE_REPORT
        pairs = [*report.facts({**record, "results": own}), *report.result_pairs(record, own)]
        assert pairs.count(floor) == 1


@pytest.mark.usefixtures("run")
def test_compare_shows_each_figure(here: Path, call: Call) -> None:
    translate_run(here / "checkpoints" / "other", seed=5)
    Path("x.tsv").write_text("en\tde\n" + "".join(f"{a}\t{b}\n" for a, b in PAIRS))
    words = ["compare", "de", "other", "--file", "x.tsv", "--column", "en", "--target", "de"]
    status, out, err = call(*words)
    assert status == 0, err
    assert out.split().count("chrF") == 2 and "BLEU" not in out and "exact" in out
    rows = json.loads(call(*words, "--json")[1])["runs"]
    assert rows[0]["difference"] is None
    assert rows[1]["difference"]["bleu"]["value"] == rows[1]["bleu"] - rows[0]["bleu"]


# ------------------------------------------------------------------ predict


@pytest.mark.parametrize("output", ["text", "tsv", "jsonl"])
def test_a_line_depends_on_its_text_alone(output: str, model: TranslateModel, call: Call) -> None:
    lines = ["the dog ran", "", "a cat", "  ", *(f"the cat saw {n}" for n in range(60)), "dog"]
    _, out, _ = call("predict", "--format", output, stdin="\n".join(lines).encode())
    found = out.splitlines()[output == "tsv" :]
    assert len(found) == len(lines)
    for number in (0, 1, 2, 3, 30, len(lines) - 1):
        _, alone, _ = call("predict", "--format", output, stdin=lines[number].encode() + b"\n")
        assert alone.splitlines()[output == "tsv" :] == [found[number]]
    answer = model.predict(lines[0])[0]
    if output == "text":
        assert found[0] == answer.text and (found[1], found[3]) == ("", "")
    elif output == "tsv":
        assert found[0].split("\t") == [lines[0], answer.text, f"{answer.probability:.4f}"]
    else:
        assert json.loads(found[1])["translation"] == ""
        assert json.loads(found[0])["tokens"][-1]["token"] == "<eos>"


@pytest.mark.usefixtures("run")
def test_translations_of_files_leave_out_the_given_ones(call: Call) -> None:
    Path("x.en").write_text("".join(f"{a}\n" for a, _ in PAIRS))
    Path("x.tsv").write_text("en\tde\n" + "".join(f"{a}\t{b}\n" for a, b in PAIRS))
    expected = call("predict", "--beam", "2", *(a for a, _ in PAIRS))[1]
    assert len(expected.splitlines()) == len(PAIRS)
    for flags in (["x.en"], ["x.tsv", "--column", "en"], ["x.tsv", "--column", "en", "--target",
                                                          "de"]):  # fmt: skip
        status, out, err = call("predict", "--beam", "2", "--file", *flags)
        assert (status, out) == (0, expected), err


def test_tokens_show_where_they_look(model: TranslateModel, call: Call) -> None:
    answer = model.as_read("a red dog", beam=3)[0]
    status, out, _ = call("predict", "--tokens", "--beam", "3", "a red dog")
    title, head, *rows = out.splitlines()
    assert (status, title, head.split()) == (0, answer.text, ["token", "probability", "looks",
                                                              "at", "weight"])  # fmt: skip
    assert len(rows) == len(answer.tokens)
    assert f"{answer.tokens[0].probability:.4f}" in rows[0]
    line = json.loads(call("predict", "--tokens", "--json", "--beam", "3", "a red dog")[1])
    assert line["source"] == ["<eos>", "a", "red", "dog"]
    assert np.abs(np.array(line["attention"]) - answer.attention).max() < 1e-5
    document = json.loads(call("predict", "--json", "--beam", "3", "a red dog", "")[1])
    assert "labels" not in document and document["predictions"][0] == line
    assert document["predictions"][1]["translation"] == ""


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["predict", "--top", "2", "a"], "--top is for runs that give labels"),
        (["predict", "--beam", "0", "a"], "--beam"),
        (["predict", "--beam", "51", "a"], "--beam"),
        (["predict", "--format", "fasttext", "a"], "--format"),
        (["predict", "--tokens", "--format", "tsv", "a"], "jsonl"),
        (["inside", "--unit", "1:2", "a"], "--unit is for runs that give text"),
        (["inside", "--svg", "x.svg", "a"], "--svg is for runs that give text"),
        (["inside", "--by", "word", "a"], "--by is for runs that give text"),
        (["inside", " "], "no words"),
        (["inside", "a" * 2001], "2,001 characters; expected at most 2,000"),
        (["sample"], "gives translations, not text.*charlm predict"),
        (["score", "a"], "gives translations, not text.*charlm predict"),
        (["fill", "a ___"], "gives translations, not text.*charlm predict"),
    ],
)
def test_misuse_is_answered_in_one_line(words: list[str], message: str, call: Call) -> None:
    status, out, err = call(*words, "--run", "de")
    assert (status, out) == (2, ""), err
    assert re.search(message, err) and len(err.splitlines()) == 1


# ------------------------------------------------------------------ inside


def test_inside_shows_the_attention(model: TranslateModel, call: Call) -> None:
    answer = model.as_read("a red dog")[0]
    status, out, _ = call("inside", "a red dog")
    assert status == 0
    assert out.splitlines()[0] == "token\tprobability\t<eos>\ta\tred\tdog"
    rows = list(csv.reader(call("inside", "--csv", "a red dog")[1].splitlines()))
    weights = np.array([row[2:] for row in rows[1:]], float)
    assert np.abs(weights - answer.attention).max() < 1e-5
    content = json.loads(call("inside", "--json", "a red dog")[1])
    assert (content["run"], content["translation"]) == ("de", answer.text)
    status, out, err = call("inside", "--html", "a.html", "a red dog")
    assert (status, out) == (0, "") and "wrote a.html" in err
    assert Path("a.html").read_text(encoding="utf-8").count("<tr>") == 1 + len(answer.tokens)


def test_predict_does_not_import_torch(run: Path, tmp_path: Path) -> None:
    code = f"import charlm; charlm.load({str(run)!r}).predict(['the dog', 'a zebra'])"
    modules = imported_after(code, 0, tmp_path)
    assert "charlm" in modules and not modules & {"torch", "rich"}
