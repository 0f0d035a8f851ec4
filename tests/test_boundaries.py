"""Boundaries: line ends mean the same in training texts, prompts and scored texts."""

import numpy as np
import pytest
from helpers import Call, encoded_documents, vocabulary_of

from charlm import load, train
from charlm.api.model import Model
from charlm.errors import CorpusError, UsageError
from charlm.text.boundaries import STREAM, Boundaries
from charlm.text.corpus import Corpus
from charlm.text.documents import END
from charlm.text.tokenizers.tokenizer_json import EOS

TINY = {"hidden_size": 6, "num_layers": 1, "steps": 4, "batch_size": 2, "bptt": 8, "seed": 1,
        "precision": "fp32", "threads": 1, "learning_rate": 0.1}  # fmt: skip
KINDS = {
    "lines": {"document": "line"},
    "bytes": {"document": "line", "unit": "byte"},
    "words": {"document": "line", "unit": "word", "words": "whitespace", "min_count": 1},
    "paragraphs": {"document": "paragraph"},
    "backward": {"document": "line", "direction": "backward"},
}
TEXT = "an bo\n\nbo an\nan an\n\nna\n" * 9


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Model]:
    folder = tmp_path_factory.mktemp("prompts")
    for name, kind in KINDS.items():
        assert list(train(text=TEXT, checkpoints=folder, name=name, **TINY, **kind))
    return {name: load(folder / name) for name in KINDS}


def chances(model: Model, prompt: str) -> list[float]:
    """Return the probabilities of the next token in the order of the ids."""
    tokens = model.next(prompt, top=len(model.vocabulary))
    return [token.probability for token in sorted(tokens, key=lambda token: token.id)]


@pytest.mark.parametrize("kind", ["lines", "bytes", "words", "backward"])
def test_a_line_end_in_a_prompt_ends_the_document(models: dict[str, Model], kind: str) -> None:
    """It was once read as UNK."""
    model = models[kind]
    assert chances(model, "an\n" if kind != "backward" else "\nan") == chances(model, "")
    several = "bo\nna\nan" if kind != "backward" else "an\nna\nbo"
    for prompt in (several, several.replace("\n", "\r\n")):
        assert chances(model, prompt) == chances(model, "an") != chances(model, "")
    assert model.context(several) == "an"
    np.testing.assert_array_equal(
        model.state(several).log_probabilities, model.state("an").log_probabilities
    )


@pytest.mark.parametrize("kind", ["lines", "bytes", "words", "paragraphs"])
def test_samples_continue_the_open_document(models: dict[str, Model], kind: str) -> None:
    """Earlier documents of the prompt have no effect."""
    model, between = models[kind], "\n\n" if kind == "paragraphs" else "\n"
    text = "".join(model.sample(30, prompt="an", seed=3))
    assert "".join(model.sample(30, prompt=f"bo bo{between}an", seed=3)) == text
    assert "".join(model.sample(30, prompt=f"an{between}", seed=3)) == "".join(
        model.sample(30, seed=3)
    )


def test_blank_lines_end_a_paragraph_and_a_line_end_does_not(models: dict[str, Model]) -> None:
    """A single line end is a token of the paragraph."""
    model = models["paragraphs"]
    assert chances(model, "an\n\n\nbo\nan") == chances(model, "bo\nan") != chances(model, "an")
    assert chances(model, "an\r\n\r\nbo\r\nan") == chances(model, "bo\nan")
    assert chances(model, "\nbo") == chances(model, "bo")


@pytest.mark.parametrize("kind", ["lines", "bytes", "words"])
def test_a_step_over_a_line_end_is_a_step_over_eos(models: dict[str, Model], kind: str) -> None:
    """ln P of a line with its end equals its score."""
    model = models[kind]
    total, state = model.step(model.state(), "an bo\n")
    assert total == pytest.approx(model.score("an bo")[0].log_probability)
    np.testing.assert_array_equal(state.log_probabilities, model.state().log_probabilities)


@pytest.mark.parametrize("kind", ["lines", "bytes", "words", "backward"])
def test_lines_of_a_sentence_are_scored_as_documents(models: dict[str, Model], kind: str) -> None:
    """`score` and `evaluate` agree; the last line end is the last EOS."""
    model = models[kind]
    whole = model.score("an bo\nna", tokens=True)[0]
    parts = model.score(["an bo", "na"], tokens=True)
    assert whole.log_probability == pytest.approx(sum(part.log_probability for part in parts))
    in_reading_order = parts[::-1] if kind == "backward" else parts
    ranks = [token.rank for part in in_reading_order for token in part.tokens]
    assert [token.rank for token in whole.tokens] == ranks
    assert model.evaluate("an bo\nna\n").nats == pytest.approx(-whole.log_probability)
    assert not any(token.oov for token in whole.tokens)
    assert model.score("an bo\r\nna\r\n")[0].tally == whole.tally
    ended = model.score("an bo\n", tokens=True)[0]
    assert ended.log_probability == pytest.approx(parts[0].log_probability)
    assert ended.text == "an bo\n"


@pytest.mark.parametrize("unit", ["char", "byte", "word", "bpe"])
def test_a_cell_of_several_lines_is_one_document(tmp_path, unit: str) -> None:
    """A line end in a cell is a token."""
    (tmp_path / "a.jsonl").write_text('{"text": "an\\nbo"}\n{"text": "bo\\nan na"}\n' * 20)
    settings = {"unit": unit, "hold_out": "random"}
    assert list(
        train(str(tmp_path / "a.jsonl"), checkpoints=tmp_path, name="x", **TINY, **settings)
    )
    model = load(tmp_path / "x")
    assert (model.run.boundaries.document, model.run.boundaries.text_document) == ("line", "file")
    assert model.context("an\nbo") == "an\nbo"
    assert chances(model, "an\nbo") != chances(model, "bo")
    tokens = model.score("an\nbo", tokens=True)[0].tokens
    assert [token.id for token in tokens].count(model.vocabulary.eos) == 1


@pytest.mark.parametrize(
    ("document", "prompt", "expected"),
    [
        ("stream", "a\n\nb\r\n", "a\n\nb\r\n"),
        ("file", "a\n\nb\n", "a\n\nb\n"),
        ("line", "a\nb", "b"),
        ("line", "a\n", ""),
        ("line", "", ""),
        ("paragraph", "a\nb\n\nc\nd\n", "c\nd\n"),
        ("paragraph", "a\n\n", ""),
    ],
)
def test_the_open_document_by_hand(document: str, prompt: str, expected: str) -> None:
    """It is the last document of a corpus that begins with the prompt."""
    assert Boundaries(document=document).open_document(prompt) == expected
    if document != "file":
        whole = "".join(Corpus.from_text(f"{prompt}x", document).chunks())
        assert whole.removesuffix(END).endswith(f"{expected}x")
        assert whole.removesuffix(END).rpartition(END)[2] == f"{expected}x"


def test_open_documents_without_a_reset_and_with_cr_lf() -> None:
    """Blank-separated words of paragraphs: EOS ends lines too, and the state does not reset."""
    words = Boundaries(document="paragraph", line_end_is_eos=True, eos_inside=True)
    assert words.open_document("a\n\n\nb\nc") == "a\nb\nc"
    windows = Boundaries(document="line", crlf=True)
    assert windows.open_document("a\r\nb") == "b"
    assert windows.mark("a\r\nb") == f"a\r{END}b"
    with pytest.raises(CorpusError, match="surrogate"):
        windows.open_document(f"a{END}b")


def test_boundaries_of_a_run_follow_from_its_text() -> None:
    """They survive config.json; for older runs the vocabulary decides."""
    words = vocabulary_of("a b\n" * 9, unit="word", words="whitespace")
    row = [*words.encode("a b").tolist(), EOS]
    one, two = (encoded_documents([row * lines] * 9) for lines in (1, 2))
    single, double = (Boundaries.of_text(text, words, "line", crlf=True) for text in (one, two))
    assert (single.resets, double.resets) == (True, False)
    assert (single.eos_inside, double.eos_inside) == (False, True)
    letters = vocabulary_of("ab\n")
    cells = encoded_documents([[*letters.encode("a\nb").tolist(), EOS]])
    inside = Boundaries.of_text(cells, letters, "line", crlf=False)
    assert (inside.line_ends_inside, inside.text_document, inside.resets) == (True, "file", True)
    for boundaries, vocabulary in ((single, words), (double, words), (inside, letters)):
        assert Boundaries.from_config(boundaries.to_config(), vocabulary) == boundaries
    old = Boundaries.from_config({"document": "line"}, letters)
    assert (old.line_ends_inside, old.eos_inside, old.crlf) == (True, False, False)


def test_the_last_line_end_of_a_prompt_file_ends_no_document(
    models: dict[str, Model], tmp_path, monkeypatch, call: Call
) -> None:
    """Editors always write one."""
    monkeypatch.chdir(tmp_path)
    prompts = [Boundaries(document="line").file_prompt(text) for text in ("an\n", "an\r\n", "an")]
    assert prompts == ["an"] * 3
    assert Boundaries(document="line").file_prompt("an\n\n") == "an\n"
    assert STREAM.file_prompt("an\n") == "an\n"
    options = ("sample", "--run", str(models["lines"].path), "--len", "20", "--seed", "3")
    for name, text in {"a.txt": "an\n", "b.txt": "bo\r\nan\r\n", "c.txt": "an"}.items():
        (tmp_path / name).write_bytes(text.encode())
    outputs = [call(*options, "--prime", "an")]
    outputs += [call(*options, "--prime-file", name) for name in ("a.txt", "b.txt", "c.txt")]
    assert outputs == [outputs[0]] * 4
    assert outputs[0][0] == 0
    assert "not in the vocabulary" not in outputs[0][2]


def test_an_end_of_a_document_is_not_reported_as_unknown(
    models: dict[str, Model], tmp_path, monkeypatch, call: Call
) -> None:
    """An unknown letter is."""
    monkeypatch.chdir(tmp_path)
    run = ("--run", str(models["lines"].path))
    for text, unknown in {"an\nbo": False, "an\r\nbo\r\n": False, "an\nxo": True}.items():
        for command in (["score", text], ["next", text]):
            status, _, err = call(*command, *run)
            assert (status, "read as UNK: 'x'" in err) == (0, unknown)
            assert "\\n" not in err and "\\r" not in err


def test_gaps_must_be_in_one_line(models: dict[str, Model]) -> None:
    with pytest.raises(UsageError, match="has several lines"):
        models["lines"].fill("a ___\nb")


def test_the_line_end_of_a_scored_line_is_named_as_in_the_text(models: dict[str, Model]) -> None:
    """Programs that leave `<eos>` out of a sum keep the line ends that they sent."""
    names = [
        [token.token for token in models["lines"].score(text, tokens=True)[0].tokens]
        for text in ("an\nbo", "an\nbo\n", "an\nbo\r\n")
    ]
    assert names[0] == ["a", "n", "\n", "b", "o", "<eos>"]
    assert names[1] == names[2] == ["a", "n", "\n", "b", "o", "\n"]
