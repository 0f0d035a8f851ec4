"""Models that read backward, and gaps filled with both directions."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import encoded_documents, encoded_stream, engine, tiny_model, vocabulary_of
from waiting import Ticking

from charlm.api.loading import load
from charlm.backends.interface import Backend
from charlm.config.settings import Settings, settings_from
from charlm.errors import RunError, UsageError, naming
from charlm.inference.generation import generate
from charlm.inference.infill import fill, rank
from charlm.inference.likelihood import document_nats, evaluate
from charlm.inference.scoring import Scorer
from charlm.runs import data
from charlm.runs.verify import verify_run
from charlm.text.boundaries import Boundaries
from charlm.text.corpus import Corpus
from charlm.text.dataset import Dataset
from charlm.text.direction import BackwardVocabulary, mirrored
from charlm.text.encoded import read_encoded
from charlm.training import resume as resuming
from charlm.training.resume import halves, resume
from charlm.training.session import Session
from charlm.training.start import start

TEXT = "abc abd\nab ca\n" * 12
EOS = 1


# ------------------------------------------------------------------ reading backward


def test_a_mirrored_text_by_hand() -> None:
    """Documents still end with EOS."""
    text = mirrored(encoded_documents([[2, 3, EOS], [4, EOS], [5, 6, 7, EOS]]))
    assert text.ids.tolist() == [7, 6, 5, EOS, 4, EOS, 3, 2, EOS]
    assert text.ends.tolist() == [4, 6, 9]
    assert mirrored(encoded_stream([2, 3, 4])).ids.tolist() == [4, 3, 2]
    assert len(mirrored(encoded_stream([])).ids) == 0
    again = mirrored(mirrored(encoded_documents([[2, 3, EOS], [4, EOS]])))
    assert again.ids.tolist() == [2, 3, EOS, 4, EOS]


@pytest.mark.parametrize("unit", ["char", "byte", "word", "bpe"])
@pytest.mark.parametrize("text", ["", "the cat", "Äh 👩‍🚀 don't\n", "a  b"])
def test_a_backward_vocabulary_encodes_from_the_last_token(unit: str, text: str) -> None:
    """Decoding gives the text in its order."""
    plain = vocabulary_of("the cat sat, Äh 👩‍🚀 don't\n a  b", unit)
    backward = BackwardVocabulary(plain)
    assert backward.encode(text).tolist() == plain.encode(text)[::-1].tolist()
    assert backward.pieces(text) == plain.pieces(text)[::-1]
    assert backward.decode(backward.encode(text)) == plain.decode(plain.encode(text))
    assert (len(backward), backward.unit) == (len(plain), unit)
    assert backward.token_text(2) == plain.token_text(2)


class Scripted:
    """A backend that predicts given tokens with certainty, one after each call."""

    def __init__(self, ids: list[int], size: int) -> None:
        self.ids, self.size = iter([*ids, EOS]), size

    def initial_state(self, batch_size: int) -> tuple:
        """Return a state without content."""
        return ()

    def logits(self, inputs: np.ndarray, state: tuple) -> tuple[np.ndarray, tuple]:
        """Return the logits of the next given token."""
        return np.where(np.arange(self.size) == next(self.ids), 0.0, -np.inf)[None], state


@pytest.mark.parametrize("unit", ["char", "word"])
def test_paragraphs_that_are_generated_backward_have_blank_lines_between(unit: str) -> None:
    inner = vocabulary_of("ab a\n", unit)
    text = "a\nab\n\nab a\n\nab"
    ids: list[int] = []
    for part in reversed(text.split("\n\n")):
        ids += [*inner.encode(part)[::-1].tolist(), EOS]
    pieces = generate(
        Scripted(ids, len(inner)),
        BackwardVocabulary(inner),
        length=len(ids) - 1,
        boundaries=Boundaries(document="paragraph"),
    )
    assert "".join(piece.text for piece in pieces) == text


def settings(direction: str, **training) -> Settings:
    values = {"steps": 8, "batch_size": 2, "bptt": 4, "seed": 1, "precision": "fp32",
              "threads": 1, "learning_rate": 0.05} | training  # fmt: skip
    model = {"hidden_size": 4, "num_layers": 1, "direction": direction}
    return settings_from({"training": values, "model": model})


def begun(folder: Path, direction: str, name: str = "x", **training) -> Session:
    corpus = Corpus.from_text(TEXT, "line")
    return start(settings(direction, **training), folder, name=name, corpus=corpus)


def trained(folder: Path, direction: str, name: str = "x", **training) -> Path:
    session = begun(folder, direction, name, **training)
    for half in halves(session):
        list(half.records())
    return session.path


def test_a_backward_model_is_a_forward_model_of_the_mirrored_text(tmp_path: Path) -> None:
    """`score`, `evaluate` and the record of the training agree."""
    model = load(trained(tmp_path, "backward"))
    ids = model.vocabulary.inner.encode("ab ca")[::-1].tolist()
    (expected,) = document_nats(model.run.backend, [np.array([*ids, EOS])])
    (score,) = model.score("ab ca", tokens=True)
    assert -score.log_probability == pytest.approx(expected.sum())
    assert [token.token for token in score.tokens] == ["a", "c", " ", "b", "a", "<eos>"]
    recorded = json.loads((model.path / "run.json").read_text())["results"]["valid"]
    kept = model.run.as_read(read_encoded(model.path / "data" / "valid"))
    assert evaluate(model.run.backend, kept).nats == pytest.approx(recorded["nats"], rel=1e-6)
    assert model.evaluate("ab ca\n").nats == pytest.approx(expected.sum())
    sample = model.sample(12, seed=3)
    pieces = list(model.generate(12, seed=3))
    assert len(sample) == sum(piece.tokens for piece in pieces) == 12
    assert [piece.text for piece in pieces[:-1]] == [""] * 12
    with naming({"carry": "--carry"}), pytest.raises(UsageError, match="leave out --carry"):
        Scorer(model.run.backend, model.vocabulary, model.run.boundaries, carry=True)


def test_a_backward_sample_precedes_its_prompt(tmp_path: Path) -> None:
    """A stop text would be known too late, so it is refused."""
    model = load(trained(tmp_path, "backward"))
    text = model.sample(5, seed=1, prompt="ab ca")
    assert len(text) == 5
    assert text != model.sample(5, seed=1)
    with naming({"stop": "--stop"}), pytest.raises(UsageError, match="--stop with a model that"):
        model.sample(5, seed=1, stop="a")


def test_each_half_has_the_weights_of_a_single_run(tmp_path: Path) -> None:
    both, alone = trained(tmp_path, "both"), trained(tmp_path, "forward", "y")
    back = trained(tmp_path, "backward", "z")
    name = "model.safetensors"
    assert (both / name).read_bytes() == (alone / name).read_bytes()
    assert (both / "backward" / name).read_bytes() == (back / name).read_bytes()
    assert not any(check.problems for check in verify_run(both))
    assert "backward/model.safetensors" in [check.name for check in verify_run(both)]
    (both / "backward" / name).write_bytes(b"x")
    assert any(check.problems for check in verify_run(both))


@pytest.mark.parametrize("stop", ["forward", "between", "backward"])
def test_a_run_of_two_halves_can_be_resumed_anywhere(stop: str, tmp_path: Path) -> None:
    whole = trained(tmp_path, "both", "whole")
    session = begun(tmp_path, "both")
    for number, half in enumerate(halves(session)):
        if (stop, number) in (("forward", 0), ("backward", 1)):
            half.trainer.stop("interrupted")
        if (stop, number) == ("between", 1):
            half.lock.release()
            break
        list(half.records())
    for half in halves(resume(session.path)):
        list(half.records())
    for part in (".", "backward"):
        first, second = (run / part / "model.safetensors" for run in (whole, session.path))
        assert first.read_bytes() == second.read_bytes()
    assert list(halves(resume(session.path))) == []


def stop_in_the_second_half(session: Session) -> None:
    """Complete the first half and stop in the second."""
    for number, half in enumerate(halves(session)):
        if number == 1:
            half.trainer.stop("interrupted")
        list(half.records())


def test_halves_read_a_large_text_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """stdin was once empty after the first half."""
    monkeypatch.setattr(data, "CACHED_FROM_BYTES", 10)
    session = begun(tmp_path, "both")
    whole = session.dataset
    monkeypatch.setattr(resuming, "read_data", lambda *_: read.pop())
    read: list[Dataset] = []
    stop_in_the_second_half(session)
    read.append(whole)  # once for both halves
    for half in halves(resume(session.path)):
        list(half.records())
    assert load(session.path).fill("a___c")


def test_a_second_half_without_its_text_uses_that_of_the_first(tmp_path: Path) -> None:
    session = begun(tmp_path, "both")
    stop_in_the_second_half(session)
    shutil.rmtree(session.path / "backward" / "data")
    for half in halves(resume(session.path)):
        list(half.records())
    assert load(session.path).fill("a___c")


def test_a_damaged_second_half_is_refused(tmp_path: Path) -> None:
    """Although its text need not be read."""
    session = begun(tmp_path, "both")
    stop_in_the_second_half(session)
    file = session.path / "backward" / "tokenizer.json"
    file.write_text(file.read_text().replace('"d"', '"x"'))
    with pytest.raises(RunError, match=r"tokenizer\.json: not as written"):
        list(halves(resume(session.path)))


def test_each_half_gets_half_of_the_minutes(tmp_path: Path) -> None:
    session = begun(tmp_path, "both", steps=None, minutes=0.002)
    assert session.trainer.settings.minutes == 0.001
    for half in halves(session):
        half.trainer.clock = Ticking(0.01)
        list(half.records())
    for half in halves(resume(session.path, {"training": {"minutes": 0.004}})):
        assert half.trainer.settings.minutes == 0.002
        half.trainer.clock = Ticking(0.01)
        list(half.records())


def test_changed_settings_reach_the_second_half(tmp_path: Path) -> None:
    """Even if the first half is complete and wrote nothing."""
    session = begun(tmp_path, "both")
    stop_in_the_second_half(session)
    changes = {"learning_rate": 0.01, "patience": 3}
    (half,) = halves(resume(session.path, {"training": changes}))
    settings = half.trainer.settings
    assert (settings.learning_rate, settings.patience) == (0.01, 3)
    list(half.records())
    assert json.loads((half.path / "run.json").read_text())["name"] == "x/backward"
    assert "--run x/backward" in (half.path / "README.md").read_text()


def test_a_second_half_without_a_record_is_started_again(tmp_path: Path) -> None:
    whole, path = trained(tmp_path, "both", "whole"), trained(tmp_path, "both")
    (path / "backward" / "run.json").unlink()
    for half in halves(resume(path)):
        list(half.records())
    name = "backward/model.safetensors"
    assert (path / name).read_bytes() == (whole / name).read_bytes()


# ------------------------------------------------------------------ gaps

V = 6
LEFT, RIGHT = np.array([2, 4, 3]), np.array([5, 2])


def half(seed: int) -> Backend:
    return engine(tiny_model("lstm", V, seed=seed, scale=4.0))


def total(side: Backend, ids: list[int], end: bool) -> float:
    """Return ln P of a whole text."""
    (nats,) = document_nats(side, [np.array(ids + [EOS] * end)])
    return -float(nats.sum())


@pytest.mark.parametrize("end", [True, False])
@pytest.mark.parametrize("sides", [(LEFT, RIGHT), (LEFT[:0], RIGHT), (LEFT, RIGHT[:0])])
def test_a_gap_is_ranked_by_the_probability_of_the_whole_text(end: bool, sides) -> None:
    """Brute force: half of ln P forward plus half of ln P backward."""
    forward, backward = half(1), half(2)
    left, right = sides
    ids, worth = rank(forward, backward, left, right, end=end)
    assert sorted(ids.tolist()) == [2, 3, 4, 5]
    expected = {
        token: 0.5 * total(forward, [*left, token, *right], end)
        + 0.5 * total(backward, [*right[::-1], token, *left[::-1]], end)
        for token in range(2, V)
    }
    best = sorted(expected, key=lambda token: -expected[token])
    assert ids.tolist() == best
    # both leave out the part that is the same for every token
    np.testing.assert_allclose(
        np.diff(worth), np.diff([expected[token] for token in best]), atol=1e-5
    )


def test_a_shortlist_keeps_the_likeliest() -> None:
    ids, _ = rank(half(1), half(2), LEFT, RIGHT, shortlist=2, end=True)
    assert len(ids) == 2


def test_gaps_are_filled_from_left_to_right() -> None:
    """UNK and EOS are never filled in."""
    vocabulary = vocabulary_of("abcd")
    forward, backward = half(1), half(2)
    gaps, filled = fill(forward, backward, vocabulary, "a___b___", top=3, end=True)
    assert [len(gap) for gap in gaps] == [3, 3]
    best = [gap[0].id for gap in gaps]
    assert filled == f"a{vocabulary.tokens[best[0]]}b{vocabulary.tokens[best[1]]}"
    _, filled = fill(forward, backward, vocabulary, "\u732b___\n", top=1, end=True)
    assert (filled[0], filled[2:]) == ("\u732b", "\n")  # typed text stays, known or not
    a, b = (int(vocabulary.encode(letter)[0]) for letter in "ab")
    first, _ = rank(forward, backward, np.array([a]), np.array([b, 0]), end=True)
    second, _ = rank(forward, backward, np.array([a, best[0], b]), np.array([], np.int64), end=True)
    assert best == [first[0], second[0]]
    everything, _ = fill(forward, backward, vocabulary, "a___", top=9, end=True)
    assert sum(filling.probability for filling in everything[0]) == pytest.approx(1.0)
    with pytest.raises(UsageError, match="no gap in 'abc'"):
        fill(forward, backward, vocabulary, "abc", top=3, end=True)


def test_gaps_need_a_run_with_both_halves(tmp_path: Path) -> None:
    """The error names the command that trains one."""
    model = load(trained(tmp_path, "both", steps=40))
    gaps, filled = model.fill("ab ___a")
    assert len(gaps[0]) == 5
    assert len(filled) == 5
    alone = load(trained(tmp_path, "forward", "y"))
    with pytest.raises(RunError, match="--direction both"):
        alone.fill("ab ___a")
    session = begun(tmp_path, "both", "z")
    list(session.records())
    with pytest.raises(RunError, match="no backward half yet; resume with"):
        load(session.path).fill("ab ___a")
