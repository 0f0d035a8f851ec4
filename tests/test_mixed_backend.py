"""Mixed backends: the laws of a mixture of probabilities, in every engine."""

import itertools

import numpy as np
import pytest
from helpers import engine, tiny_model, vocabulary_of
from hypothesis import given, settings
from hypothesis import strategies as st

from charlm.backends.interface import Array, Entries, Ids, Logits, Nats, State
from charlm.backends.kernel_library import variants
from charlm.backends.mixed import MixedBackend, mixed_nats
from charlm.backends.native import NativeBackend
from charlm.backends.ngram_backend import NgramBackend
from charlm.backends.numpy_backend import NumpyBackend
from charlm.backends.softmax import log_softmax
from charlm.backends.weights import weights_from
from charlm.inference.generation import generate, read_prompt
from charlm.inference.likelihood import document_nats, stream_nats
from charlm.ngrams.kneser_ney import fit
from charlm.nn.encoder import saved_tensors
from charlm.text.tokenizers.tokenizer_json import EOS

V = 7
IDS = np.random.default_rng(5).integers(0, V, 400)


class LastIds:
    """A backend like an n-gram's: its state is the last two ids, and it remembers nothing else."""

    name, logits_each = "last ids", V

    def __init__(self, vocab_size: int = V) -> None:
        self.vocab_size = vocab_size
        self._table = np.random.default_rng(3).normal(0.0, 2.0, (4999, min(vocab_size, 64)))

    def initial_state(self, batch_size: int) -> State:
        """Return -1 for no token."""
        return ((np.full((batch_size, 2), -1.0, np.float32),),)

    def nats(self, inputs: Ids, targets: Ids, state: State) -> tuple[Nats, State]:
        """Return the nats of each token."""
        nats = np.empty(inputs.shape)
        for step, correct in enumerate(targets):
            logits, state = self.logits(inputs[step : step + 1], state)
            nats[step] = -log_softmax(logits)[np.arange(len(correct)), correct % V]
        return nats, state

    def ranks(self, inputs: Ids, targets: Ids, state: State) -> tuple[Nats, Ids, State]:
        """Not used by a mixture."""
        raise NotImplementedError

    def masses(
        self, inputs: Ids, targets: Ids, entries: Entries, state: State
    ) -> tuple[Nats, Nats, State]:
        """Return nats and the sums of the softmax."""
        masses, (nats, after) = np.empty(inputs.shape), self.nats(inputs, targets, state)
        for step in range(len(inputs)):
            logits, state = self.logits(inputs[step : step + 1], state)
            masses[step] = np.exp(log_softmax(logits))[:, entries].sum(axis=1)
        with np.errstate(divide="ignore"):
            return nats, np.log(masses), after

    def logits(self, inputs: Ids, state: State) -> tuple[Logits, State]:
        """Return a row of a random table for the last three ids."""
        for ids in inputs:
            before = state[0][0]
            last = np.column_stack([before, ids]).astype(np.int64)
            state = ((last[:, 1:].astype(np.float32),),)
        return self._table[last @ [31, 7, 1] % len(self._table)], state

    def distribution(self, inputs: Ids, state: State) -> tuple[Array, State]:
        """Return the logits after each input."""
        rows = []
        for step in range(len(inputs)):
            logits, state = self.logits(inputs[step : step + 1], state)
            rows.append(logits)
        return np.array(rows, np.float32), state

    def log_probabilities(self, logits: Logits) -> Nats:
        """Return the log-softmax."""
        return log_softmax(logits)


def plain(cell: str = "lstm", seed: int = 0) -> NumpyBackend:
    model = tiny_model(cell, V, seed=seed, scale=3.0)
    arrays = {name: tensor.numpy() for name, tensor in saved_tensors(model).items()}
    return NumpyBackend(weights_from(model.settings, arrays))


def members() -> dict[str, list]:
    """Return a pair of backends for each engine."""
    model = tiny_model("gru", V, seed=1, scale=3.0)
    arrays = {name: tensor.numpy() for name, tensor in saved_tensors(model).items()}
    pairs = {"numpy": [plain(), plain("gru", 4)], "torch": [engine(model), plain()]}
    pairs["ids"] = [plain(), LastIds()]
    for variant in variants():
        native = NativeBackend(weights_from(model.settings, arrays), variant, threads=1)
        pairs[variant] = [native, LastIds()]
    return pairs


every_pair = pytest.mark.parametrize("pair", members())


def mixture(pair: str, *weights: float) -> MixedBackend:
    return MixedBackend(members()[pair], weights or (0.3, 0.7))


def columns(count: int, length: int = 12) -> tuple[Ids, Ids]:
    """Return inputs and targets (T, B)."""
    ids = IDS[: count * (length + 1)].reshape(count, length + 1).T
    return ids[:-1], ids[1:]


@every_pair
@pytest.mark.parametrize("only", [0, 1])
def test_a_member_of_weight_1_is_the_mixture(pair: str, only: int) -> None:
    mixed, own = mixture(pair, 1.0 - only, only), members()[pair][only]
    inputs, targets = columns(3)
    nats, after = mixed.nats(inputs, targets, mixed.initial_state(3))
    expected, own_after = own.nats(inputs, targets, own.initial_state(3))
    assert nats == pytest.approx(expected, abs=1e-12)
    first = len(mixed.initial_state(1)) - len(own_after) if only else 0
    for layer, own_layer in zip(after[first:], own_after, strict=False):
        np.testing.assert_array_equal(np.stack(layer), np.stack(own_layer))
    logits, _ = mixed.logits(inputs, mixed.initial_state(3))
    own_logits, _ = own.logits(inputs, own.initial_state(3))
    assert logits == pytest.approx(own.log_probabilities(own_logits), abs=1e-12)


@every_pair
def test_nats_logits_and_ranks_agree_with_the_formula(pair: str) -> None:
    mixed, (left, right) = mixture(pair), members()[pair]
    inputs, targets = columns(4)
    nats, ranks, after = mixed.ranks(inputs, targets, mixed.initial_state(4))
    states = [left.initial_state(4), right.initial_state(4), mixed.initial_state(4)]
    for step, row in itertools.product(range(len(inputs)), range(4)):
        if row == 0:
            (a, states[0]), (b, states[1]), (logits, states[2]) = (
                backend.logits(inputs[step : step + 1], state)
                for backend, state in zip([left, right, mixed], states, strict=True)
            )
            by_hand = 0.3 * np.exp(log_softmax(a)) + 0.7 * np.exp(log_softmax(b))
        assert by_hand[row].sum() == pytest.approx(1.0, abs=1e-9)
        assert np.exp(logits[row]) == pytest.approx(by_hand[row], abs=1e-6)
        own = by_hand[row, targets[step, row]]
        assert nats[step, row] == pytest.approx(-np.log(own), abs=1e-4)
        assert ranks[step, row] == 1 + (by_hand[row] > own + 1e-7).sum()
    for layer, expected in zip(after, states[2], strict=True):
        for array, other in zip(layer, expected, strict=True):
            assert array == pytest.approx(other, abs=1e-5)


@every_pair
@pytest.mark.parametrize("fraction", [0.0, 0.4, 1.0])
def test_masses_are_sums_of_probabilities(pair: str, fraction: float) -> None:
    mixed, (inputs, targets) = mixture(pair), columns(3)
    entries = np.random.default_rng(4).random(V) < fraction
    nats, log_masses, after = mixed.masses(inputs, targets, entries, mixed.initial_state(3))
    alone, expected_after = mixed.nats(inputs, targets, mixed.initial_state(3))
    np.testing.assert_array_equal(nats, alone)
    state = mixed.initial_state(3)
    for step in range(len(inputs)):
        logits, state = mixed.logits(inputs[step : step + 1], state)
        expected = np.exp(logits)[:, entries].sum(axis=1)
        assert np.exp(log_masses[step]) == pytest.approx(expected, abs=1e-6)
    for layer, other in zip(after, expected_after, strict=True):
        np.testing.assert_array_equal(np.stack(layer), np.stack(other))


@every_pair
@settings(max_examples=8)
@given(cut=st.integers(1, 11), count=st.integers(1, 5))
def test_neither_pieces_nor_the_batch_matter(pair: str, cut: int, count: int) -> None:
    mixed = mixture(pair)
    inputs, targets = columns(count)
    whole, after = mixed.nats(inputs, targets, mixed.initial_state(count))
    first, state = mixed.nats(inputs[:cut], targets[:cut], mixed.initial_state(count))
    second, end = mixed.nats(inputs[cut:], targets[cut:], state)
    assert np.concatenate([first, second]) == pytest.approx(whole, abs=1e-5)
    for layer, expected in zip(end, after, strict=True):
        assert np.stack(layer) == pytest.approx(np.stack(expected), abs=1e-5)
    alone = [mixed.nats(inputs[:, [b]], targets[:, [b]], mixed.initial_state(1))[0]
             for b in range(count)]  # fmt: skip
    assert np.concatenate(alone, axis=1) == pytest.approx(whole, abs=1e-5)


@every_pair
def test_documents_and_streams_are_read_as_by_one_long_reading(pair: str) -> None:
    mixed = mixture(pair)
    targets = IDS[:, None]
    inputs = np.concatenate([[[EOS]], targets[:-1]])
    expected, _ = mixed.nats(inputs, targets, mixed.initial_state(1))
    assert document_nats(mixed, [IDS])[0] == pytest.approx(expected[:, 0], abs=1e-4)
    half, state = stream_nats(mixed, IDS[:150])
    rest, _ = stream_nats(mixed, IDS[150:], state, int(IDS[149]))
    assert np.concatenate([half, rest]) == pytest.approx(expected[:, 0], abs=1e-4)


def test_pieces_of_a_stream_are_exact_for_large_ids() -> None:
    """Ids differ by less than rounding of states of their size, but the first state has none."""
    size = 1 << 24
    backend = LastIds(size)
    backend.logits_each = size  # windows of one token
    ids = size - 1 - np.random.default_rng(0).integers(0, 40, 2100)
    nats, state = stream_nats(backend, ids)
    inputs = np.concatenate([[[EOS]], ids[:-1, None]])
    expected, after = backend.nats(inputs, ids[:, None], backend.initial_state(1))
    np.testing.assert_array_equal(nats, expected[:, 0])
    np.testing.assert_array_equal(state[0][0], after[0][0])


@every_pair
def test_samples_side_by_side_are_those_made_one_by_one(pair: str) -> None:
    mixed, vocabulary = mixture(pair), vocabulary_of("abcde")
    assert len(vocabulary) == V
    together = [[], [], []]
    for piece in generate(mixed, vocabulary, length=30, samples=3, seed=2):
        together[piece.sample].append(piece)
    for number in range(3):
        alone = list(generate(mixed, vocabulary, length=30, samples=1, first=number, seed=2))
        assert [piece.id for piece in alone] == [piece.id for piece in together[number]]
        logits, state = read_prompt(mixed, np.empty(0, np.int64))
        for piece in alone[:-1]:
            own = -log_softmax(logits)[0, piece.id]
            assert piece.nats == pytest.approx(own, abs=1e-4)
            logits, state = read_prompt(mixed, np.array([piece.id]), state)


def test_a_mixture_by_hand() -> None:
    """A half and an eighth, a quarter of the first: -ln(1/8 + 3/32)."""
    nats = [np.array([[np.log(2.0)]]), np.array([[np.log(8.0)]])]
    assert mixed_nats(nats, [0.25, 0.75])[0, 0] == pytest.approx(-np.log(1 / 8 + 3 / 32))


def test_a_mixture_of_extreme_nats_does_not_overflow() -> None:
    nats = mixed_nats([np.array([900.0, 1e-9]), np.array([1e-9, 900.0])], [0.5, 0.5])
    assert nats == pytest.approx([np.log(2.0)] * 2)
    nowhere = np.array([np.inf, 1.0])
    assert mixed_nats([nowhere, np.array([np.inf, np.inf])], [0.5, 0.5])[0] == np.inf
    assert mixed_nats([nowhere, np.array([5.0, 1.0])], [1.0, 0.0]).tolist() == [np.inf, 1.0]


# Weights by the length of the context that n-grams know

BY_LENGTH = (0.9, 0.6, 0.3, 0.05)


def known_length(train: list[int], history: list[int]) -> int:
    """Return the length, up to 3, of the longest end of a history that the training text has.

    A token alone is always known.
    """
    text = [EOS, *train]
    ends = [text[place : place + length] for length in (2, 3) for place in range(len(text))]
    return max([1, *(n for n in (2, 3) if n <= len(history) and history[-n:] in ends)])


def test_weights_by_length_depend_on_the_history_only() -> None:
    """So every distribution sums to 1, and has the nats of each target."""
    draws = np.random.default_rng(8)
    train = draws.integers(2, V, 25)  # few of the contexts below are known
    ids = np.concatenate([[EOS], draws.integers(2, V, 30)])
    own, ngrams = plain(), NgramBackend(fit(train, V, 4)[0])
    mixed = MixedBackend([own, ngrams], (0.5, 0.5), BY_LENGTH)
    inputs, targets = ids[:-1, None], ids[1:, None]
    nats, _ = mixed.nats(inputs, targets, mixed.initial_state(1))
    rows, _ = mixed.distribution(inputs, mixed.initial_state(1))
    lengths = set()
    for step in range(len(inputs)):
        history = ids[: step + 1].tolist()
        lengths.add(length := known_length(train.tolist(), history))
        pair = [
            member.logits(inputs[: step + 1], member.initial_state(1))[0]
            for member in (own, ngrams)
        ]
        left, right = (np.exp(log_softmax(logits)) for logits in pair)
        expected = (1.0 - BY_LENGTH[length]) * left[0] + BY_LENGTH[length] * right[0]
        logits, _ = mixed.logits(inputs[: step + 1], mixed.initial_state(1))
        assert np.exp(logits[0]) == pytest.approx(expected, abs=1e-6)
        assert np.exp(rows[step, 0]) == pytest.approx(expected, abs=1e-6)
        assert nats[step, 0] == pytest.approx(-np.log(expected[targets[step, 0]]), abs=1e-5)
        assert expected.sum() == pytest.approx(1.0, abs=1e-9)
    assert lengths == {1, 2, 3}


@settings(max_examples=8)
@given(cut=st.integers(1, 11), count=st.integers(1, 5))
def test_neither_pieces_nor_the_batch_matter_to_weights_by_length(cut: int, count: int) -> None:
    mixed = MixedBackend([plain(), NgramBackend(fit(IDS[:60], V, 4)[0])], (0.5, 0.5), BY_LENGTH)
    inputs, targets = columns(count)
    entries = np.arange(V) < 3
    whole, masses, _ = mixed.masses(inputs, targets, entries, mixed.initial_state(count))
    _, state = mixed.nats(inputs[:cut], targets[:cut], mixed.initial_state(count))
    rest, rest_masses, _ = mixed.masses(inputs[cut:], targets[cut:], entries, state)
    assert rest == pytest.approx(whole[cut:], abs=1e-6)
    assert rest_masses == pytest.approx(masses[cut:], abs=1e-6)
    for row in range(count):
        alone, _ = mixed.nats(inputs[:, [row]], targets[:, [row]], mixed.initial_state(1))
        assert alone[:, 0] == pytest.approx(whole[:, row], abs=1e-6)
    rows, _ = mixed.distribution(inputs, mixed.initial_state(count))
    assert np.exp(rows[..., :3]).sum(axis=2) == pytest.approx(np.exp(masses), abs=1e-5)
