"""Vocabularies: text to ids and back, the same ids as `tokenizers`, nothing foreign let in."""

import json
import re
import unicodedata
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from helpers import CORPUS, vocabulary_of
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

import charlm
from charlm.config.corpus import VocabularySettings
from charlm.config.text_units import TEXT_UNITS, UNITS
from charlm.errors import RunError, UsageError
from charlm.text.documents import END
from charlm.text.tokenizers.building import build_vocabulary
from charlm.text.tokenizers.cutting import cut_safely
from charlm.text.tokenizers.letters import CharVocabulary
from charlm.text.tokenizers.tokenizer_json import EOS, LETTERS, UNK, split, tokenizer_json
from charlm.text.tokenizers.vocabulary import load_vocabulary
from charlm.text.tokenizers.words import WordVocabulary

ANY = st.text(
    st.one_of(
        st.sampled_from(
            "the cat \n\r\t\x00\x0b\x85\xa0\u2028\u3000'’_<>Σİﬁé\u0301\u0331H猫👩\u200d🚀"
        ),
        st.characters(codec="utf-8"),
    ),
    max_size=30,
)
KINDS = [{"unit": unit} for unit in TEXT_UNITS]
KINDS += [{"unit": "word", "words": words} for words in ("whitespace", "bare")]
NORMALS = [{"lowercase": True}, {"normalize": "nfc"}, {"lowercase": True, "normalize": "nfkc"}]
FORMS = [kind | form for kind in KINDS for form in [{}, *NORMALS]]
VOCABULARIES = {
    "-".join(str(value) for value in form.values()): vocabulary_of(CORPUS + "ẖẖ ẖẖ ẖẖ", **form)
    for form in FORMS
}
PLAIN = {name: VOCABULARIES[name] for name in ["char", "byte", "word", "bpe"]}
every_vocabulary = pytest.mark.parametrize("name", VOCABULARIES)
every_unit = pytest.mark.parametrize("name", PLAIN)


# ------------------------------------------------------------------ there and back


@every_unit
@given(text=ANY)
@settings(max_examples=60)
def test_decoding_undoes_encoding(name: str, text: str) -> None:
    """CRLF, emoji, NUL: all come back; a piece that is not known comes back as U+FFFD."""
    vocabulary = PLAIN[name]
    ids = vocabulary.encode(text)
    pieces = vocabulary.pieces(text)
    if name in ("byte", "bpe"):
        assert UNK not in ids
        assert vocabulary.decode(ids) == text
    else:
        known = set(vocabulary.tokens[2:])
        assert "".join(pieces) == text
        shown = [piece if piece in known else "\ufffd" for piece in pieces]
        assert vocabulary.decode(ids) == "".join(shown)


@every_unit
def test_the_text_of_a_vocabulary_comes_back_whole(name: str) -> None:
    """Every token of the corpus itself is known."""
    ids = PLAIN[name].encode(CORPUS)
    assert UNK not in ids
    assert PLAIN[name].decode(ids) == CORPUS


def test_blank_separated_words_come_back_with_single_blanks() -> None:
    """The whitespace rule keeps words and line ends, and of blanks only that there were some."""
    vocabulary = VOCABULARIES["word-whitespace"]
    ids = vocabulary.encode(" the\t\t cat \n\n  dog")
    the, cat, dog = (vocabulary.ids[word] for word in ("the", "cat", "dog"))
    assert ids.tolist() == [the, cat, EOS, EOS, dog]
    assert vocabulary.decode(ids) == "the cat\n\ndog"


@every_vocabulary
@given(text=ANY)
@settings(max_examples=40)
def test_ids_are_those_of_the_tokenizers_library(name: str, text: str) -> None:
    """Our tables and pieces give what `tokenizers` gives for the saved file, any text."""
    vocabulary = VOCABULARIES[name]
    theirs = LIBRARY[name].encode(text, add_special_tokens=False)
    assert vocabulary.encode(text).tolist() == theirs.ids


LIBRARY = {
    name: Tokenizer.from_str(json.dumps(vocabulary.to_json()))
    for name, vocabulary in VOCABULARIES.items()
}


@every_vocabulary
@given(data=st.data())
@settings(max_examples=60)
def test_the_tokenizers_library_decodes_as_charlm_does(name: str, data: st.DataObject) -> None:
    """Any ids: UNK and EOS, cut characters and line ends included.

    Tokenizers of characters and words once had no decoder: the library put blanks between them.
    """
    ids = data.draw(st.lists(st.integers(0, len(VOCABULARIES[name]) - 1), max_size=20))
    ids += data.draw(st.lists(st.sampled_from([UNK, EOS]), max_size=3))
    ids = data.draw(st.permutations(ids))
    assert LIBRARY[name].decode(ids) == VOCABULARIES[name].decode(ids)
    assert LIBRARY[name].decode(ids, skip_special_tokens=False) == VOCABULARIES[name].decode(ids)


@every_vocabulary
def test_files_of_older_versions_are_loaded(name: str, tmp_path) -> None:
    """They had a decoder for bytes only."""
    vocabulary = VOCABULARIES[name]
    before = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    before = before | {"use_regex": True} if vocabulary.unit in ("byte", "bpe") else None
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(vocabulary.to_json() | {"decoder": before}), encoding="utf-8")
    assert load_vocabulary(path).to_json() == vocabulary.to_json()


@every_vocabulary
@given(text=ANY)
@settings(max_examples=40)
def test_every_id_has_its_piece(name: str, text: str) -> None:
    """`pieces` goes along with `encode`, so that scores can be shown beside their text."""
    vocabulary = VOCABULARIES[name]
    pieces = vocabulary.pieces(text)
    assert len(pieces) == len(vocabulary.encode(text))
    vocabulary.unknown(text)  # raises where they do not go along


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_pieces_of_normalised_text_are_normalised_once(kind: dict) -> None:
    """Lower-casing undoes NFC where only the small letter is composed (H + U+0331).

    `pieces` once normalised a second time, and gave the pieces of another text.
    """
    form = {"lowercase": True, "normalize": "nfc"}
    vocabulary = vocabulary_of("\u1e96\u1e96\u1e96 " * 9, **kind, **form)
    pieces = vocabulary.pieces("H\u0331H\u0331")
    assert len(pieces) == len(vocabulary.encode("H\u0331H\u0331"))
    if kind["unit"] in ("char", "word"):
        assert "".join(pieces) == "h\u0331h\u0331"


def test_normal_forms_are_applied_before_anything_is_looked_up() -> None:
    """e + acute is é under NFC, the ligature fi is f, i under NFKC, A is a in lower case."""
    text = "aéfi "
    nfc = vocabulary_of(text, normalize="nfc")
    assert nfc.decode(nfc.encode("e\u0301")) == "é"
    nfkc = vocabulary_of(text, normalize="nfkc", lowercase=True)
    assert nfkc.decode(nfkc.encode("A ﬁ")) == "a fi"
    plain = vocabulary_of(text)
    assert plain.decode(plain.encode("A ﬁ")) == "\ufffd \ufffd"


# ------------------------------------------------------------------ specials


@every_vocabulary
def test_marks_become_eos_and_their_positions_are_returned(name: str) -> None:
    """`ends` points just after each EOS, also at the beginning and if documents are empty."""
    vocabulary = VOCABULARIES[name]
    documents = ["the", "", "cat sat", ""]
    ids, ends = vocabulary.encode_marked(END.join(documents))
    assert len(ends) == 3
    assert ids.dtype == vocabulary.dtype
    starts = [0, *ends]
    for number, document in enumerate(documents[:-1]):
        document_ids = ids[starts[number] : ends[number]]
        assert document_ids[-1] == EOS
        assert document_ids[:-1].tolist() == vocabulary.encode(document).tolist()
    assert ends[-1] == len(ids)
    assert vocabulary.encode("").shape == (0,)


@every_unit
def test_names_of_specials_in_a_text_are_plain_text(name: str) -> None:
    """A corpus or prompt with <eos> or <unk> does not reach the special ids."""
    text = "a <unk> b <eos> </s>"
    vocabulary = vocabulary_of(text * 5, unit=name)
    ids = vocabulary.encode(text)
    assert not {UNK, EOS} & set(ids.tolist())
    assert vocabulary.decode(ids) == text


def test_blank_separated_words_take_unk_literally_and_line_ends_as_eos() -> None:
    """Penn Treebank and WikiText write <unk> for the unknown; <eos> there is just a word.

    <unk> may also be a part of a word.
    """
    vocabulary = vocabulary_of("a <eos> b<unk>c a\n", unit="word", words="whitespace")
    library = Tokenizer.from_str(json.dumps(vocabulary.to_json()))
    ids = vocabulary.encode("a <eos> b<unk>c\na")
    assert library.decode(ids.tolist()) == vocabulary.decode(ids) == "a <eos> b<unk>c\na"
    assert vocabulary.encode("a <unk>\n").tolist() == [vocabulary.ids["a"], UNK, EOS]
    assert vocabulary.encode("<eos>")[0] > EOS
    assert vocabulary.line_ends_are_eos
    assert vocabulary.line_end == EOS


@every_vocabulary
def test_the_line_end_is_known_where_it_is_a_token(name: str) -> None:
    """Training windows begin at line starts, which they find by this id."""
    vocabulary = VOCABULARIES[name]
    known = [] if vocabulary.settings.words == "bare" else [vocabulary.line_end]
    assert vocabulary.encode("\n").tolist() == known
    assert vocabulary_of("no such thing").line_end is None


@every_unit
def test_every_token_has_a_readable_name(name: str) -> None:
    """UNK and EOS by their names, the others by their text or their bytes."""
    vocabulary = PLAIN[name]
    names = [vocabulary.token_text(index) for index in range(len(vocabulary))]
    assert names[:2] == ["<unk>", "<eos>"]
    assert "t" in names or name == "word"
    if name == "byte":
        assert names[2 + 0xE7] == "<0xE7>"
        assert vocabulary.pieces("é") == ["<0xC3>", "<0xA9>"]


def test_unseen_characters_are_listed_once_in_order() -> None:
    """Each piece that becomes UNK is reported once."""
    assert vocabulary_of("abc").unknown("xaybxz") == ["x", "y", "z"]
    assert PLAIN["word"].unknown("the zebra, zebra!") == ["zebra"]
    assert PLAIN["bpe"].unknown("zebra 猫") == []


@pytest.mark.parametrize("name", ["byte", "bpe"])
def test_a_character_is_shown_when_its_last_byte_is_there(name: str) -> None:
    """Bytes of 猫 are held back until the third; what stays half at the end shows as U+FFFD."""
    vocabulary = vocabulary_of("a", unit=name)
    first, second, third = vocabulary.encode("猫")
    decoder = vocabulary.decoder()
    assert [decoder.feed(int(index)) for index in (first, second, third)] == ["", "", "猫"]
    assert decoder.finish() == ""
    assert decoder.feed(int(first)) == ""
    assert decoder.finish() == "\ufffd"
    assert vocabulary.decode([third]) == "\ufffd"


@every_unit
def test_unk_shows_as_the_caller_wishes_and_eos_as_a_line_end(name: str) -> None:
    """`unk_text` may be empty, a name or the replacement character."""
    assert PLAIN[name].decode([UNK, EOS, UNK]) == "\ufffd\n\ufffd"
    assert PLAIN[name].decode([UNK, EOS], unk_text="<unk>") == "<unk>\n"


# ------------------------------------------------------------------ sizes


@pytest.mark.parametrize(
    ("size", "dtype"),
    [
        (2, "u1"),
        (255, "u1"),
        (256, "u1"),
        (257, "u2"),
        (65535, "u2"),
        (65536, "u2"),
        (65537, "u4"),
    ],
)
def test_ids_never_wrap_around(size: int, dtype: str) -> None:
    """The last of 65,537 ids needs more than 16 bits (nanoGPT's uint16 would make it 0)."""
    letters = [chr(code) for code in range(0x20, 0xD800)] + [
        chr(code) for code in range(0xE000, 0x14000)
    ]
    tokens = ["<unk>", "<eos>", *letters[: size - 2]]
    vocabulary = CharVocabulary(VocabularySettings(), tokens)
    assert vocabulary.dtype == np.dtype(dtype)
    if size > 2:
        ids, _ = vocabulary.encode_marked(tokens[-1] + END)
        assert ids.tolist() == [size - 1, EOS]
        assert ids.dtype == np.dtype(dtype)
        ids = vocabulary.encode("z a")  # pure ASCII goes another, faster way
        assert ids.tolist() == [vocabulary.ids[letter] for letter in "z a"]
        assert ids.dtype == np.dtype(dtype)


# ------------------------------------------------------------------ pieces


@given(text=ANY, size=st.integers(1, 8))
@example(text="0\u1160", size=1)
@settings(max_examples=200)
def test_pieces_of_a_text_are_the_text(text: str, size: int) -> None:
    """Nothing is lost or doubled where a text is cut; only what joins makes a piece longer."""
    pieces = list(cut_safely(text, size))
    assert "".join(pieces) == text
    assert all(pieces)
    assert all(
        len(piece) <= size or all(map(joins_what_is_before, piece[size:])) for piece in pieces
    )


def joins_what_is_before(character: str) -> bool:
    """Return whether a character is a mark, or a vowel or final consonant of Hangul."""
    first = unicodedata.normalize("NFKD", character)[0]
    name = unicodedata.name(first, "")
    return unicodedata.category(first)[0] == "M" or name.startswith(
        ("HANGUL JUNGSEONG", "HANGUL JONGSEONG")
    )


@pytest.mark.parametrize(
    "form", [form for form in FORMS if form["unit"] in ("word", "bpe")], ids=str
)
@given(parts=st.lists(st.sampled_from(["cat", "don't", "\n", "", " 猫", "é\u0301", "  b", "."])))
@settings(max_examples=40)
def test_a_text_encoded_in_pieces_is_the_text_encoded_whole(form: dict, parts: list[str]) -> None:
    """Long texts are cut, where there is a line end or a single blank within reach."""
    text = " dog".join(parts)
    vocabulary = VOCABULARIES["-".join(str(value) for value in form.values())]
    small = type(vocabulary)(vocabulary.settings, vocabulary.tokens, vocabulary.merges)
    small.piece_chars = 12
    small.tokenizer = vocabulary.tokenizer
    assert small.encode(text).tolist() == vocabulary.encode(text).tolist()


# ------------------------------------------------------------------ files


@every_vocabulary
def test_a_saved_vocabulary_is_the_same_when_loaded(name: str, tmp_path) -> None:
    """Tokens, merges and the rules of cutting and normalising are all in tokenizer.json."""
    vocabulary = VOCABULARIES[name]
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(vocabulary.to_json()), encoding="utf-8")
    loaded = load_vocabulary(path)
    assert type(loaded) is type(vocabulary)
    assert (loaded.tokens, loaded.merges) == (vocabulary.tokens, vocabulary.merges)
    assert loaded.encode(CORPUS.upper()).tolist() == vocabulary.encode(CORPUS.upper()).tolist()
    assert loaded.to_json() == vocabulary.to_json()


def content(unit: str = "char", **form) -> dict:
    return vocabulary_of("abba", unit=unit, **form).to_json()


def changed(path: str, value: object, unit: str = "char") -> Callable[[], dict]:
    """A valid file with one value exchanged; the path is dotted."""

    def make() -> dict:
        whole = json.loads(json.dumps(content(unit)))
        *parents, last = path.split(".")
        place = whole
        for key in parents:
            place = place[key]
        place[last] = value
        return whole

    return make


def with_tokens(unit: str, tokens: list[str], merges: list | tuple = ()) -> Callable[[], dict]:
    return lambda: tokenizer_json(
        VocabularySettings(unit=unit), ["<unk>", "<eos>", *tokens], merges
    )


CRAFTED = {
    "not a table": lambda: [1, 2],
    "no model": lambda: {"version": "1.0"},
    "a foreign pattern": changed("pre_tokenizer.pattern", {"Regex": "(a+)+$"}),
    "another cutter": changed("pre_tokenizer", {"type": "Whitespace"}),
    "another normaliser": changed("normalizer", {"type": "Replace"}),
    "added tokens": changed("added_tokens", [{"id": 0, "content": "<unk>"}]),
    "a post-processor": changed("post_processor", {"type": "ByteLevel"}),
    "an unknown part": changed("extra", 1),
    "no vocabulary": changed("model.vocab", {}),
    "a vocabulary that is a list": changed("model.vocab", ["<unk>", "<eos>", "a"]),
    "an id twice": changed("model.vocab", {"<unk>": 0, "<eos>": 1, "a": 2, "b": 2}),
    "a hole": changed("model.vocab", {"<unk>": 0, "<eos>": 1, "a": 3}),
    "a negative id": changed("model.vocab", {"<unk>": 0, "<eos>": 1, "a": -1}),
    "a truth value as id": changed("model.vocab", {"<unk>": False, "<eos>": True, "a": 2}),
    "an id with a point": changed("model.vocab", {"<unk>": 0, "<eos>": 1.0, "a": 2}),
    "an id that is a list": changed("model.vocab", {"<unk>": 0, "<eos>": 1, "a": [2]}),
    "no UNK": changed("model.vocab", {"a": 0, "<eos>": 1, "<unk>": 2}),
    "no EOS": changed("model.vocab", {"<unk>": 0, "a": 1}),
    "another model": changed("model.type", "Unigram"),
    "an extra model field": changed("model.more", 1),
    "dropout": changed("model.dropout", 0.5, unit="bpe"),
    "damaged merges": changed("model.merges", [["a"]], unit="bpe"),
    "merges in an old form": changed("model.merges", ["a b"], unit="bpe"),
    "a character of two": with_tokens("char", ["a", "bc"]),
    "a character of none": with_tokens("char", ["a", ""]),
    "half a pair": with_tokens("char", ["\ud800"]),
    "half a pair in a word": with_tokens("word", ["a\udfff"]),
    "bytes in another order": with_tokens("byte", LETTERS[::-1]),
    "too few bytes": with_tokens("byte", LETTERS[:-1]),
    "bytes that merge": with_tokens("byte", LETTERS, [("a", "b")]),
    "a byte missing": with_tokens("bpe", LETTERS[1:]),
    "a letter that is no byte": with_tokens("bpe", [*LETTERS, "猫"]),
    "a merge into nothing": with_tokens("bpe", LETTERS, [("a", "b")]),
}


@pytest.mark.parametrize("what", CRAFTED)
def test_a_file_that_charlm_did_not_write_is_refused(what: str, tmp_path) -> None:
    """Before the library sees it: some crafted files make it panic or never end."""
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(CRAFTED[what]()), encoding="utf-8")
    with pytest.raises(RunError, match=re.escape(str(path))):
        load_vocabulary(path)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{", b"\xff\xfe", b"[" * 100_000,
        b'{"model": {"vocab": {"a": ' + b"9" * 5000 + b"}}}",
        json.dumps(content()).replace('"b": 3', '"b": ' + "[" * 900 + "]" * 900).encode(),
    ],
    ids=["empty", "cut", "not UTF-8", "deep", "a huge number", "a deep value"],
)  # fmt: skip
def test_a_file_that_is_not_json_is_refused(data: bytes, tmp_path) -> None:
    """Damaged, deep beyond recursion or not text: one sentence with the path."""
    path = tmp_path / "tokenizer.json"
    path.write_bytes(data)
    with pytest.raises(RunError, match=re.escape(str(path))):
        load_vocabulary(path)
    with pytest.raises(RunError, match="missing"):
        load_vocabulary(tmp_path / "missing.json")


@every_unit
def test_building_again_gives_the_same_file(name: str) -> None:
    """Same text, same settings: the same file to the byte."""
    build = [
        build_vocabulary(lambda: [CORPUS], VocabularySettings(unit=name)).vocabulary.to_json()
        for _ in range(2)
    ]
    assert json.dumps(build[0]) == json.dumps(build[1])


def test_bytes_of_one_character_are_shown_as_bytes() -> None:
    """The story: of a character in three byte tokens each was shown as all of it."""
    vocabulary = vocabulary_of("the cat sat " * 50, unit="bpe")
    pieces = vocabulary.pieces("the \u4e2d cat")
    assert len(pieces) == len(vocabulary.encode("the \u4e2d cat"))
    assert "\u4e2d" not in pieces
    assert sum(piece.startswith("<0x") for piece in pieces) == 3
    assert "".join(vocabulary.pieces("the cat sat")) == "the cat sat"


@pytest.mark.parametrize("words", ["text", "whitespace"])
@pytest.mark.parametrize(
    "text", ["\u00e9" + "x" * 700 + " y", "\u4e2d" * 900, "a b " * 200 + "\u00e9"]
)
def test_words_are_counted_as_they_are_encoded(words: str, text: str) -> None:
    """However long they are: the story was of fragments as entries, and of words that were none."""
    vocabulary = vocabulary_of(text, unit="word", words=words)
    assert UNK not in vocabulary.encode(text)
    assert vocabulary.words(text) == vocabulary.pieces(text)


@pytest.mark.parametrize(
    "text", ["It's a\t fine - film,\n isn\u2019t it?", "caf\u00e9\u3000\u4e2d, it's"]
)
def test_bare_words_are_the_words_and_marks_of_text_without_blanks(text: str) -> None:
    """In ASCII and in other text; with `--words text` nearly half of all tokens are blanks."""
    pieces = {w: vocabulary_of(text, unit="word", words=w).pieces(text) for w in ("text", "bare")}
    assert pieces["bare"] == [piece for piece in pieces["text"] if not piece.isspace()]
    vocabulary = vocabulary_of(text, unit="word", words="bare")
    assert vocabulary.decode(vocabulary.encode(text)) == " ".join(pieces["bare"])
    assert vocabulary.tokens[EOS] == "<eos>"


class PairVocabulary(WordVocabulary):
    """Pairs of characters, a unit that charlm does not have."""

    @staticmethod
    def pre_tokenizer(settings: VocabularySettings) -> dict:
        return split(r"[\s\S]{1,2}", "Isolated")

    def _plain_words(self, text: str) -> list[str]:
        return [text[start : start + 2] for start in range(0, len(text), 2)]


def test_a_unit_needs_only_a_class_and_its_row(monkeypatch, tmp_path) -> None:
    """Build, train, save, load, score and sample with a unit that is added at run time."""
    spec = replace(
        UNITS["word"], vocabulary=f"{__name__}:{PairVocabulary.__name__}",
        summary="pairs of characters", settings=("min_count",), whole_words=False,
    )  # fmt: skip
    monkeypatch.setitem(UNITS, "pair", spec)
    options = {"unit": "pair", "min_count": 1, "hidden_size": 8, "num_layers": 1, "steps": 3}
    text = "the cat sat on the mat.\n" * 40
    model = charlm.fit(text=text, seed=1, document="stream", checkpoints=tmp_path, **options)
    loaded = charlm.load(model.path)
    assert (loaded.vocabulary.unit, loaded.vocabulary.pieces("the ca")) == (
        "pair",
        ["th", "e ", "ca"],
    )
    assert loaded.score("the cat").rows() == model.score("the cat").rows()
    assert loaded.score("zzzz").rows()[0]["oov"] == 2
    assert len(loaded.sample(20, seed=3)) == 40
    with pytest.raises(UsageError, match="words whitespace has no effect with unit pair"):
        charlm.fit(text=text, unit="pair", words="whitespace", checkpoints=tmp_path, steps=1)
