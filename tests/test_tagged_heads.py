"""What the first lines of files with tagged words show, reported or refused, never misread."""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import Call

from charlm.errors import CorpusError
from charlm.runs.agreement import unknown_names
from charlm.text.sources.rows import Columns
from charlm.text.sources.text_lines import FileRules
from charlm.text.tagged_files import read_sentences
from charlm.text.tagged_tables import Sentence

PARTS = [
    [("Ann", "NNP"), ("saw", "VBD"), ("the", "DT"), ("dog", "NN"), (".", ".")],
    [("Bob", "NNP"), ("left", "VBD"), (".", ".")],
    [("the", "DT"), ("cats", "NNS"), ("saw", "VBD"), ("Cleo", "NNP"), (".", ".")],
] * 3
"""Sentences with parts of speech, by which no file looks like one of entities."""
WORDS = [tuple(word for word, _ in sentence) for sentence in PARTS]
CONLL = "\n".join("".join(f"{word} {tag}\n" for word, tag in each) for each in PARTS)
ALONE = "\n".join("".join(f"{word}\n" for word, _ in each) for each in PARTS)


def read(path: Path, text: str, *, needed: bool = True) -> tuple[list[Sentence], list[str]]:
    """Return the sentences of a file with this text, and what is reported, without its folder."""
    path.write_text(text, encoding="utf-8")
    told: list[str] = []
    sentences = list(read_sentences([str(path)], FileRules(needed=needed, warn=told.append)))
    return sentences, [each.replace(f"{path.parent}/", "") for each in told]


@pytest.mark.parametrize("text", [CONLL, ALONE, "# id 1\n" + CONLL, CONLL.replace(" ", "\t")])
def test_lines_of_words_are_no_sentences(text: str, tmp_path: Path) -> None:
    """Without tags of entities, "Ann NNP" was tagged as a sentence of two words."""
    sentences, told = read(tmp_path / "x.txt", text, needed=False)
    assert [each.words for each in sentences] == WORDS
    assert "x.txt looks like CoNLL; the first word of each line is read." in told


@pytest.mark.parametrize(
    "text",
    [
        "".join(" ".join(each) + "\n" for each in WORDS),
        "".join(" ".join(each) + "\n\n" for each in [WORDS[0]] * 9),
        "Ann\nBob\n\nDan\n", "".join(f"{word}\n" for word in "abcdefgh"),
        "吾輩は猫である。\n名前はまだ無い。\n\n" * 3,
    ],
)  # fmt: skip
def test_lines_of_sentences_are_no_words(text: str, tmp_path: Path) -> None:
    sentences, told = read(tmp_path / "x.txt", text, needed=False)
    assert [" ".join(each.words) for each in sentences] == text.splitlines()
    assert not told


def test_lines_of_a_dialogue_are_no_words(tmp_path: Path) -> None:
    """Of a name before a tab and what is said, only the name was tagged."""
    text = "Ann\tThe dog barked.\nBob\tIt did.\n\n" * 3
    sentences, told = read(tmp_path / "x.txt", text, needed=False)
    assert sentences[0].words == ("Ann", "The", "dog", "barked.")
    assert "x.txt looks like a table (tabs between the fields)" in told[0]


@pytest.mark.parametrize("needed", [True, False])
@pytest.mark.parametrize("gap", ["", "\n"])
def test_a_row_of_names_is_no_word(gap: str, needed: bool, tmp_path: Path) -> None:
    sentences, told = read(tmp_path / "x.conll", f"Token POS\n{gap}{CONLL}", needed=needed)
    assert [each.words for each in sentences] == WORDS
    assert "x.conll: line 1 names the columns, and is left out ('Token POS')." in told
    sentences, told = read(tmp_path / "y.conll", f"Word NN\n{gap}{CONLL}", needed=needed)
    assert sentences[0].words[0] == "Word" and not any("names" in each for each in told)


@pytest.mark.skipif(shutil.which("awk") is None, reason="awk is not installed")
@pytest.mark.parametrize("needed", [True, False])
@pytest.mark.parametrize("mark", ["/", "_", "|"])
@pytest.mark.parametrize("form", ["{} ", "{}\n"])
def test_tags_behind_words_are_refused_with_a_program(
    form: str, mark: str, needed: bool, tmp_path: Path
) -> None:
    """The program writes what charlm reads: the sentences with their tags."""
    text = "\n".join(
        "".join(form.format(f"{word}{mark}{tag}") for word, tag in each) for each in PARTS
    )
    with pytest.raises(CorpusError, match=r"has a tag behind each word .'Ann.NNP'.") as raised:
        read(tmp_path / "x.txt", f"{text}\n", needed=needed)
    program = str(raised.value).partition("awk '")[2].removesuffix("'")
    written = subprocess.run(["awk", program, tmp_path / "x.txt"], capture_output=True, check=True)
    sentences, _ = read(tmp_path / "y.conll", written.stdout.decode())
    assert [[*zip(each.words, each.tags or (), strict=True)] for each in sentences] == PARTS


DATES = " ".join(f"{day}/05/2024" for day in range(1, 29))
VARIABLES = " ".join(f"x_{number}" for number in range(30))


@pytest.mark.parametrize("line", ["a/b c/d", "one/two and/or 1/2 " * 4, VARIABLES, DATES])
def test_other_words_with_marks_inside_are_read(line: str, tmp_path: Path) -> None:
    sentences, _ = read(tmp_path / "x.txt", line, needed=False)
    assert [each.words for each in sentences] == [tuple(line.split())]


def test_a_comment_with_as_many_columns_is_reported(tmp_path: Path) -> None:
    """For training it is refused; where tags are not needed, it was tagged in silence."""
    sentences, told = read(tmp_path / "x.conll", f"# 7\n{CONLL}", needed=False)
    assert sentences[0].words[0] == "#"
    assert "x.conll: line 1 ('# 7') is read as a word, #. Remove it if it is none." in told
    _, told = read(tmp_path / "x.conll", f"#win NN\n{CONLL}", needed=False)
    assert not told


@pytest.mark.parametrize(("name", "head"), [("x.conll", ""), ("x.csv", "word,tag\n")])
def test_sentences_without_an_end_are_reported(name: str, head: str, tmp_path: Path) -> None:
    text = head + CONLL.replace("\n\n", "\n")
    sentences, told = read(tmp_path / name, text.replace(" ", "," if head else " "))
    assert [each.words for each in sentences] == [sum(WORDS, ())]
    assert any("read as one sentence of 39 words, with 8 full stops before" in e for e in told)
    first = head + "\n".join(CONLL.splitlines()[:5]).replace(" ", "," if head else " ")
    assert not any("full stop" in each for each in read(tmp_path / name, first)[1])


def test_tags_before_words_are_reported(tmp_path: Path) -> None:
    turned = "\n".join(" ".join(line.split()[::-1]) for line in CONLL.splitlines())
    _, told = read(tmp_path / "x.conll", f"{turned}\n")
    assert any("column 1, read as words, has 5 different ones in the first 39 rows" in e
               for e in told)  # fmt: skip
    for text in (CONLL, CONLL.replace("\n", " 0.5\n").replace("\n 0.5", "\n")):
        assert not any("different" in e for e in read(tmp_path / "x.conll", text)[1])


def test_lists_of_python_are_no_sentences(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="has a list as a text"):
        read(tmp_path / "x.csv", "tokens,tags\n\"['Ann', 'saw']\",\"['A', 'B']\"\n", needed=False)
    text = 'text\n"[""Stop,"" said Ann] and left"\n'
    assert read(tmp_path / "x.csv", text, needed=False)[0][0].words[0] == '["Stop,"'


def test_a_table_below_a_name_of_conll_is_reported(tmp_path: Path) -> None:
    _, told = read(tmp_path / "x.conll", CONLL.replace(" ", ","), needed=False)
    assert any("x.conll looks like a table (commas between the fields)" in each for each in told)


def test_a_table_of_words_below_another_name_is_no_conll(tmp_path: Path) -> None:
    """Its rows are lines without blanks, and empty lines end sentences."""
    sentences, told = read(tmp_path / "x.txt", CONLL.replace(" ", ","), needed=False)
    assert sentences[0].words == ("Ann,NNP",) and len(told) == 1
    assert "looks like a table (commas between the fields) and is read as plain text" in told[0]


def test_numbers_of_words_may_be_ranges(tmp_path: Path) -> None:
    """As in CoNLL-U of fewer columns, whose numbers were tagged as words."""
    rows = ["1\tEUs\tNNPS", "2-3\tdon't\t_", "2\tdo\tVBP", "3\tn't\tRB", "3.1\tgo\tVB", ""]
    for needed in (True, False):
        with pytest.raises(CorpusError, match="column 1 holds numbers of words"):
            read(tmp_path / "x.txt", "\n".join(rows * 3), needed=needed)


def test_many_unknown_tags_may_be_of_another_column() -> None:
    few, many = (
        unknown_names(Path("run"), ["O", "B-X"], names, "x.conll", "tag", "word")[0]
        for names in (["O", "O", "B-NP"], ["O", "B-NP", "B-VP"])
    )
    assert "--target" not in few and few.endswith("count as errors")
    assert many.endswith("; if another column holds the tags, name it with target")


def test_tags_of_words_from_a_pipe(call: Call, tmp_path: Path) -> None:
    """Standard input has no name by which it could be CoNLL."""
    (tmp_path / "x.conll").write_text(CONLL * 2, encoding="utf-8")
    words = ("--checkpoints", str(tmp_path / "runs"))
    tiny = ("--hidden", "4", "--embedding", "4", "--threads", "1", "-q", "--steps", "2")
    status, _, err = call(
        "train", str(tmp_path / "x.conll"), "--task", "tag", *tiny, "--name", "parts", *words
    )
    assert not status, err
    status, out, err = call("predict", "--format", "conll", *words, stdin=CONLL.encode())
    answers = [line.split("\t")[0] for line in out.splitlines()]
    assert not status and answers == [*ALONE.splitlines(), ""], err
    assert "standard input looks like CoNLL" in err and "would remain" not in err
    status, out, err = call("predict", *words, stdin=b"Ann saw the dog.\nBob left.\n")
    assert not status and "blanks around punctuation" in err  # "dog." and "left." are unknown
    assert "0 of 2 unknown tokens would remain" in err and "dog.\t" in out


BARE = Columns(text="2", target="3", run="bare", form={"header": False})
"""Columns of a run that was trained on a table without names."""


def test_usual_names_of_columns_are_no_word(tmp_path: Path) -> None:
    """A run of tables without names read the names of other tables as words and tags."""
    rows = [("", "Token", "POS"), *(("1", *pair) for pair in PARTS[0]), ("2", *PARTS[1][0])]
    for names in (("Sentence #", "Token", "POS"), ("sent_id", "word", "tag")):
        path = tmp_path / "x.csv"
        path.write_text("\n".join(map(",".join, [names, *rows[1:]])) + "\n", encoding="utf-8")
        told: list[str] = []
        rules = FileRules(columns=replace(BARE), warn=told.append)
        sentences = list(read_sentences([str(path)], rules))
        assert [each.words for each in sentences] == [WORDS[0], ("Bob",)]
        assert any("names of the columns, unlike in training" in each for each in told)


@pytest.mark.parametrize("needed", [True, False])
def test_a_column_of_tags_holds_no_words(needed: bool, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("Ann,B-PER,NNP\nsaw,O,VBD\n\nBob,B-PER,NNP\n", encoding="utf-8")
    with pytest.raises(CorpusError, match=r'the column "2" holds tags .B-PER, O.; expected words'):
        list(read_sentences([str(path)], FileRules(columns=replace(BARE), needed=needed)))
