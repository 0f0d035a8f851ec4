"""`charlm predict`, `eval` and `compare` on a run that gives tags."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
from helpers import Call
from tagged_runs import PARTS, SPANS, WORDS, tag_run
from test_floors import imported_after

from charlm.api.loading import load
from charlm.api.tag_evaluation import evaluate_tags
from charlm.api.tags import TagModel
from charlm.errors import UsageError
from charlm.text.spans import spans_of

TEXT = "Anna  lives\tin New York , says Bob ."


@pytest.fixture
def run(here: Path) -> Path:
    return tag_run(here / "checkpoints" / "names")


@pytest.fixture
def model(run: Path) -> TagModel:
    return load(run)


def conll(path: Path, sentences: list[tuple[list[str], list[str]]]) -> str:
    """Write a CoNLL file and return its name."""
    rows = ("".join(f"{w} {t}\n" for w, t in zip(*each, strict=True)) for each in sentences)
    path.write_text("\n".join(rows), encoding="utf-8")
    return path.name


# ------------------------------------------------------------------ the library


def test_spans_lie_in_the_text_as_it_was_given(model: TagModel) -> None:
    """Their characters are those of their words, with the blanks between them."""
    (found,) = model.predict(TEXT)
    assert found.words == tuple(TEXT.split()) and len(found.tags) == len(found.words)
    assert set(found.tags) <= set(SPANS)
    assert [(s.type, s.first, s.last) for s in found.spans] == [*map(tuple, spans_of(found.tags))]
    for span in found.spans:
        assert TEXT[span.start : span.end] == span.text
        assert span.text.split() == list(found.words[span.first : span.last + 1])
        assert span.probability == min(found.probabilities[span.first : span.last + 1])
    (same,) = model.predict([TEXT.split()])
    assert (same.words, same.tags) == (found.words, found.tags)
    assert same.probabilities == pytest.approx(found.probabilities)
    assert [" ".join(same.words)[s.start : s.end] for s in same.spans] == [
        s.text for s in same.spans
    ]


def test_a_sentence_has_its_tags_in_any_company(model: TagModel) -> None:
    texts = [TEXT, "", ["Bob"], WORDS, ["Anna", "\U0001f600"]] * 60
    together = model.predict(iter(texts))
    for text, found in list(zip(texts, together, strict=True))[-5:]:
        (alone,) = model.predict([text])
        assert alone.tags == found.tags
        assert alone.probabilities == pytest.approx(found.probabilities, abs=1e-5)
    shares = model.as_read(TEXT)
    assert [word for word, _ in shares] == TEXT.split()
    assert all(sum(own.values()) == pytest.approx(1.0) for _, own in shares)
    assert model.features(texts).shape == (sum(len(found.words) for found in together), 6)


def test_punctuation_without_blanks_is_reported(run: Path, call: Call) -> None:
    """The story: a mark is a word if it was in training, and "Smith." is another word."""
    advice = "If the texts had blanks around punctuation"
    assert advice in call("predict", "Bob met Anna Smith.")[2]
    assert advice not in call("predict", TEXT)[2]


def test_a_pickled_model_gives_the_same_tags(model: TagModel) -> None:
    assert pickle.loads(pickle.dumps(model)).predict(TEXT) == model.predict(TEXT)
    assert "5 tags (B-LOC" in repr(model)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (5, "texts is 5"), ([5], r"texts\[0\] is 5"), ([["a", 1]], r"texts\[0\] is \['a', 1\]"),
        ([["a", ""]], "the word ''"), ([["a\nb"]], "the word 'a"),
    ],
)  # fmt: skip
def test_what_is_no_sentence_is_refused(model: TagModel, texts, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        model.predict(texts)


def test_counts_are_those_of_the_tags(model: TagModel) -> None:
    (found,) = model.predict(TEXT)
    assert model.evaluate([TEXT], [found.tags]).accuracy == 1.0
    counts = model.evaluate([TEXT, ["Bob"]], [found.tags, ["B-ORG"]])
    assert (counts.tags, counts.unseen) == (len(found.words) + 1, 1)
    with pytest.raises(UsageError, match="1 tags for 9 words"):
        model.evaluate([TEXT], [["O"]])


def test_spans_in_memory_may_be_in_any_scheme(model: TagModel) -> None:
    """As those of files: U-PER counted as an error, though it is B-PER of IOB2."""
    words, place = ["Ann", "saw", "Bob", "Lee"], model.labels[1].removeprefix("B-")
    schemes = (f"B-{place} O B-{place} I-{place}", f"U-{place} O B-{place} L-{place}",
               f"I-{place} O I-{place} I-{place}")  # fmt: skip
    counts = [model.evaluate([words], [tags.split()]) for tags in schemes]
    assert counts[0].unseen == 0 and counts[1:] == 2 * counts[:1]


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        (["O"], r"tags\[0\] is 'O'; expected a list of names"),
        ([[1]], r"tags\[0\] is \[1\]; expected a list of names"),
        ([["X"]], r"none of the tags \('X'\) is one of run "),
    ],
)
def test_tags_that_are_no_names_of_the_run_are_refused(model: TagModel, tags, message) -> None:
    """All of them counted as errors, without a word."""
    with pytest.raises(UsageError, match=message):
        model.evaluate([["Ann"]], tags)


# ------------------------------------------------------------------ the commands


def test_formats_agree(model: TagModel, call: Call) -> None:
    (found,) = model.predict(TEXT)
    pairs = zip(found.words, found.tags, strict=True)
    rows = "".join(f"{word}\t{tag}\n" for word, tag in pairs) + "\n"
    assert call("predict", TEXT)[:2] == (0, rows)
    tsv = call("predict", "--format", "tsv", TEXT)[1].splitlines()
    assert tsv[0] == "word\ttag\tprobability" and tsv[-1] == ""
    assert [line.rpartition("\t")[0] for line in tsv[1:-1]] == rows.splitlines()[:-1]
    assert call("predict", "--format", "tags", TEXT)[1] == " ".join(found.tags) + "\n"
    line = json.loads(call("predict", "--format", "jsonl", TEXT)[1])
    spans = json.loads(call("predict", "--format", "spans", TEXT)[1])
    document = json.loads(call("predict", "--json", TEXT)[1])
    assert document["predictions"] == [{"text": TEXT, **line}]
    assert document["labels"] == list(SPANS)
    assert spans == {"text": TEXT, "spans": line["spans"]}
    assert line["tags"] == list(found.tags)
    table = call("predict", "--format", "table", TEXT)[1]
    assert table.split("\n")[0].split() == ["word", "tag", "probability"]


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize("output", ["tags", "jsonl", "spans"])
def test_lines_stay_side_by_side(output: str, call: Call) -> None:
    """Also empty ones; a CoNLL file gives what its words on lines give."""
    lines = ["Anna lives", "", "in New York", "  ", "x"]
    text = "\n".join(lines).encode()
    _, out, _ = call("predict", "--format", output, stdin=text)
    assert len(out.splitlines()) == len(lines)
    sentences = [(line.split(), ["O"] * len(line.split())) for line in lines if line.strip()]
    _, from_file, _ = call(
        "predict", "--format", output, "--file", conll(Path("x.conll"), sentences)
    )
    kept = [found for found, line in zip(out.splitlines(), lines, strict=True) if line.strip()]
    assert from_file.splitlines() == kept


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["predict", "--top", "2", "a"], "--top is for runs that give labels, and run names gives"),
        (["predict", "--tokens", "a"], "--tokens is for runs"),
        (["predict", "--format", "fasttext", "a"], "expected one of auto, table, conll"),
        (["eval", "--cache", "3"], "--cache is for runs that give text"),
        (["eval", "--beam", "3"], "--beam is for runs"),
        (["eval"], "keeps no held-out text"),
        (["sample"], "charlm predict --run names"),
        (["compare", "names", "tales"], "gives tags, and run tales gives text"),
    ],
)  # fmt: skip
def test_misuse_is_answered_in_one_line(words: list[str], message: str, call: Call) -> None:
    words = words if words[0] == "compare" else [*words, "--run", "names"]
    status, out, err = call(*words)
    assert (status, out) == (2, "") and message in err
    assert len(err.splitlines()) == 1


def test_figures_of_a_file_are_those_of_its_tags(model: TagModel, run: Path, call: Call) -> None:
    """And the worst sentence is the one with most nats, its wrong words marked."""
    texts = [TEXT.split(), WORDS.split(), ["Bob"]]
    tags = [list(found.tags) for found in model.predict(texts)]
    right = conll(Path("right.conll"), list(zip(texts, tags, strict=True)))
    other = "O" if tags[2] != ["O"] else "B-LOC"
    wrong = conll(Path("wrong.conll"), list(zip(texts, [*tags[:2], [other]], strict=True)))
    figures = json.loads(call("eval", "--file", right, "--json")[1])
    assert (figures["accuracy"], figures["f1"], figures["tags"]) == (1.0, 1.0, 26)
    status, out, err = call("eval", "--file", wrong, "--worst", "1")
    assert status == 0 and "span-F1" in out and "words in column 1" in err
    figures = json.loads(call("eval", "--file", wrong, "--worst", "3", "--json")[1])
    assert figures["accuracy"] == 25 / 26 and figures["floor"] is None
    own = next(each for each in figures["worst"] if each["words"] == ["Bob"])
    assert (own["gold"], own["predicted"]) == ([other], tags[2])
    assert {"PER", "LOC"} < set(figures["per_type"])
    result = evaluate_tags(model.run, [wrong])
    assert figures["nats"] == pytest.approx(result.counts["text"].nats)
    Path("plain.txt").write_text("some words\nof prose here\n")
    assert call("eval", "--file", "plain.txt")[0] == 3
    unknown = conll(Path("unknown.conll"), [(["a"], ["B-ORG"])])
    assert "none of its tags ('B-ORG')" in call("eval", "--file", unknown)[2]
    assert run.exists()


def test_runs_are_compared_sentence_by_sentence(model: TagModel, run: Path, call: Call) -> None:
    """A run and its copy differ by nothing; runs of other tags are refused."""
    file = conll(Path("x.conll"), [(["Bob", "lives"], ["B-PER", "O"])] * 3)
    shutil.copytree(run, run.with_name("copy"))
    _, out, _ = call("compare", "names", "copy", "--file", file, "--json")
    change = json.loads(out)["runs"][1]["difference"]
    assert (change["value"], change["low"], change["high"]) == (0.0, 0.0, 0.0)
    assert change["verdict"] == "no difference shown" and change["figure"] == "f1"
    assert "no difference shown" in call("compare", "names", "copy", "--file", file)[1]
    tag_run(run.with_name("parts"), labels=PARTS)
    status, _, err = call("compare", "names", "parts", "--file", file)
    assert status == 2 and "expected runs of the same tags" in err
    assert model.labels == SPANS


def test_no_torch_is_imported(run: Path, tmp_path: Path) -> None:
    words = ["predict", "Anna lives", "--run", str(run)]
    code = f"from charlm.cli import main; main({words!r})"
    assert "torch" not in imported_after(code, 0, tmp_path)
