"""Formats of n-gram toolkits: golden lines computed by hand, and the law that steps sum to ln P."""

import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas
import pytest
from helpers import CORPUS, Call, engine, oracle_file, tiny_model, vocabulary_of
from hypothesis import given, settings
from hypothesis import strategies as st

from charlm.backends.ngram_backend import NgramBackend
from charlm.cli.toolkits import TOOLKITS
from charlm.config.text_units import TEXT_UNITS
from charlm.inference.scores import Score
from charlm.inference.scoring import Scorer
from charlm.inference.steps import Step, StepReader, token_name
from charlm.ngrams.model import NgramModel
from charlm.report.formats import ScoredRow
from charlm.report.toolkits import TOOLKIT_FORMATS, Source
from charlm.text.boundaries import Boundaries
from charlm.units import Tally


class Listed(StepReader):
    """A reader of texts whose probabilities are 0.1, except those of unknown words: 0.01."""

    def __init__(self, length: int) -> None:
        self.length = length

    def steps(self, score: Score) -> list[Step]:
        words = [
            Step(
                name=word,
                nats=-math.log(0.01 if word == "zoo" else 0.1),
                id=0 if word == "zoo" else 3,
                oov=word == "zoo",
                length=self.length,
            )
            for word in score.text.split()
        ]
        return [*words, Step(name="</s>", nats=-math.log(0.1), id=2, length=1, is_end=True)]


def written(
    name: str, texts: Sequence[str], by: str | None = None, *, length: int = 2, closed: bool = False
) -> str:
    writer = TOOLKIT_FORMATS[name](by=by)
    writer.source = Source(reader=Listed(length), name="x.txt", closed=closed)
    rows = [
        ScoredRow(number=at, score=Score(text=text, tally=Tally(tokens=len(text.split()) + 1)))
        for at, text in enumerate(texts, start=1)
    ]
    return writer.header() + "".join(map(writer.lines, rows)) + writer.footer()


TEXTS = ["a zoo", "", "b"]
SUMMARY = (
    "file x.txt: 2 sentences, 3 words, 0 OOVs\n0 zeroprobs, logprob= -6 ppl= 15.84893 ppl1= 100\n"
)
FIRST = "1 sentences, 2 words, 0 OOVs\n0 zeroprobs, logprob= -4 ppl= 21.54435 ppl1= 100\n\n"
SECOND = "1 sentences, 1 words, 0 OOVs\n0 zeroprobs, logprob= -2 ppl= 10 ppl1= 100\n\n"


def test_srilm_by_hand() -> None:
    """Sentence a zoo: 10^-1, 10^-2, 10^-1 for its end; sentences without words are no sentences."""
    assert written("srilm", TEXTS) == SUMMARY
    assert written("srilm", TEXTS, "text") == f"a zoo\n{FIRST}b\n{SECOND}{SUMMARY}"
    assert written("srilm", TEXTS, "word") == (
        "a zoo\n"
        "\tp( a | <s> ) \t= [2gram] 0.1 [ -1 ]\n"
        "\tp( <unk> | a ...) \t= [2gram] 0.01 [ -2 ]\n"
        "\tp( </s> | <unk> ...) \t= [1gram] 0.1 [ -1 ]\n"
        f"{FIRST}"
        "b\n"
        "\tp( b | <s> ) \t= [2gram] 0.1 [ -1 ]\n"
        "\tp( </s> | b ...) \t= [1gram] 0.1 [ -1 ]\n"
        f"{SECOND}{SUMMARY}"
    )


def test_srilm_of_a_network_and_of_a_closed_vocabulary() -> None:
    assert "\tp( b | <s> ) \t= [lstm] 0.1 [ -1 ]\n" in written("srilm", TEXTS, "word", length=0)
    closed = written("srilm", TEXTS, "word", closed=True)
    assert "\tp( <unk> | a ...) \t= [OOV] 0 [ -inf ]\n" in closed
    assert closed.endswith(
        "file x.txt: 2 sentences, 3 words, 1 OOVs\n0 zeroprobs, logprob= -4 ppl= 10 ppl1= 100\n"
    )
    assert written("srilm", ["zoo"], closed=True).endswith("ppl1= undefined\n")
    assert written("srilm", [""]) == "file x.txt: 0 sentences, 0 words, 0 OOVs\n"


def test_kenlm_by_hand() -> None:
    """An empty line is a sentence of its end alone."""
    end = (
        "Perplexity including OOVs:\t13.894954943731374\n"
        "Perplexity excluding OOVs:\t10\nOOVs:\t1\nTokens:\t6\n"
    )
    end = end.replace("13.894954943731374", str(10 ** (7 / 6)))
    totals = ["Total: -4 OOV: 1\n", "Total: -1 OOV: 0\n", "Total: -2 OOV: 0\n"]
    assert written("kenlm", TEXTS, "text") == "".join(totals) + end
    assert written("kenlm", TEXTS) == (
        f"a=3 2 -1\tzoo=0 2 -2\t</s>=2 1 -1\t{totals[0]}"
        f"</s>=2 1 -1\t{totals[1]}"
        f"b=3 2 -1\t</s>=2 1 -1\t{totals[2]}{end}"
    )
    assert written("kenlm", []).startswith("Perplexity including OOVs:\tNaN\n")


def test_theanolm_by_hand() -> None:
    """Words include the start; the history is three words, behind dots if there are more."""
    one, two = -math.log(0.1), -math.log(0.01)
    text = written("theanolm", ["a b zoo d"], "word")
    assert text.splitlines()[:7] == [
        "# Sentence 1",
        f"log(p(a | <s>)) = {-one}  [a:shortlist]",
        f"log(p(b | <s> a)) = {-one}  [b:shortlist]",
        f"log(p(zoo | <s> a b)) = {-two}  [zoo:OOV]",
        f"log(p(d | ... a b zoo)) = {-one}  [d:shortlist]",
        f"log(p(</s> | ... b zoo d)) = {-one}  [</s>:shortlist]",
        f"Sentence perplexity: {math.exp((4 * one + two) / 5)}",
    ]
    assert [line.split(": ")[1] for line in text.splitlines()[8:14]] == [
        "1",
        "6",
        "6",
        "5",
        "0",
        "0",
    ]
    assert "p(zoo | <s> a b) is not predicted  [zoo:OOV]" in written(
        "theanolm", ["a b zoo d"], "word", closed=True
    )
    assert written("theanolm", TEXTS).startswith("Number of sentences: 2\nNumber of words: 7\n")


def test_lm_zoo_by_hand() -> None:
    bit = f"{math.log2(10):.6f}"
    assert written("lm-zoo", ['a"b']) == (
        f'sentence_id\ttoken_id\ttoken\tsurprisal\n1\t1\t"a""b"\t{bit}\n1\t2\t<eos>\t{bit}\n'
    )


def test_tokens_have_names_for_separators() -> None:
    assert [token_name(token) for token in (" the", "\n", ")", "\t", "a")] == [
        "<space>the", "<newline>", "<rparen>", "<U+0009>", "a",
    ]  # fmt: skip


# n-grams


def hand_made_bigrams() -> Scorer:
    """Return a scorer by the bigrams `<s> a` and `a b`, of the entries <unk>, </s>, a, b."""
    vocabulary = vocabulary_of("a b\na b\na\n", "word", words="whitespace")
    assert vocabulary.tokens[2:] == ["a", "b"]
    model = NgramModel(
        vocab_size=4,
        keys=[np.array([2 * 5 + 3, 4 * 5 + 2])],
        log_p=[np.array([-1.5, -0.5, -1.0, -2.0, 0.0]), np.array([-0.125, -0.25])],
        log_backoff=[np.array([-0.5, 0.0, -0.25, -0.125, -1.0])],
    )
    boundaries = Boundaries(document="line", line_end_is_eos=True)
    return Scorer(NgramBackend(model), vocabulary, boundaries)


@pytest.mark.parametrize("by", ["word", "token"])
def test_n_grams_have_the_length_that_was_found(by: str) -> None:
    """Back-off weights of contexts are part of a probability; b is not seen after b, nor zoo."""
    scorer = hand_made_bigrams()
    (score,) = scorer.score(["a b b zoo"], by=by)
    writer = TOOLKIT_FORMATS["kenlm"](by=by)
    writer.source = Source(reader=StepReader(scorer, by))
    assert writer.lines(ScoredRow(number=1, score=score)) == (
        "a=3 2 -0.25\tb=4 2 -0.125\tb=4 1 -2.125\t"
        "zoo=0 1 -1.625\t</s>=2 1 -1\tTotal: -5.125 OOV: 1\n"
    )
    (score,) = scorer.score(["a\nb"], by="word")
    writer.source = Source(reader=StepReader(scorer, "word"))
    assert "b=4 1 -3\t</s>=2 1 -0.625" in writer.lines(ScoredRow(number=2, score=score))


@pytest.mark.parametrize(
    ("golden", "order", "arguments"),
    [
        ("probe.kenlm3.query", 3, ["kenlm"]),
        ("probe.srilm3.debug0", 3, ["srilm"]),
        ("probe.srilm3.debug1", 3, ["srilm", "--by", "text"]),
        ("probe.srilm3.debug2", 3, ["srilm", "--by", "word"]),
        ("probe.srilm3.unk.debug2", 3, ["srilm", "--by", "word"]),
        ("probe.srilm2.unk.debug2", 2, ["srilm", "--by", "word"]),
    ],
)
def test_an_imported_model_writes_what_srilm_and_kenlm_write(
    call: Call, here: Path, golden: str, order: int, arguments: list[str]
) -> None:
    """Byte for byte; the files were written by SRILM 1.7.3 and KenLM 4cb443e."""
    expected = oracle_file(f"{golden}").read_text(encoding="utf-8")
    model = oracle_file(f"tiny{order}.arpa")
    assert call("ngram", "import", str(model), "--name", "tiny")[0] == 0
    Path("probe.txt").write_bytes(oracle_file("probe.txt").read_bytes())
    status, out, _ = call("score", "--file", "probe.txt", "--run", "tiny", "--format", *arguments)
    assert (status, out) == (0, expected)


# The command


def test_the_command_knows_every_format() -> None:
    assert set(TOOLKITS) == set(TOOLKIT_FORMATS)


def test_the_command_writes_the_words_of_any_unit(call: Call, here: Path) -> None:
    """Of a character model too; the lines of a sentence sum to those of its words and gaps."""
    Path("x.txt").write_text("the dog sleeps\n\nthe cat\n")
    score = ["score", "--file", "x.txt", "--run", "prose", "--format"]
    status, out, err = call(*score, "srilm", "--by", "word")
    assert status == 0 and "(--boundary trailing" in err
    assert out.startswith("the dog sleeps\n\tp( the | <s> ) \t= [")
    assert "\nfile x.txt: 2 sentences, 5 words, 0 OOVs\n0 zeroprobs, logprob= " in out
    _, tokens, _ = call(*score, "srilm", "--by", "token")
    assert "p( <space> | e ...)" in tokens
    _, text, _ = call(*score, "srilm", "--by", "text")
    kept = [line for line in out.splitlines() if not line.startswith("\t")]
    assert text.splitlines() == kept
    _, out, _ = call(*score, "kenlm", "--by", "text")
    totals = [float(line.split()[1]) for line in out.splitlines() if line.startswith("Total")]
    _, words, _ = call(*score, "tsv", "--by", "word", "--log-base", "10")
    rows = pandas.read_csv(io.StringIO(words), sep="\t")
    sums = (rows.surprisal_base_10 + rows.gap_base_10).groupby(rows.sentence_id).sum()
    assert totals == pytest.approx((-sums).tolist(), abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["--format", "kenlm", "--log-base", "10"], "--log-base with --format kenlm"),
        (["--format", "srilm", "--context", "b"], "--context with --format srilm"),
        (["--format", "srilm", "--carry"], "--carry with --format srilm"),
        (
            ["--format", "srilm", "--entropy"],
            "--entropy with --format srilm, which has no place for it; leave out --entropy",
        ),
        (["--format", "lm-zoo", "--by", "text"], "--by text with --format lm-zoo"),
        (["--format", "kenlm", "--closed"], "--closed"),
        (["--closed"], "--closed"),
    ],
)
def test_flags_without_a_place_in_a_format_are_refused(
    call: Call, here: Path, arguments: list[str], found: str
) -> None:
    status, out, err = call("score", "a", "--run", "tales", *arguments)
    assert (status, out) == (2, "")
    assert found in err


VOCABULARIES = {unit: vocabulary_of(CORPUS, unit) for unit in TEXT_UNITS}
VOCABULARIES["blank-separated words"] = vocabulary_of(CORPUS, "word", words="whitespace")
BACKENDS = {
    unit: engine(tiny_model("lstm", len(vocabulary), scale=3.0))
    for unit, vocabulary in VOCABULARIES.items()
}


@pytest.mark.parametrize("by", ["word", "token"])
@pytest.mark.parametrize("unit", VOCABULARIES)
@given(text=st.text(st.sampled_from("the cat sat\n\tö猫 xy.")))
@settings(max_examples=30)
def test_steps_sum_to_the_probability_of_the_text(unit: str, by: str, text: str) -> None:
    """Whatever the unit and the blanks; the last step is the end."""
    boundaries = Boundaries(document="line", line_end_is_eos=VOCABULARIES[unit].line_ends_are_eos)
    scorer = Scorer(BACKENDS[unit], VOCABULARIES[unit], boundaries)
    (score,) = scorer.score([text], by=by)
    steps = StepReader(scorer, by).steps(score)
    assert [step.is_end for step in steps] == [False] * (len(steps) - 1) + [True]
    assert math.fsum(step.nats for step in steps) == pytest.approx(score.tally.nats, abs=1e-6)
    assert not any(letter in step.name for step in steps for letter in " \n\t")
