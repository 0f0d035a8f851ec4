"""Prompts: documents, the start symbol, and the names of tokens."""

import pytest
from helpers import vocabulary_of
from serving import run_of

from charlm.server.prompts import encode, read_prompt, text_and_offsets, token_names
from charlm.text.boundaries import STREAM, Boundaries
from charlm.text.tokenizers.tokenizer_json import EOS
from charlm.text.tokenizers.vocabulary import Vocabulary

CHARS = vocabulary_of("ab \n")
WORDS = vocabulary_of("a b\nb a\n", "word", words="whitespace", min_count=1)
LINES = Boundaries(document="line")
PARAGRAPHS = Boundaries(document="paragraph")
WORD_LINES = Boundaries(line_end_is_eos=True)
TEXTS = ["", "a", "a b", "a\nb a", "a b\n", "\na", "\n", "\n\nb\n\na"]
UNKNOWN = ["é a", " a  x\t", "a\r\n\r\nb", "日\n\n\nx b "]


@pytest.mark.parametrize("text", TEXTS + UNKNOWN)
@pytest.mark.parametrize(
    ("vocabulary", "boundaries"),
    [(CHARS, STREAM), (CHARS, LINES), (WORDS, WORD_LINES), (WORDS, Boundaries(document="line"))],
)
def test_the_echo_of_a_text_is_the_text(
    vocabulary: Vocabulary, boundaries: Boundaries, text: str
) -> None:
    prompt = read_prompt(text, vocabulary, boundaries)
    echo, offsets = prompt.echo(run_of(vocabulary, boundaries))
    assert echo == text
    assert len(offsets) == prompt.tokens == len(encode(text, vocabulary, boundaries))
    assert offsets == sorted(offsets)
    if text in TEXTS:
        ids = encode(text, vocabulary, boundaries)
        assert text_and_offsets(ids, vocabulary, boundaries)[0] == text


def test_unknown_characters_are_echoed_as_they_were_sent() -> None:
    """Clients cut the prompt off by its length; it once came with U+FFFD."""
    prompt = read_prompt("日 a", CHARS, STREAM)
    assert prompt.echo(run_of(CHARS, STREAM)) == ("日 a", [0, 1, 2])
    assert text_and_offsets(prompt.ids, CHARS, STREAM)[0] == "\ufffd a"


def test_blank_lines_end_paragraphs() -> None:
    prompt = read_prompt("a\nb\n\nb", CHARS, PARAGRAPHS)
    assert prompt.ids.tolist().count(EOS) == 1
    assert prompt.echo(run_of(CHARS, PARAGRAPHS)) == ("a\nb\n\nb", [0, 1, 2, 3, 5])
    assert text_and_offsets(prompt.ids, CHARS, PARAGRAPHS) == ("a\nb\n\nb", [0, 1, 2, 3, 5])


def test_a_leading_eos_is_the_start_symbol_and_has_no_text() -> None:
    """A program that asks for P(first token) sends it; it is not a line end of the text."""
    plain, started = read_prompt("a b", WORDS, WORD_LINES), read_prompt([EOS, 3], WORDS, WORD_LINES)
    assert started.echo(run_of(WORDS, WORD_LINES)) == (WORDS.tokens[3], [0, 0])
    assert (plain.added, started.added) == (0, 0)
    assert read_prompt("<eos>", WORDS, WORD_LINES).echo(run_of(WORDS, WORD_LINES)) == ("", [0])


def test_a_text_that_begins_with_a_line_end_is_not_taken_for_a_start_symbol() -> None:
    """Its line end is read after the start symbol, as by `charlm score`."""
    prompt = read_prompt("\na", WORDS, WORD_LINES)
    assert prompt.ids.tolist() == [EOS, EOS, WORDS.ids["a"]]
    assert prompt.tokens == 2
    assert prompt.echo(run_of(WORDS, WORD_LINES)) == ("\na", [0, 1])


def test_a_cut_character_of_bytes_has_one_place() -> None:
    vocabulary = vocabulary_of("é", "byte")
    prompt = read_prompt("aé", vocabulary, STREAM)
    assert text_and_offsets(prompt.ids, vocabulary, STREAM) == ("aé", [0, 1, 1])
    half = read_prompt(prompt.ids.tolist()[:2], vocabulary, STREAM)
    assert half.echo(run_of(vocabulary, STREAM))[0] == "a\ufffd"


@pytest.mark.parametrize("unit", ["char", "byte", "word", "bpe"])
def test_names_of_tokens_are_distinct(unit: str) -> None:
    """A word of the text may read as the name of UNK, and two letters as one character."""
    vocabulary = vocabulary_of("<unk> <eos> an an é 日", unit)
    names = token_names(vocabulary)
    assert len(set(names)) == len(names) == len(vocabulary)
    assert names[:2] == ["<unk>", "<eos>"]


def test_a_token_that_reads_like_another_is_named_by_its_id() -> None:
    vocabulary = vocabulary_of("<unk> a <unk>", "word", words="whitespace", min_count=1)
    names = token_names(vocabulary)
    twice = [index for index in range(2, len(vocabulary)) if vocabulary.tokens[index] == "<unk>"]
    assert [names[index] for index in twice] == [f"<id {index}>" for index in twice]
