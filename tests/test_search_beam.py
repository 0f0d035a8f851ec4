"""Beam search over a toy decoder: greedy, exhaustive search, limits, and texts side by side."""

from itertools import product

import numpy as np
import pytest

from charlm.backends.interface import Array, State
from charlm.inference.search import (
    Memory,
    Steps,
    beam_search,
    forced_nats,
    max_tokens,
    search_texts,
)
from charlm.text.encoded import EncodedText, TextCounts

EOS = 1


class Toy:
    """Steps whose next token depends on all tokens before it and on the source.

    The state is a number of the text and its beginning; probabilities are drawn by it.
    """

    name = "toy"

    def __init__(self, size: int = 3, sharp: float = 1.5, end: float = 0.0) -> None:
        self.size, self.sharp, self.end = size, sharp, end

    def begin(self, text: EncodedText, rows: np.ndarray) -> Memory:
        """Read sources; the state begins with the sum of their ids."""
        ends, begins = text.ends[rows], np.where(rows > 0, text.ends[rows - 1], 0)
        pairs = list(zip(begins, ends, strict=True))
        sums = np.array([text.ids[a:b].sum() for a, b in pairs], np.float32)
        lengths = ends - begins
        vectors = np.zeros((len(rows), int(lengths.max()), 2), np.float32)
        return vectors, lengths, ((sums[:, np.newaxis],),)

    def after(self, state: float, token: int) -> float:
        """Return the state after one more token."""
        return (state * 7 + token + 1) % 65521

    def log_p(self, state: float) -> np.ndarray:
        """Return ln P of each next token."""
        logits = np.random.default_rng(int(state)).normal(0, self.sharp, self.size)
        logits[EOS] += self.end
        return logits - np.log(np.exp(logits).sum())

    def step(
        self, ids: np.ndarray, state: State, vectors: Array, steps: np.ndarray
    ) -> tuple[Array, Array, State]:
        """See `Steps.step`."""
        before = state[0][0].reshape(ids.shape)
        now = np.vectorize(self.after)(before, ids)
        log_p = np.array([[self.log_p(each) for each in row] for row in now], np.float32)
        weights = np.zeros((*ids.shape, vectors.shape[1]), np.float32)
        weights[..., 0] = now
        return log_p, weights, ((now.reshape(-1, 1).astype(np.float32),),)

    def path(self, start: float, ids: tuple[int, ...]) -> list[float]:
        """Return ln P of each token of an output."""
        state, found = self.after(start, EOS), []
        for token in ids:
            found.append(float(self.log_p(state)[token]))
            state = self.after(state, token)
        return found


def memory_of(starts: list[int]) -> Memory:
    """Sources of one step with these first states."""
    state = np.array(starts, np.float32)[:, np.newaxis]
    return np.zeros((len(starts), 1, 2), np.float32), np.ones(len(starts), int), ((state,),)


def encoded(texts: list[list[int]]) -> EncodedText:
    """Documents with EOS."""
    ids = np.concatenate([[*text, EOS] for text in texts]).astype(np.uint8)
    ends = np.cumsum([len(text) + 1 for text in texts])
    return EncodedText(ids=ids, ends=ends, counts=TextCounts(), is_stream=False)


def outputs(longest: int) -> list[tuple[int, ...]]:
    """Every output of at most this length that ends with EOS, for three entries."""
    return [
        (*ids, EOS) for length in range(longest) for ids in product((0, 2), repeat=length)
    ]  # fmt: skip


@pytest.mark.parametrize("norm", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("start", range(0, 400, 20))
def test_wide_beam_is_exhaustive_search(start: int, norm: float) -> None:
    """With room for all 15 outputs, the best of them is found."""
    toy: Steps = Toy()
    found = beam_search(toy, memory_of([start]), 15, np.array([4]), norm)[0]
    scores = {ids: sum(Toy().path(start, ids)) / len(ids) ** norm for ids in outputs(4)}
    best = max(scores, key=lambda ids: scores[ids])
    assert tuple(found.ids.tolist()) == best
    assert found.log_p == pytest.approx(Toy().path(start, best), abs=1e-6)


@pytest.mark.parametrize("start", range(0, 200, 10))
def test_beam_of_one_is_greedy(start: int) -> None:
    """The likeliest token each time, up to EOS or the limit."""
    toy, limit = Toy(6, end=-0.5), 9
    ids, state = [], toy.after(start, EOS)
    while len(ids) < limit and (not ids or ids[-1] != EOS):
        ids.append(int(toy.log_p(state).argmax()))
        state = toy.after(state, ids[-1])
    found = beam_search(toy, memory_of([start]), 1, np.array([limit]))[0]
    assert found.ids.tolist() == ids
    assert found.log_p == pytest.approx(toy.path(start, tuple(ids)), abs=1e-6)


def test_wider_beams_score_no_worse_on_average() -> None:
    """Search errors fall with the width of the beam."""
    toy, starts = Toy(8, end=-1.0), list(range(0, 900, 45))
    means = []
    for beam in (1, 2, 6, 30):
        found = beam_search(toy, memory_of(starts), beam, np.full(len(starts), 12), 0.0)
        means.append(np.mean([each.log_p.sum() for each in found]))
    assert means == sorted(means) and means[0] < means[-1] - 0.05


def test_attention_and_ids_belong_to_one_beam() -> None:
    """The toy's attention is its state: that of the tokens before."""
    toy = Toy(5, end=-1.0)
    for found in beam_search(toy, memory_of([3, 40]), 4, np.array([9, 9])):
        state = float(found.weights[0, 0])
        for token, weight in zip(found.ids[:-1], found.weights[1:, 0], strict=True):
            state = toy.after(state, int(token))
            assert weight == state


@pytest.mark.parametrize("beam", [1, 3, 5])
def test_outputs_do_not_depend_on_other_texts(beam: int) -> None:
    """Each text alone = all texts, also twice the same one; limits are each text's own."""
    toy = Toy(6, end=-2.0)
    texts = [[5, 2], [], [3], [5, 2], [2, 2, 2, 4], [4] * 9]
    together = dict(search_texts(toy, encoded(texts), beam))
    for row, text in enumerate(texts):
        found = together[row]
        alone = dict(search_texts(toy, encoded([text]), beam))[0]
        assert found.ids.tolist() == alone.ids.tolist()
        assert found.log_p.tolist() == alone.log_p.tolist()
        assert found.weights.shape == alone.weights.shape == (len(found.ids), len(text) + 1)


def test_outputs_are_cut_at_the_limit() -> None:
    """A decoder that never ends gives the likeliest beginning of full length, without EOS."""
    toy = Toy(4, end=-50.0)
    for limit in (1, 6):
        found = beam_search(toy, memory_of([0, 9]), 3, np.array([limit, limit + 2]))
        assert [len(each.ids) for each in found] == [limit, limit + 2]
        assert all(EOS not in each.ids for each in found)


def test_outputs_grow_with_their_source_up_to_a_limit() -> None:
    """A number in digits may become many words; a decoder in a loop ends."""
    assert max_tokens(np.array([1, 4, 1001])).tolist() == [53, 62, 1000]


def test_forced_nats_are_those_of_the_search() -> None:
    """Nats of an output as a given target = what beam search says of it."""
    toy, texts = Toy(6, end=-1.0), [[2], [3, 3], [4, 5, 2], [2, 3, 4, 5], []]
    outputs = dict(search_texts(toy, encoded(texts), 3))
    found = [outputs[row] for row in range(len(texts))]
    assert all(each.ids[-1] == EOS for each in found)
    targets = encoded([each.ids[:-1].tolist() for each in found])
    nats = forced_nats(toy, encoded(texts), targets)
    assert nats == pytest.approx([-each.log_p.sum() for each in found], abs=1e-5)
