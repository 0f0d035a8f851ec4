"""Readers of tagged sentences: one result whatever the format, and bad input named by its place."""

import gzip
import os
from pathlib import Path

import pytest

from charlm.config.corpus import ReadSettings
from charlm.errors import CharlmError, CorpusError, UsageError
from charlm.text.sources.kinds import advice_for
from charlm.text.sources.text_lines import FileRules
from charlm.text.spans import spans_of
from charlm.text.tagged_files import MAX_WORDS, read_sentences
from charlm.text.tagged_tables import Sentence

SENTENCES = [
    [("EU", "B-ORG"), ("rejects", "O"), ("#win", "O"), (".", "O")],
    [("Redondo\u00a0Beach", "B-LOC"), ("ist", "O"), ("schön\u2028!", "O")],
]
PLAIN = "\n\n".join("\n".join(" ".join(pair) for pair in each) for each in SENTENCES) + "\n"
UNIVERSAL = """# sent_id = 1
# text = EUs don't
1\tEUs\tEU\tPROPN\tNNPS\t_\t0\troot\t_\t_
2-3\tdon't\t_\t_\t_\t_\t_\t_\t_\t_
2\tdo\tdo\tAUX\tVBP\tMood=Ind\t1\taux\t_\t_
3\tn't\tnot\tPART\tRB\t_\t1\tadvmod\t_\t_
3.1\tgo\tgo\tVERB\t_\t_\t_\t_\t_\t_

1\t10 000\t10000\tNUM\tCD\t_\t0\troot\t_\t_
"""


def written(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def read(path: Path, target: str | None = None, *, needs_tags=True, warn=None, **reading):
    rules = FileRules(
        settings=ReadSettings(**reading), target=target, needed=needs_tags,
        warn=warn or (lambda _: None),
    )  # fmt: skip
    return list(read_sentences([str(path)], rules))


def pairs(sentences: list[Sentence]) -> list[list[tuple[str, str]]]:
    return [list(zip(s.words, s.tags or (), strict=True)) for s in sentences]


def problem(path: Path, target: str | None = None, kind=CorpusError, **options) -> str:
    with pytest.raises(CharlmError) as raised:
        read(path, target, **options)
    assert type(raised.value) is kind
    return str(raised.value).replace(str(path.parent) + "/", "")


VARIANTS = {
    "blanks": PLAIN,
    "tabs": PLAIN.replace(" ", "\t"),
    "tabs at the end": PLAIN.replace(" ", "\t").replace("\n", "\t\n"),
    "blanks in groups": PLAIN.replace(" ", "   "),
    "crlf": PLAIN.replace("\n", "\r\n"),
    "no line end": PLAIN.rstrip("\n"),
    "byte-order mark": "\ufeff" + PLAIN,
    "documents": "-DOCSTART- -X- O\n\n" + PLAIN.replace("\n\n", "\n\n-DOCSTART- O\n\n"),
    "comments": "# a comment of many words\n#\n" + PLAIN.replace("\n\n", "\n \t\n\n# id 2 x\n"),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_rows_of_words_and_tags_are_read_in_every_form(variant: str, tmp_path: Path):
    path = written(tmp_path / "eng.train", VARIANTS[variant])
    assert pairs(read(path)) == SENTENCES


def test_the_place_of_a_sentence_is_its_first_row(tmp_path: Path):
    path = written(tmp_path / "x.conll", "\n\n" + PLAIN)
    assert [s.place for s in read(path)] == [f"{path}: line 3", f"{path}: line 8"]


def test_tags_are_the_last_column_or_the_one_named(tmp_path: Path):
    path = written(tmp_path / "x.conll", "EU NNP B-NP B-ORG\nrejects VBZ B-VP O\n")
    assert [s.tags for s in read(path)] == [("B-ORG", "O")]
    assert [s.tags for s in read(path, "2")] == [("NNP", "VBZ")]


def test_what_is_read_is_reported_once_for_all_files(tmp_path: Path):
    told: list[str] = []
    rules = FileRules(warn=told.append)
    for name in ("a.conll", "b.conll"):
        list(read_sentences([str(written(tmp_path / name, PLAIN))], rules))
    assert told == [f"{tmp_path}/a.conll is read as CoNLL: words in column 1, tags in column 2."]


def test_packed_files_are_read(tmp_path: Path):
    path = tmp_path / "x.conllu.gz"
    path.write_bytes(gzip.compress(UNIVERSAL.encode()))
    assert [s.words for s in read(path)] == [("EUs", "do", "n't"), ("10 000",)]
    assert [s.words for s in read(path, needs_tags=False)] == [("EUs", "do", "n't"), ("10 000",)]


@pytest.mark.parametrize("name", ["x.conllu", "x.txt"])
@pytest.mark.parametrize(
    ("target", "tags"),
    [(None, "PROPN AUX PART"), ("XPOS", "NNPS VBP RB"), ("feats", "_ Mood=Ind _")],
)
def test_words_of_conllu_are_its_integer_ids(name: str, target, tags: str, tmp_path: Path):
    path = written(tmp_path / name, UNIVERSAL)
    first, second = read(path, target)
    assert first.words == ("EUs", "do", "n't") and first.tags == tuple(tags.split())
    assert second.words == ("10 000",) and second.place == f"{path}: line 9"


@pytest.mark.parametrize(
    ("text", "target", "says"),
    [
        (PLAIN + "Blvd\n", None, "x.conll: line 9 has 1 column ('Blvd'); expected 2"),
        (PLAIN + "a b c\n", None, "line 9 has 3 columns ('a b c'); expected 2"),
        (PLAIN.replace(" ", "\t", 1), None, "line 2 has 1 column ('rejects O'); expected 2"),
        ("a\tb\n \tc\n", None, "line 2 has an empty word"),
        ("a\tb\nc\t\n", None, "line 2 has 1 column ('c'); expected 2"),
        ("a\tb\tc\nd\t\te\n", "2", "line 2 has an empty tag"),
        ("a b\n\u00a0 c\n", None, r"line 2 has the word '\xa0', which is blank"),
        ("a b\n#win\n", None, "line 2 has 1 column ('#win'); expected 2"),
        ("EU\nrejects\n", None, "x.conll has words without tags, one column"),
        ("", None, "x.conll has no sentences"),
        ("\n\n# x y z\n", None, "x.conll has no sentences"),
        (PLAIN, "3", "x.conll has 2 columns; expected tags in column 3"),
        ("a b c\n", "9", "after the words in column 1. Give a number from 2 to 3"),
        ("a\nb\n", "2", "x.conll has words without tags, one column"),
        (PLAIN, "1", "tags in column 1 by target, after the words in column 1. Leave it out"),
        ("# text\n" + PLAIN, None, "line 1 ('# text') is a comment or a word with the tag 'text'"),
        (
            "\t".join("0123456789") + "\n1\ta\n",
            None,
            r"line 2 has 2 columns ('1\ta'); expected the 10",
        ),
        (
            "\t".join("0123456789") + "\n" + "\t".join("x123456789") + "\n",
            None,
            "line 2 has the ID 'x' (",
        ),
    ],
)
def test_rows_that_do_not_match_are_refused_with_their_place(text, target, says, tmp_path: Path):
    assert says in problem(written(tmp_path / "x.conll", text), target)


def test_a_row_of_conllu_without_its_columns_is_refused(tmp_path: Path):
    path = written(tmp_path / "x.conllu", UNIVERSAL.replace("\t0\troot\t_", ""))
    assert "line 3 has 7 columns" in problem(path)
    for form, says in (("", "an empty FORM"), ("\u00a0", r"the FORM '\xa0', which is blank")):
        path = written(tmp_path / "x.conllu", UNIVERSAL.replace("2\tdo\t", f"2\t{form}\t"))
        assert f"line 5 has {says}; expected a word. Correct that line" in problem(path)


def test_a_column_of_conllu_without_tags_is_refused(tmp_path: Path):
    path = written(tmp_path / "x.conllu", UNIVERSAL.replace("Mood=Ind", "_"))
    assert problem(path, "feats").startswith("x.conllu has no feats: its column holds only _")
    assert len(read(path, "feats", needs_tags=False)) == 2


@pytest.mark.parametrize(("name", "text"), [("x.conll", PLAIN), ("x.conllu", UNIVERSAL)])
def test_a_target_of_another_format_is_refused(name: str, text: str, tmp_path: Path):
    path = written(tmp_path / name, text)
    assert "target is 'Tags'" in problem(path, "Tags", kind=UsageError)


def test_tables_are_refused_unless_they_are_said_to_be_text(tmp_path: Path):
    path = written(tmp_path / "x.tsv", PLAIN.replace(" ", "\t"))
    assert problem(path).startswith("x.tsv is a table; expected a CoNLL file")
    assert pairs(read(path, input_format="text")) == SENTENCES


def test_a_very_long_sentence_is_told(tmp_path: Path):
    told: list[str] = []
    path = written(tmp_path / "x.conll", "a O\n" * (MAX_WORDS + 1))
    read(path, warn=told.append)
    assert f"{path}: line 1 begins a sentence of 251 words; expected an empty line" in told[0]


# ------------------------------------------------------------------ text without tags


def test_each_line_of_plain_text_is_a_sentence(tmp_path: Path):
    path = written(tmp_path / "x.txt", "EU  rejects\tit\n\n it\u00a0all \n")
    assert read(path, needs_tags=False) == [
        Sentence(("EU", "rejects", "it"), None, f"{path}: line 1"),
        Sentence((), None, f"{path}: line 2"),
        Sentence(("it\u00a0all",), None, f"{path}: line 3"),
    ]


def test_conll_is_recognised_where_text_is_expected(tmp_path: Path):
    told: list[str] = []
    path = written(tmp_path / "x.txt", PLAIN)
    assert pairs(read(path, needs_tags=False, warn=told.append)) == SENTENCES
    assert told == [f"{path} looks like CoNLL; the first word of each line is read."]


def test_files_named_conll_may_hold_words_alone(tmp_path: Path):
    path = tmp_path / "x.IOB.gz"
    path.write_bytes(gzip.compress(b"EU\nrejects\n\n#win\n"))
    found = read(path, needs_tags=False)
    assert [s.words for s in found] == [("EU", "rejects"), ("#win",)]
    assert [s.tags for s in found] == [None, None]


def test_conll_that_is_read_as_prose_is_told_to_have_a_task():
    advice = advice_for(PLAIN)
    assert (
        "To learn the tags add --task tag; to read the sentences write one on each line" in advice
    )


@pytest.mark.skipif("CHARLM_DATA" not in os.environ, reason="CHARLM_DATA names no folder of data")
@pytest.mark.parametrize(
    ("name", "sentences", "words", "spans"),
    [
        ("wnut17/train.conll", 3394, 62730, 1975),
        ("wnut17/dev.conll", 1009, 15733, 836),
        ("wnut17/test.conll", 1287, 23394, 1079),
        ("ewt/train.conllu.gz", 12544, 204577, 0),
    ],
)
def test_public_sets_have_their_published_sizes(name: str, sentences: int, words: int, spans: int):
    found = read(Path(os.environ["CHARLM_DATA"], "tasks", name))
    assert len(found) == sentences and sum(len(each.words) for each in found) == words
    assert sum(len(spans_of(each.tags or ())) for each in found) == spans


WORDS = "EU NNP B-ORG\nrejects VBZ O\nit PRP O\n\nAnn NNP B-PER\nleft VBD O\n\n" * 6


def with_column(cell) -> str:
    """Return WORDS with a column before them; `cell` gets the number of the word from 1."""
    lines, number = [], 0
    for line in WORDS.splitlines():
        number = number + 1 if line else 0
        lines.append(f"{cell(number, line.split()[-1])} {line}" if line else "")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("cell", "found"),
    [
        (lambda number, _: number, "numbers of words"),
        (lambda number, _: number - 1, "numbers of words"),
        (lambda *_: "bc/cctv/00/cctv_0000", "the same in each row"),
        (lambda _, tag: tag, "tags"),
    ],
)
def test_a_first_column_without_words_is_refused(cell, found: str, tmp_path: Path):
    """As in CoNLL-2009 and CoNLL-2012: the numbers of the words were learned in their place."""
    path = written(tmp_path / "x.conll", with_column(cell))
    with pytest.raises(CorpusError, match=f"column 1 holds {found} .line 1: .*cut -d' ' -f2-"):
        read(path)
    path = written(tmp_path / "y.conll", with_column(cell).replace(" ", "\t"))
    with pytest.raises(CorpusError, match=f"column 1 holds {found} .line 1: .*cut -f2-"):
        read(path, needs_tags=False)


def test_words_that_are_numbers_are_read(tmp_path: Path):
    rows = ["1 CD", "2 CD", "0 CD", "", "1 CD", "3 CD", "O CD", ""]
    assert len(read(written(tmp_path / "x.conll", "\n".join(rows) + "\n"))) == 2


def test_words_of_conllu_without_a_tag(tmp_path: Path):
    """An underscore is a value of FEATS, but no part of speech; an empty cell is neither."""
    warnings: list[str] = []
    path = written(tmp_path / "x.conllu", UNIVERSAL.replace("AUX\tVBP", "_\tVBP"))
    read(path, warn=warnings.append)
    assert any("1 word without UPOS (_), learned as a tag" in each for each in warnings)
    warnings.clear()
    read(path, "feats", warn=warnings.append)
    assert not any("learned as" in each for each in warnings)
    path = written(tmp_path / "y.conllu", UNIVERSAL.replace("AUX\tVBP", "\tVBP"))
    with pytest.raises(CorpusError, match="line 5 has an empty UPOS"):
        read(path)
