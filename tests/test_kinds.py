"""Kinds of text: markup, tables and JSON are recognised, and plain text is left alone."""

import json
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from charlm.runs.built_in import shipped
from charlm.text.corpus import Corpus
from charlm.text.documents import END
from charlm.text.sources.kinds import advice_for
from charlm.text.sources.record_formats import SEPARATORS

CONLL_U = (
    "# sent_id = 1\n# text = The cat\n1\tThe\tthe\tDET\t_\t_\t2\tdet\t_\t_\n"
    "2\tcat\tcat\tNOUN\t_\t_\t0\troot\t_\t_\n\n1\tA\ta\tDET\t_\t_\t2\tdet\t_\t_\n"
)
CONLL_2003 = (
    "-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n\nPeter NNP B-NP B-PER\n"
)
FASTA = ">a first\r\nACGT\r\nAC\r\n\r\n>b\r\nGGT*\r\n"
FASTQ = "@a\nACGT\n+\n!!@+\n@b\nGG\n+b\nII\n"
PGN = (
    '[Event "?"]\r\n[Site "Rome"]\r\n[Result "*"]\r\n\r\n1. e4 e5\r\n2. Nf3 *\r\n\r\n'
    '[Event "?"]\r\n\r\n1. d4 {[%clk 1]} *\r\n'
)
ABC = "X:1\nT: A song\nK: G\nG2 | B2\n\nX: 2\nK:Am\nA2 | c2\n"
QUOTES = 'One "or"\ntwo.\n%\nThree,\n\nfour.\n%\nFive\n'
HTML = "<p>One.</p>\n<p>Two.</p>\n<div>Three.</div>\n<ul><li>Four.</li></ul>\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[{"text": "a"},\n {"text": "b"}]', "--input-format json."),
        (json.dumps([{"text": "a" * 99_999}]), "--input-format json."),
        ('{\n  "text": "a"\n}', "--input-format json."),
        ('["a", "b"]', "--input-format json."),
        ('{"text": "a"}\n{"text": "b"}\n', "--input-format jsonl."),
        ("<!DOCTYPE html>\n<title>x</title>", "pandoc -t plain"),
        ('<?xml version="1.0"?>\n<a/>', "pandoc -t plain"),
        (HTML, "pandoc -t plain"),
        (CONLL_U, 'printf "%s ", $2'),
        (CONLL_2003, 'printf "%s ", $1'),
        ("1\tthe cat\n2\ta dog\n", "--input-format tsv --column N, and --no-header"),
        ("id\ttext\r\n1\tthe cat\r\n", "--input-format tsv"),
        ("id,text\n1,the cat\n2,a dog\n", "(commas between the fields)"),
        ("id;text\n1;the cat, sat\n2;a dog\n", "(semicolons between the fields)"),
        ("__label__a the cat\n__label__b a dog\n", "labels (__label__); --task classify reads"),
        (FASTA, "looks like FASTA and is read as plain text, headers and line ends included"),
        (FASTQ, "looks like FASTQ"),
        (PGN, "looks like PGN and is read as plain text, tags included. To learn the moves alone"),
        (ABC, "If blank lines separate the tunes, add --document paragraph"),
        (QUOTES, 'has lines "%" between its texts'),
        (QUOTES.replace("%", "$$$$"), 'has lines "$$$$"'),
        ('text,label\n"Well, no.",neg\nyes,pos\n', "--input-format csv"),
    ],
)
def test_other_kinds_of_text_are_recognised(text, words) -> None:
    assert words in advice_for(text)


@pytest.mark.skipif(shutil.which("awk") is None, reason="awk is not installed")
def test_the_programs_for_conll_put_sentences_on_lines() -> None:
    """A word may begin with #."""
    for text, expected in [
        (CONLL_U, "The cat \nA "),
        (CONLL_2003, "-DOCSTART- \nEU rejects \nPeter "),
        ("#tag O\nsays B-PER\n\nhe O\n", "#tag says \nhe "),
    ]:
        program = advice_for(text).partition("awk '")[2].removesuffix("'.")
        command = ["awk", program]
        assert (
            subprocess.run(command, input=text, capture_output=True, text=True).stdout == expected
        )


@pytest.mark.skipif(shutil.which("awk") is None, reason="awk is not installed")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (FASTA, ["ACGTAC", "GGT*"]),
        (FASTQ, ["ACGT", "GG"]),
        (PGN, ["1. e4 e5 2. Nf3 *", "1. d4 {[%clk 1]} *"]),
    ],
)
def test_the_programs_for_records_put_each_on_a_line(text, expected) -> None:
    program = advice_for(text).partition("awk '")[2].partition("'. Then")[0]
    done = subprocess.run(["awk", program], input=text, capture_output=True, text=True)
    assert done.stdout.splitlines() == expected


@pytest.mark.skipif(shutil.which("awk") is None, reason="awk is not installed")
@pytest.mark.parametrize("separator", SEPARATORS)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_the_program_for_separated_texts_makes_a_table(tmp_path, separator, line_end) -> None:
    """Texts keep their quotes and blank lines."""
    text = QUOTES.replace("%", separator).replace("\n", line_end)
    command = advice_for(text).partition("for example: ")[2].partition(". Read it")[0]
    done = subprocess.run(shlex.split(command), input=text.encode(), capture_output=True)
    path = tmp_path / "quotes.csv"
    path.write_bytes(done.stdout)
    corpus = Corpus([str(path)], input_format="csv", quoting="csv", header=False)
    texts = "".join(corpus.chunks()).split(END)
    expected = ['One "or"\ntwo.', "Three,\n\nfour.", "Five\n", ""]
    assert [each.replace("\r\n", "\n") for each in texts] == expected


def test_tunes_that_are_read_one_by_one_get_no_advice() -> None:
    assert advice_for(ABC, "paragraph") == advice_for(ABC, "file") == ""


def test_files_of_one_kind_are_reported_together(tmp_path) -> None:
    for name in "abc":
        (tmp_path / name).write_text(PGN)
    corpus = Corpus([str(tmp_path)])
    assert list(corpus.chunks())
    first, total = corpus.warnings
    assert first.startswith(f"{tmp_path / 'a'} looks like PGN")
    assert total == f"{tmp_path / 'a'} is the first of 3 such files."


@pytest.mark.parametrize(
    "text",
    [
        "",
        ">>> f()\nTrue\n>>> g()\nNone\n",
        "> well\nyes\n> so\nno\n",
        "He said 5\n%\nof it.\n",
        "%\n% A text in TeX.\n%\n\\begin{document}\nThe cat sat.\n%\n\\end{document}\n",
        "X:1\nT: one tune\nK: G\nG2 | B2\n",
        "@a\nb\nc\nd\n@e\nf\ng\nh\n",
        '[Event "a"]\n[and]\n[more]\n',
        "\n",
        "The cat, which sat, ran.\nA dog, it said, came.\nSo, it is, he said.\n",
        "Smith, John\nDoe, Jane\nRoe, Jim\n",
        "ear him, lords,\nAnd you, my men,\n",
        "I come to bury Caesar,\nNot to praise him,\n",
        "He came;\nhe saw;\n",
        "[1] A note.\n[2] Another.\n",
        "[Scene: a wood]\nEnter two.\n",
        "{He smiles} Yes.\n{She nods} No.\n",
        "the <unk> of <unk> <eos>\n" * 99,
        "a < b and c > d\n" * 9,
        "def f(x):\n\treturn x\n\nclass A:\n\tpass\n",
        "O I see\nO no O\n",
        "1. First\n2. Second\n\n3. Third\n",
        "apple\nbanana\ncherry\n",
        "# A title\n\nSome text | and more.\n",
        "\u4f60\u597d\uff0c\u4e16\u754c\u3002\n" * 5,
        "0 O\n1 O\n",
    ],
)
def test_plain_text_gets_no_advice(text) -> None:
    assert advice_for(text) == ""


def test_the_built_in_text_gets_no_advice() -> None:
    text = Path(shipped("corpora", "tales.txt")).read_text(encoding="utf-8")
    assert not any(advice_for(text[start : start + 3000]) for start in range(0, len(text), 3000))


def test_a_corpus_reports_its_kind_once(tmp_path) -> None:
    """Not if the format was given."""
    path = tmp_path / "a.txt"
    path.write_text("id\ttext\n1\tthe cat\n2\ta dog\n")
    corpus = Corpus([str(path)])
    for _ in range(2):
        assert "".join(corpus.chunks()) == path.read_text()
    (note,) = corpus.warnings
    assert note.startswith(f"{path} looks like a table (tabs between the fields)")
    typed = Corpus([str(path)], input_format="text")
    assert list(typed.chunks()) and not typed.warnings


def test_a_table_whose_last_cells_are_empty_is_a_table() -> None:
    """Of each row the blanks at its end were left out, and the tab that separates nothing."""
    rows = ["en\tde", *(f"A dog {n}.\t" for n in range(9))]
    assert "looks like a table (tabs" in advice_for("\n".join([*rows, ""]))
    assert not advice_for("\n".join([*(f"A dog {n}.\t" for n in range(9)), ""]))
