"""The number of types that UNK stands for, and the penalty for unknown words."""

import io
import json
import math
from pathlib import Path

import numpy as np
import pandas
import pytest
from helpers import (
    CORPUS,
    Call,
    encoded_documents,
    engine,
    naive_nats,
    started,
    tiny_model,
    uniform_model,
    vocabulary_of,
)
from hypothesis import given
from hypothesis import strategies as st

import charlm
from charlm.config.corpus import CorpusSettings, VocabularySettings
from charlm.files.atomic import write_json
from charlm.inference.comparison import difference, line_nats
from charlm.inference.scoring import Scorer
from charlm.report.scores import score_table
from charlm.runs.layout import CONFIG, read_config
from charlm.text.boundaries import STREAM
from charlm.text.corpus import Corpus
from charlm.text.dataset import load_dataset
from charlm.text.tokenizers.building import (
    build_vocabulary,
    count_unk_types,
    estimate_unk_types,
    unseen_types,
)
from charlm.text.tokenizers.tokenizer_json import UNK
from charlm.training.resume import halves

WORDS = "the cat saw a dog . the dog saw a bird . the bird saw the cat . an owl saw us .\n"


def built(text: str, **settings):
    return build_vocabulary(lambda: [text], VocabularySettings(**settings))


# The estimate


def test_unseen_types_by_hand() -> None:
    """Chao's bound: f1 = 4, f2 = 2 gives 4 * 3 / (2 * 3) = 2; nothing seen once gives none."""
    assert unseen_types([1, 1, 1, 1, 2, 2, 7]) == 2.0
    assert unseen_types([2, 3]) == unseen_types([]) == 0.0


def test_the_estimate_is_near_the_truth_where_all_types_are_equally_likely() -> None:
    """There Chao's bound is sharp: 1,000 types, 1,500 draws, about 223 unseen."""
    draws = np.random.default_rng(1).integers(0, 1000, 1500)
    _, counts = np.unique(draws, return_counts=True)
    assert unseen_types(counts.tolist()) == pytest.approx(1000 - len(counts), rel=0.25)


@given(
    counts=st.dictionaries(st.text("abc", min_size=1, max_size=3), st.integers(1, 5)),
    least=st.integers(1, 6),
    literal=st.integers(0, 9),
)
def test_unk_stands_for_at_least_what_was_cut(counts: dict, least: int, literal: int) -> None:
    """At least one type; a smaller vocabulary never has an UNK of fewer types."""
    kept = [token for token, count in counts.items() if count >= least]
    types = estimate_unk_types(counts, kept)
    assert types >= max(1, len(counts) - len(kept))
    assert types <= estimate_unk_types(counts, kept[:-1])
    with_literal = estimate_unk_types(counts, kept, literal)
    assert with_literal >= max(types, min(literal, len(kept)))


def test_the_types_of_a_vocabulary_are_counted_while_it_is_built() -> None:
    """Words by hand: 6 of 12 are cut, seen once each; 4 are seen twice: 6 + 6 * 5 / (2 * 5)."""
    text = "a a a a b b b c c d d e e f f g h i j k l"
    result = built(text, unit="word", words="whitespace", min_count=2)
    assert result.unk_types == 9.0
    assert count_unk_types(lambda: [text], result.vocabulary) == result.unk_types


def test_nothing_is_unknown_in_bytes_and_bpe() -> None:
    """One type, and so no penalty."""
    assert built(CORPUS, unit="byte").unk_types == 1.0
    assert built(CORPUS, unit="bpe").unk_types == 1.0
    assert count_unk_types(lambda: [CORPUS], vocabulary_of(CORPUS, "bpe")) == 1.0


def test_literal_unks_hide_their_types() -> None:
    """In Penn Treebank, UNK has as many types as entries, or as <unk> tokens, if they are fewer."""
    few = built("<unk> a a b b <unk>", unit="word", words="whitespace")
    many = built("<unk> " * 50 + "a a b b c c", unit="word", words="whitespace")
    assert (few.unk_types, many.unk_types) == (2.0, 3.0)


def test_a_dataset_knows_what_unk_stands_for() -> None:
    """It is of the training split, with a vocabulary that is built or given."""
    text = WORDS + "zebra yak xerus\n"
    settings = VocabularySettings(unit="word", words="whitespace", min_count=2)
    plain = CorpusSettings(valid_frac=0.0)
    own = load_dataset(plain, settings, corpus=Corpus.from_text(text))
    given_one = load_dataset(
        plain, settings, corpus=Corpus.from_text(text), vocabulary=own.vocabulary
    )
    assert own.unk_types == given_one.unk_types
    assert own.unk_types is not None
    assert own.unk_types > 5
    unread = load_dataset(
        plain, settings, corpus=Corpus.from_text(text), vocabulary=own.vocabulary, count_types=False
    )
    assert unread.unk_types is None


# The price


def test_unknown_words_do_not_make_a_sentence_win() -> None:
    """Two unknown words of 1 in 5 beat two known ones, until each costs what its types share."""
    vocabulary = vocabulary_of("the cat sat", "word", words="whitespace", min_count=1)
    model = engine(uniform_model(len(vocabulary)))
    texts = ["the cat the cat", "zzz yyy zzz"]
    for penalty, best in ((0.0, 1), (5.0, 0)):
        over = Scorer(model, vocabulary, STREAM, unk_penalty=penalty)
        scores = over.score(texts)
        values = [score.penalized_log_probability for score in scores]
        assert int(np.argmax(values)) == best
        assert values[1] == pytest.approx(scores[1].log_probability - 3 * penalty)
        assert values[0] == scores[0].log_probability
        table = score_table(scores, "e", 80, rank=True)
        column = [column.header for column in table.columns]
        ranks = list(table.columns[0].cells)
        assert ("penalized" in column) == bool(penalty)
        assert ranks == (["1 *", "2  "] if penalty else ["2  ", "1  "])  # no star without a price


def test_lines_are_compared_with_the_penalty() -> None:
    """Each unknown token of a line costs it; the tally stays what it was."""
    vocabulary = vocabulary_of("ab\n")
    a, line_end = vocabulary.ids["a"], vocabulary.line_end
    documents = [[a, UNK, line_end], [a, line_end]]
    model = tiny_model("gru", len(vocabulary))
    text = encoded_documents(documents)
    plain = line_nats("x", engine(model), text, vocabulary)
    priced = line_nats("x", engine(model), text, vocabulary, unk_penalty=3.0)
    assert (priced.nats - plain.nats).tolist() == pytest.approx([3.0, 0.0])
    assert priced.tally == plain.tally
    assert priced.tokens.sum() == pytest.approx(priced.nats.sum())
    sizes = [3, 2]
    both = difference(plain, priced, sizes)
    assert both.bits_per_byte == pytest.approx(3.0 / math.log(2.0) / 5)
    assert both.unknown == pytest.approx(-8.0 / 5)  # of the first, which is not charged
    assert difference(priced, priced, sizes).unknown == 0.0
    expected = sum(sum(naive_nats(model, document)) for document in documents) + 3.0
    assert priced.nats.sum() == pytest.approx(expected, rel=1e-5)


# Runs and commands


@pytest.fixture
def words(here: Path) -> Path:
    """A run of words that occur twice or more."""
    session = started(
        here / "checkpoints", "words", text=WORDS * 3 + "zebra yak xerus vole\n", document="line",
        unit="word", words="whitespace", min_count=2, valid_frac=0.0,
    )  # fmt: skip
    list(session.records())
    return session.path


def test_a_run_keeps_what_unk_stands_for(words: Path) -> None:
    """In config.json; a resume and a run of before read it, or fall back on the entries."""
    config = read_config(words)
    assert config["unk_types"] == pytest.approx(4 + 4 * 3 / 2)
    run = charlm.load(words).run
    assert run.unk_types_recorded
    assert run.unk_penalty == pytest.approx(math.log(10))
    config.pop("unk_types")
    write_json(words / CONFIG, config)
    old = charlm.load(words).run
    assert not old.unk_types_recorded
    assert old.unk_types == len(old.vocabulary) - 2


@pytest.mark.parametrize(("stated", "types"), [(-5, 1.0), (0.5, 1.0), (7, 7.0)])
def test_a_recorded_number_of_types_is_at_least_one(
    stated: float, types: float, words: Path
) -> None:
    """A run is a folder of files that anybody may have written."""
    write_json(words / CONFIG, read_config(words) | {"unk_types": stated})
    run = charlm.load(words).run
    assert run.unk_types == types
    assert math.isfinite(run.unk_penalty)


def test_both_halves_of_a_run_keep_the_number_of_types(here: Path) -> None:
    """The backward half is of the same text."""
    session = started(
        here, text=WORDS * 3, document="line", unit="word", min_count=4, direction="both",
        valid_frac=0.0,
    )  # fmt: skip
    for half in halves(session):
        list(half.records())
    ours, backward = (read_config(path)["unk_types"] for path in (here / "x", here / "x/backward"))
    assert ours == backward > 1


def test_the_penalty_is_shown_and_can_be_changed(call: Call, words: Path) -> None:
    """On stderr with its reason, in a column of its own, in JSON; the raw column never changes."""
    texts = ["the cat saw us", "the unicorn saw us"]
    _, out, err = call("score", *texts, "--format", "tsv")
    table = pandas.read_csv(io.StringIO(out), sep="\t")
    raw, priced = table.log_probability_base_e, table.penalized_log_probability_base_e
    assert (raw - priced).tolist() == pytest.approx([0.0, math.log(10)], abs=2e-6)
    assert "1 of 2 texts contain unknown tokens (UNK). Each of them costs 2.303 nats" in err
    assert "ln 10, the number of types that UNK stands for" in err
    assert "The text contains unknown tokens (UNK). Each" in call("score", texts[1])[2]
    for typed, cost in (("0", 0.0), ("1.5", 1.5)):
        _, out, err = call("score", *texts, "--format", "jsonl", "--unk-penalty", typed)
        rows = [json.loads(line) for line in out.splitlines()]
        assert rows[1]["unk_penalty"] == cost
        assert rows[1]["log_probability"] == pytest.approx(raw[1], abs=1e-5)
        assert rows[1]["penalized_log_probability"] == pytest.approx(raw[1] - cost, abs=1e-5)
        assert ("without a penalty" in err) == (cost == 0)
    scores = call("score", *texts, "--format", "scores")[1].split()
    assert [float(score) for score in scores] == pytest.approx(priced.tolist())
    library = charlm.load(words).score(texts)
    assert library[1].penalized_log_probability == pytest.approx(priced[1], abs=1e-5)


@pytest.mark.parametrize("value", ["-1", "nan", "inf", "x"])
def test_a_penalty_is_a_number_from_zero_on(value: str, call: Call, words: Path) -> None:
    """Checked before anything is read, and named by its flag."""
    for verb in (["score", "a"], ["compare", "words", "words", "--file", "none"]):
        status, out, err = call(*verb, f"--unk-penalty={value}")
        assert (status, out, "--unk-penalty" in err) == (2, "", True)


def test_compare_charges_unknown_words(call: Call, here: Path, words: Path) -> None:
    """Each run its own penalty, reported; the same run is never better than itself."""
    (here / "t.txt").write_text("the unicorn saw us\n" * 30)
    status, out, err = call("compare", "words", "words", "--file", "t.txt")
    assert status == 0
    assert "penalized" in out.splitlines()[0]
    assert err.count("words: each unknown token (UNK) costs 2.303 nats more, ln 10") == 2
    content = json.loads(call("compare", "words", "words", "--file", "t.txt", "--json")[1])
    first, other = content["runs"]
    assert other["difference"]["verdict"] == "no difference shown"
    assert other["difference"]["bits_per_byte"] == 0.0
    extra = 30 * math.log(10) / math.log(2) / first["bytes"]
    assert first["penalized_bits_per_byte"] == pytest.approx(first["bits_per_byte"] + extra)
    _, out, err = call("compare", "words", "words", "--file", "t.txt", "--unk-penalty", "0")
    assert "penalized" not in out
    assert "without a penalty" in err


def test_eval_reports_figures_with_the_price(call: Call, here: Path, words: Path) -> None:
    """30 unknown tokens of ln 10 nats each; a text without any has no note."""
    (here / "t.txt").write_text("the unicorn saw us\n" * 30)
    content = json.loads(call("eval", "--file", "t.txt", "--json")[1])
    nats = content["nats"] + 30 * math.log(10)
    assert content["oov"] == 30 and content["unk_penalty"] == pytest.approx(math.log(10))
    bits_per_char = nats / math.log(2) / content["chars"]
    assert content["penalized_bits_per_char"] == pytest.approx(bits_per_char)
    assert content["penalized_word_perplexity"] == pytest.approx(math.exp(nats / content["words"]))
    _, _, err = call("eval", "--file", "t.txt")
    assert "With 2.303 nats more for each (ln 10, the number of types" in err
    assert f"): {bits_per_char:.4f} bits per character" in err
    (here / "t.txt").write_text("the cat saw us\n" * 30)
    assert "UNK" not in call("eval", "--file", "t.txt")[2]


def test_pairs_say_how_fewer_words_would_be_unknown(call: Call, here: Path, words: Path) -> None:
    (here / "p.tsv").write_text("sentence_good\tsentence_bad\nThe cat saw us\tThe CAT us saw\n")
    _, _, err = call("pairs", "p.tsv")
    assert "If the texts had lower case, 0 of 3 unknown tokens would remain" in err


def test_a_vocabulary_says_what_its_unk_stands_for(call: Call, here: Path) -> None:
    """Also a frozen one, of another text."""
    (here / "t.txt").write_text(WORDS * 3 + "zebra yak xerus vole\n")
    flags = ["--unit", "word", "--words", "whitespace", "--min-count", "2"]
    assert "UNK stands for" in call("vocab", "t.txt", *flags)[1]
    written = json.loads(call("vocab", "t.txt", *flags, "--json", "--out", "v.json")[1])
    again = json.loads(call("vocab", "t.txt", "--vocab", "v.json", "--json")[1])
    assert written["unk_types"] == again["unk_types"] == 10.0


def test_perplexity_per_word_counts_words_not_tokens(call: Call, words: Path) -> None:
    """The perplexity per word is exp(nats / words), beside that per token, wherever it is shown."""
    tally = charlm.load(words).score("the cat saw us")[0].tally
    assert tally.word_perplexity == pytest.approx(math.exp(tally.nats / 4))
    shown = call("score", "the cat saw us", "the dog", "--format", "table")[1]
    assert "ppl/word" in shown
    assert f"{tally.word_perplexity:,.1f}" in shown
    (words.parent.parent / "t.txt").write_text("the cat saw us\n")
    assert "perplexity per word" in call("eval", "--file", "t.txt")[1]
    for verb in ("score", "eval"):
        assert "exp(nats / number of words)" in " ".join(call(verb, "--help")[1].split())
