"""ARPA files: written as other programs read them, read back equal, and refused if damaged."""

import gzip
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import Call, oracle_file
from hypothesis import given
from hypothesis import strategies as st

import charlm
from charlm.api.arpa import export_arpa, import_arpa
from charlm.errors import CorpusError, UsageError
from charlm.files import atomic
from charlm.ngrams.arpa import entry_names, escaped, unescaped, write_arpa
from charlm.ngrams.arpa_reader import read_arpa
from charlm.ngrams.kneser_ney import fit
from charlm.ngrams.model import NgramModel
from charlm.text.tokenizers.tokenizer_json import EOS

NAMES = ["<unk>", "</s>", "a", "b", "c"]
TRAIN = np.array([2, 3, 4, EOS, 2, 3, EOS, 4, 4, 3, EOS, 2, 3, 4, EOS])
ALL = np.array([0, 2, 3, 4, 4, 3, 3, EOS, 4, 2, EOS, EOS, 2, 3, 4, EOS])
"""A text with n-grams that the training text has and others that it does not."""


def content(model: NgramModel, names: list[str] = NAMES) -> str:
    file = io.BytesIO()
    write_arpa(file, model, names)
    return file.getvalue().decode("utf-8")


def saved(folder: Path, text: str, name: str = "x.arpa") -> Path:
    path = folder / name
    data = text.encode("utf-8")
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


SMALL = r"""\data\
ngram 1=5
ngram 2=4

\1-grams:
-1	<unk>	0
0	<s>	-0.5
-0.5	</s>	0
-0.75	a	-0.25
-0.6	b	-0.125

\2-grams:
-0.4	b </s>
-0.1	<s> a
-0.3	b a
-0.2	a b

\end\
"""


def test_probabilities_by_hand(tmp_path: Path) -> None:
    """The text a b b: a found after <s>; b after a; b by back-off; the end after b."""
    arpa = read_arpa(saved(tmp_path, SMALL))
    assert arpa.names == ["<unk>", "</s>", "a", "b"]
    nats = arpa.model.text_nats(np.array([2, 3, 3, EOS]))
    assert -nats / np.log(10) == pytest.approx([-0.1, -0.2, -0.125 - 0.6, -0.4], rel=1e-6)
    assert content(arpa.model, arpa.names) == SMALL


def test_the_form_is_that_of_lmplz() -> None:
    model, _ = fit(TRAIN, 5, 2)
    text = content(model)
    lines = text.splitlines()
    sizes = model.sizes
    assert lines[:5] == ["\\data\\", f"ngram 1={sizes[0]}", f"ngram 2={sizes[1]}", "", "\\1-grams:"]
    assert re.fullmatch(r"-\d\.\d+\t<unk>\t0", lines[5])
    assert re.fullmatch(r"0\t<s>\t-0\.\d{6,8}", lines[6])
    assert re.fullmatch(r"-0\.\d{6,8}\t</s>\t0", lines[7])
    assert text.endswith("\n\n\\end\\\n")
    assert all(len(line.split("\t")) == 2 for line in lines[lines.index("\\2-grams:") + 1 : -2])


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("name", ["x.arpa", "x.arpa.gz"])
def test_scores_survive_writing_and_reading(order: int, name: str, tmp_path: Path) -> None:
    model, _ = fit(TRAIN, 5, order)
    again = read_arpa(saved(tmp_path, content(model), name)).model
    assert again.sizes == model.sizes
    assert again.text_nats(ALL) == pytest.approx(model.text_nats(ALL), abs=1e-6)
    assert content(again) == content(model)


ENTRIES = st.one_of(
    st.text(min_size=1),
    st.text("\\sn0/ \n<>", min_size=1),
    st.builds(str.__add__, st.text("\\", max_size=3), st.sampled_from(["<s>", "</s>", "<UNK>"])),
)


@given(ENTRIES.filter(lambda text: not re.search("[\ud800-\udfff]", text)))
def test_entries_survive_escaping(entry: str) -> None:
    assert unescaped(escaped(entry)) == entry
    assert len(escaped(entry).encode("utf-8").split()) == 1


def test_escapes_by_hand() -> None:
    pairs = {" ": r"\s", "a\tb": r"a\tb", "\\n": r"\\n", "<s>": r"\<s>", "<UNK>": r"\<UNK>"}
    assert {entry: escaped(entry) for entry in pairs} == pairs
    assert unescaped(r"\q") == r"\q"  # of another program
    for word in ("1\\/2", "\\*", "\\", "a\\"):  # in Penn Treebank; other programs know no escapes
        assert escaped(word) == unescaped(word) == word
    assert entry_names(["<unk>", "\n", "<s>", "é"]) == ["<unk>", "</s>", r"\<s>", "é"]


def test_tolerated_variants(tmp_path: Path) -> None:
    """Comments, blanks, CR LF, missing back-offs, -99, counts with blanks, <UNK>, a BOM."""
    text = SMALL.replace("\t", "   ").replace("ngram 1=5", "ngram  1 = 5").replace("\n", "\r\n")
    text = "made by hand\r\n\r\n" + text.replace("-1   <unk>   0", "-1 <unk>")
    expected = read_arpa(saved(tmp_path, SMALL)).model.text_nats(np.array([2, 3, 3, 0, EOS]))
    read = read_arpa(saved(tmp_path, text, "y.arpa")).model
    assert np.array_equal(read.text_nats(np.array([2, 3, 3, 0, EOS])), expected)
    marked = read_arpa(saved(tmp_path, "\ufeff" + SMALL)).model
    assert np.array_equal(marked.text_nats(np.array([2, 3, 3, 0, EOS])), expected)
    upper = SMALL.replace("<unk>", "<UNK>").replace("-0.75\ta", "-99\ta")
    other = read_arpa(saved(tmp_path, upper, "z.arpa"))
    assert other.names[0] == "<unk>"
    assert other.model.log_p[0][2] == -99.0


def test_a_file_without_unk_is_read_with_a_warning(tmp_path: Path) -> None:
    text = SMALL.replace("-1\t<unk>\t0\n", "").replace("ngram 1=5", "ngram 1=4")
    arpa = read_arpa(saved(tmp_path, text))
    assert arpa.model.log_p[0][0] == -99.0
    assert "has no <unk>" in arpa.warnings[0]


def test_a_start_symbol_that_is_predicted_is_left_out_with_a_warning(tmp_path: Path) -> None:
    text = SMALL.replace("b a\n", "b <s>\n")
    arpa = read_arpa(saved(tmp_path, text))
    assert arpa.model.sizes == [5, 3]
    assert arpa.warnings == [
        f"{tmp_path}/x.arpa: left out 1 2-gram with <s> after another token, which is never "
        "predicted"
    ]


def test_unk_in_both_spellings_is_two_entries(tmp_path: Path) -> None:
    text = SMALL.replace("ngram 1=5", "ngram 1=6").replace("-0.75\ta", "-2\t<UNK>\t0\n-0.75\ta")
    arpa = read_arpa(saved(tmp_path, text))
    assert arpa.names == ["<unk>", "</s>", "<UNK>", "a", "b"]
    assert arpa.model.log_p[0].tolist() == pytest.approx([-1, -0.5, -2, -0.75, -0.6, 0])


def test_missing_beginnings_are_added(tmp_path: Path) -> None:
    """A pruned file may have `a b b` without `a b`: its probability is that of backing off."""
    text = SMALL.replace("ngram 2=4", "ngram 2=3\nngram 3=1").replace("-0.2\ta b\n", "")
    text = text.replace("\\end\\", "\\3-grams:\n-0.05\ta b b\n\n\\end\\")
    model = read_arpa(saved(tmp_path, text)).model
    assert model.sizes == [5, 4, 1]
    nats = model.text_nats(np.array([2, 3, 3]))
    expected = [-0.1, -0.25 - 0.6, -0.05]
    assert -nats / np.log(10) == pytest.approx(expected, rel=1e-6)


REFUSED = {
    "a cut file": (SMALL.partition("-0.2\t")[0], "line 16: 3 2-grams before this line; expected 4"),
    "no end": (SMALL.replace("\\end\\\n", ""), "found the end of the file; expected \\end\\"),
    "too few": (SMALL.replace("-0.2\ta b\n", ""), "line 17: 3 2-grams"),
    "too many": (SMALL.replace("ngram 2=4", "ngram 2=3"), "4 2-grams before this line; expected 3"),
    "NaN": (
        SMALL.replace("-0.2\t", "nan\t"),
        "line 16: found 'nan'; expected a log10 of at most 0",
    ),
    "Python's number": (SMALL.replace("-0.2\t", "-1_0\t"), "line 16: found '-1_0'"),
    "positive": (SMALL.replace("-0.2\t", "0.2\t"), "line 16: found '0.2'"),
    "no number": (SMALL.replace("-0.125", "x"), "line 10: found 'x'; expected a log10"),
    "unknown token": (SMALL.replace("a b\n", "a z\n"), "line 16: 'z' is not among the 1-grams"),
    "fields": (
        SMALL.replace("a b\n", "a b 1 2\n"),
        "line 16: 5 fields; expected log10 P, 2 tokens",
    ),
    "order 2 missing": (SMALL.replace("\\2-grams:", "\\3-grams:"), "expected \\2-grams:"),
    "twice": (SMALL.replace("b a\n", "a b\n"), "line 16: the 2-gram of line 15 again"),
    "entry twice": (SMALL.replace("\tb\t", "\ta\t"), "line 10: 'a' again"),
    "no ARPA file": ("some text\n", "no \\data\\ up to here; expected an ARPA file"),
    "empty": ("", "no \\data\\ up to here"),
    "no 1-grams": (SMALL.replace("ngram 1=5", "ngram 1=0"), "line 2: found no 1-grams"),
    "counts": (SMALL.replace("ngram 2=4", "ngram 3=4"), "line 3: found 'ngram 3=4'"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_damaged_file_is_refused_with_its_line(kind: str, tmp_path: Path, call: Call) -> None:
    text, message = REFUSED[kind]
    path = saved(tmp_path, text)
    status, out, err = call("ngram", "import", str(path), "--checkpoints", str(tmp_path / "runs"))
    assert (status, out) == (3, "")
    assert err.startswith(f"charlm: {path}")
    assert message in err
    assert err.count("\n") == 1


def test_a_cut_packed_file_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, SMALL, "x.arpa.gz")
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(CorpusError, match="the file is damaged"):
        read_arpa(path)


@pytest.mark.parametrize(
    ("text", "settings"),
    [("the cat sat\na dog\n" * 9, {"unit": "word", "words": "whitespace", "document": "line"}),
     ("the cat <s> sat.\n\nA \\dog\n" * 9, {"unit": "word", "document": "stream"}),
     ("the cat\n\\a dog\n" * 9, {"unit": "char", "document": "line"})],
)  # fmt: skip
def test_a_run_survives_export_and_import(text: str, settings: dict, tmp_path: Path) -> None:
    model = charlm.ngram(text=text, checkpoints=tmp_path, name="kn", order=3, **settings)
    export_arpa(model, tmp_path / "kn.arpa.gz")
    document = settings["document"]
    again = import_arpa(tmp_path / "kn.arpa.gz", checkpoints=tmp_path, document=document)
    assert again.vocabulary.tokens == model.vocabulary.tokens
    assert again.vocabulary.settings.unit == settings["unit"]
    texts = ["the cat", "a dog <s>", "\\a zebra"]
    for old, new in zip(model.score(texts), again.score(texts), strict=True):
        assert new.log_probability == pytest.approx(old.log_probability, abs=1e-5)
    like = import_arpa(tmp_path / "kn.arpa.gz", checkpoints=tmp_path, like="kn", name="like")
    assert like.run.boundaries == model.run.boundaries
    assert like.run.kept("valid") is not None


def test_an_arpa_file_is_synced_before_it_appears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = charlm.ngram(text="a b\n" * 9, unit="word", order=2, checkpoints=tmp_path)
    points: list[str] = []
    monkeypatch.setattr(atomic, "reached", points.append)
    export_arpa(model, tmp_path / "kn.arpa.gz")
    steps = [point.rpartition(" ")[2] for point in points]
    assert steps == ["opened", "written", "synced", "replaced", "place"]


def test_a_dash_is_standard_output(tmp_path: Path) -> None:
    model = charlm.ngram(text="a b\n" * 9, checkpoints=tmp_path, name="kn", order=2)
    words = ["-m", "charlm", "ngram", "export", str(model.path), "-"]
    written = subprocess.run([sys.executable, *words], capture_output=True, check=True).stdout
    assert written.startswith(b"\\data\\\n")
    assert written.endswith(b"\\end\\\n")


def test_words_that_look_escaped_stay_as_they_are(tmp_path: Path) -> None:
    r"""In a file of another program, `\sum` is a word and not ` um`."""
    from charlm.api.arpa import import_arpa

    path = saved(tmp_path, SMALL.replace("b", "\\sum"))
    model = import_arpa(path, checkpoints=tmp_path, name="x")
    assert model.vocabulary.tokens[3] == "\\sum"
    assert model.score("a \\sum")[0].tally.oov == 0


@pytest.mark.parametrize("blank", ["\\s", "\\n", "\u00a0", "\u3000"])
def test_a_token_like_a_blank_leaves_the_others_words(blank: str, tmp_path: Path) -> None:
    """KenLM and SRILM cut at ASCII blanks, so such tokens are in many of their files.

    Words follow each other in the file, so blanks are no tokens: `a be` is two, both known.
    """
    text = SMALL.replace("1=5", "1=6").replace("-0.6\tb", f"-0.9\t{blank}\t0\n-0.6\tb")
    text = re.sub(r"\bb\b", "be", text)
    model = import_arpa(saved(tmp_path, text), checkpoints=tmp_path, name="x")
    assert model.vocabulary.settings.words == "whitespace"
    score = model.score("a be")[0]
    assert score.tally.oov == 0
    assert score.log_probability / np.log(10) == pytest.approx(-0.1 - 0.2 - 0.4, rel=1e-6)


def notes(model: charlm.Model) -> list[str]:
    return json.loads((model.path / "run.json").read_text(encoding="utf-8"))["results"]["notes"]


def test_tokens_that_no_text_has_are_reported(tmp_path: Path) -> None:
    """charlm cuts texts at U+00A0, so it never reads a token with one."""
    path = saved(tmp_path, SMALL.replace("b", "b\u00a0c"))
    model = import_arpa(path, checkpoints=tmp_path, name="x")
    assert model.score("a b\u00a0c")[0].tally.oov == 2
    assert any("1 token with a Unicode blank, such as 'b\\xa0c'" in note for note in notes(model))
    plain = import_arpa(saved(tmp_path, SMALL), checkpoints=tmp_path, name="y")
    assert notes(plain) == []


def test_a_network_has_no_arpa_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected an n-gram run"):
        export_arpa(charlm.load("tales"), tmp_path / "x.arpa")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("order", [2, 3])
def test_kenlm_reads_our_files(order: int, tmp_path: Path) -> None:
    kenlm = pytest.importorskip("kenlm")
    model, _ = fit(TRAIN, 5, order)
    theirs = kenlm.Model(str(saved(tmp_path, content(model))))
    for ids in (TRAIN[:4], TRAIN[4:7], np.array([4, 4, 2, 2, EOS]), np.array([3, 0, 2, EOS])):
        scores = theirs.full_scores(" ".join(NAMES[index] for index in ids[:-1]))
        expected = [log10 for log10, _, _ in scores]
        assert -model.text_nats(ids) / np.log(10) == pytest.approx(expected, abs=1e-6)


@pytest.mark.data
@pytest.mark.parametrize("golden", ["tiny2", "tiny3", "tinychar4", "small3.fallback"])
def test_the_files_of_lmplz_are_read_and_written_again(golden: str) -> None:
    """Line by line, but for the last of seven digits."""
    path = oracle_file(f"{golden}.arpa")
    arpa = read_arpa(path)
    lines = content(arpa.model, arpa.names).splitlines()
    for ours, theirs in zip(lines, path.read_text(encoding="utf-8").splitlines(), strict=True):
        assert ours.split("\t")[1:2] == theirs.split("\t")[1:2]
        if "\t" in ours:
            numbers = [float(text) for text in ours.split("\t")[::2]]
            assert numbers == pytest.approx([float(x) for x in theirs.split("\t")[::2]], abs=6e-7)
        else:
            assert ours == theirs


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--unit", "bpe"], "--unit is 'bpe'; expected one of word, char"),
        (["--document", "lines"], "did you mean 'line'?"),
        (["--unit", "word", "--like", "x"], "--unit word with --like"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    options: list[str], message: str, tmp_path: Path, call: Call
) -> None:
    path = saved(tmp_path, SMALL)
    status, _, err = call("ngram", "import", str(path), *options, "--checkpoints", str(tmp_path))
    assert (status, message in err) == (2, True), err
