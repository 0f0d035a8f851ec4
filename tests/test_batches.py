"""Batches: every token is a target exactly once, inputs are right, any position can resume."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from helpers import encoded_documents, encoded_stream
from hypothesis import given, settings
from hypothesis import strategies as st

from charlm.text.batches import (
    PADDING,
    Batch,
    Batches,
    BatchSpec,
    Position,
    begins_text,
    cut_segments,
    first_inputs,
    longest_segment,
    random_window_ends,
)
from charlm.text.encoded import EncodedText
from charlm.text.tokenizers.tokenizer_json import EOS

LINE_END = 9
SPECS = st.builds(
    BatchSpec,
    batch_size=st.integers(1, 5),
    bptt=st.integers(1, 6),
    stateless=st.booleans(),
    seed=st.integers(0, 99),
    line_end=st.sampled_from([None, LINE_END]),
    random_bptt=st.booleans(),
)
LENGTHS = st.lists(st.integers(0, 12), min_size=1, max_size=8)


@st.composite
def texts(draw) -> EncodedText:
    """Draw streams and documents whose ids count up, with line ends between them."""
    if draw(st.booleans()):
        size = draw(st.integers(1, 40))
        return encoded_stream(LINE_END if n % 7 == 4 else 20 + n for n in range(size))
    lengths = enumerate(draw(LENGTHS))
    documents = [[20 + 13 * number + n for n in range(length)] for number, length in lengths]
    return encoded_documents([[*document, EOS] for document in documents])


def epoch(text: EncodedText, spec: BatchSpec, position: Position | None = None) -> list[Batch]:
    return list(Batches(text, spec).epoch(position or Position()))


def plain(batches: list[Batch]) -> list[tuple]:
    return [(w.inputs.tolist(), w.targets.tolist(), w.first, w.tokens, w.next) for w in batches]


def longest(spec: BatchSpec) -> int:
    return spec.bptt + 20 if spec.random_bptt else spec.bptt


# ------------------------------------------------------------------ by hand


def test_a_stream_of_six_characters_by_hand() -> None:
    """ "abcdef" in batches of four: a is predicted from the start symbol, f is not cut off."""
    a, b, c, d, e, f = range(2, 8)
    first, second = epoch(encoded_stream([a, b, c, d, e, f]), BatchSpec(batch_size=1, bptt=4))
    assert first.inputs[:, 0].tolist() == [EOS, a, b, c]
    assert first.targets[:, 0].tolist() == [a, b, c, d]
    assert second.inputs[:, 0].tolist() == [d, e]
    assert second.targets[:, 0].tolist() == [e, f]
    assert [first.first, second.first] == [True, False]
    assert [first.tokens, second.tokens] == [4, 2]
    assert first.next == Position(epoch=0, group=0, offset=4)
    assert second.next == Position(epoch=1, group=0, offset=0)


def test_two_documents_by_hand() -> None:
    """ "ab" and "c" side by side: the shorter is padded, and padding is no target."""
    a, b, c = 2, 3, 4
    (batch,) = epoch(encoded_documents([[a, b, EOS], [c, EOS]]), BatchSpec(batch_size=2, bptt=8))
    rows = {tuple(batch.targets[:, row]): batch.inputs[:, row].tolist() for row in range(2)}
    assert rows == {(a, b, EOS): [EOS, a, b], (c, EOS, PADDING): [EOS, c, EOS]}
    assert batch.tokens == 5


@given(texts(), SPECS)
def test_stats_equal_those_of_the_first_epoch(text: EncodedText, spec: BatchSpec) -> None:
    spec = replace(spec, random_bptt=False)
    batches, stats = epoch(text, spec), Batches(text, spec).stats()
    places = [batch.targets.size for batch in batches]
    assert stats.tokens == pytest.approx(len(text.ids) / len(batches))
    assert stats.steps == pytest.approx(np.mean([len(batch.targets) for batch in batches]))
    assert stats.token_fraction == pytest.approx(len(text.ids) / sum(places))


def sequences(batches: list[Batch]) -> list[list[int]]:
    """Return the tokens of each sequence of each group, from all its batches."""
    runs: list[list[int]] = []
    going: list[list[int]] = []
    for batch in batches:
        if batch.first:
            going = [[] for _ in range(batch.targets.shape[1])]
            runs += going
        else:
            going = [going[row] for row in batch.kept]
        for run, column in zip(going, batch.targets.T, strict=True):
            run += column[column != PADDING].tolist()
            assert column[0] != PADDING
    return runs


def test_a_segment_that_begins_a_line_reads_the_start_symbol() -> None:
    text = encoded_stream([20, LINE_END, 22, 23])
    assert begins_text(text, np.arange(4), LINE_END).tolist() == [True, False, True, False]
    assert begins_text(text, np.array([0, 2]), None).tolist() == [True, False]


def test_documents_begin_at_the_end_of_the_one_before() -> None:
    """A search from the wrong side once missed these places."""
    text = encoded_documents([[5, 6], [7], [8, 5]], is_stream=True)
    assert begins_text(text, np.arange(5), None).tolist() == [True, False, True, True, False]


@given(texts(), SPECS)
def test_start_symbols_of_documents_replace_eos_as_first_input(
    text: EncodedText, spec: BatchSpec
) -> None:
    """Only where a segment begins a text, with the symbol of its document; no other input."""
    firsts = 100 + np.arange(text.documents)
    numbers = np.searchsorted(text.ends, np.arange(len(text.ids)), "right")
    document = dict(zip(text.ids.tolist(), numbers.tolist(), strict=True))
    pairs = zip(epoch(text, spec), epoch(replace(text, firsts=firsts), spec), strict=True)
    for plain_batch, batch in pairs:
        changed = plain_batch.inputs != batch.inputs
        assert np.array_equal(plain_batch.targets, batch.targets)
        assert not changed[1:].any() and (plain_batch.inputs[changed] == EOS).all()
        for column in np.flatnonzero(changed[0]):
            symbol, target = batch.inputs[0, column], int(batch.targets[0, column])
            assert target in (EOS, LINE_END) or symbol == 100 + document[target]
    begins = first_inputs(replace(text, firsts=firsts), np.append(0, text.ends[:-1]), None)
    filled = np.diff(text.ends, prepend=0) > 0
    assert begins[filled].tolist() == firsts[filled].tolist()


# ------------------------------------------------------------------ laws


@given(text=texts(), spec=SPECS)
@settings(max_examples=300)
def test_every_token_is_a_target_exactly_once(text: EncodedText, spec: BatchSpec) -> None:
    """For any batch size and window."""
    batches = epoch(text, spec)
    targets = np.concatenate([batch.targets.reshape(-1) for batch in batches])
    assert Counter(targets[targets != PADDING].tolist()) == Counter(text.ids.tolist())
    assert sum(batch.tokens for batch in batches) == len(text.ids)
    for batch in batches:
        assert batch.inputs.shape == batch.targets.shape
        assert batch.inputs.shape[0] <= longest(spec)
        assert batch.inputs.shape[1] <= spec.batch_size
        assert batch.tokens == (batch.targets != PADDING).sum() > 0


@given(text=texts(), spec=SPECS)
@settings(max_examples=300)
def test_inputs_are_the_tokens_before_the_targets(text: EncodedText, spec: BatchSpec) -> None:
    """The first input of a document or line is the start symbol."""
    before: dict[int, set[int]] = {}
    for previous, index in pairwise([EOS, *text.ids.tolist()]):
        before.setdefault(index, set()).add(previous)
    for batch in epoch(text, spec):
        for row in range(batch.targets.shape[1]):
            for step in range(batch.targets.shape[0]):
                target, given_one = int(batch.targets[step, row]), int(batch.inputs[step, row])
                if target == PADDING:
                    continue
                afresh = (
                    given_one == EOS
                    and step == 0
                    and batch.first
                    and before[target] <= {EOS, spec.line_end}
                )
                assert given_one in before[target] or afresh


@given(text=texts(), spec=SPECS)
@settings(max_examples=200)
def test_the_state_is_carried_within_one_text(text: EncodedText, spec: BatchSpec) -> None:
    """A sequence never holds two documents."""
    batches = epoch(text, spec)
    assert batches[0].first
    ids = text.ids.tolist()
    for run in sequences(batches):
        assert any(ids[start : start + len(run)] == run for start in range(len(ids)))
        if not text.is_stream:
            assert EOS not in run[:-1]
        if spec.stateless:
            assert len(run) <= spec.bptt


@given(text=texts(), spec=SPECS)
@settings(max_examples=150)
def test_an_epoch_resumes_after_any_batch(text: EncodedText, spec: BatchSpec) -> None:
    batches = epoch(text, spec)
    whole = plain(batches)
    for number, batch in enumerate(batches[:-1]):
        assert batch.next.epoch == 0
        assert plain(epoch(text, spec, batch.next)) == whole[number + 1 :]
    assert batches[-1].next == Position(epoch=1, group=0, offset=0)
    second = epoch(text, spec, batches[-1].next)
    assert second[-1].next == Position(epoch=2)
    assert plain(epoch(text, spec, Position(epoch=1))) == plain(second)


@given(text=texts(), spec=SPECS)
@settings(max_examples=100)
def test_segments_are_the_text_without_gap_or_overlap(text: EncodedText, spec: BatchSpec) -> None:
    """Every document begins a segment."""
    starts, stops = cut_segments(text, spec, np.random.default_rng(spec.seed))
    assert starts[0] == 0
    assert stops[-1] == len(text.ids)
    assert (starts[1:] == stops[:-1]).all()
    assert (starts < stops).all()
    assert set(text.ends[:-1].tolist()) <= set(starts.tolist())


# ------------------------------------------------------------------ order

DOCUMENTS = encoded_documents([[20 + n, EOS] for n in range(30)])
STREAM = encoded_stream(range(20, 120))


@pytest.mark.parametrize("text", [DOCUMENTS, STREAM], ids=["documents", "stream"])
@pytest.mark.parametrize("stateless", [False, True])
def test_the_order_changes_with_seed_and_epoch_and_nothing_else(text, stateless: bool) -> None:
    spec = BatchSpec(batch_size=4, bptt=5, stateless=stateless, seed=1)
    first = plain(epoch(text, spec))
    assert plain(epoch(text, spec)) == first
    targets = [item[1] for item in first]
    assert [item[1] for item in plain(epoch(text, spec, Position(epoch=1)))] != targets
    other = BatchSpec(batch_size=4, bptt=5, stateless=stateless, seed=2)
    assert [item[1] for item in plain(epoch(text, other))] != targets


def test_segments_of_a_stream_begin_at_lines_if_possible() -> None:
    ids = [LINE_END if n % 3 == 2 else 20 + n for n in range(200)]
    spec = BatchSpec(batch_size=4, bptt=8, line_end=LINE_END)
    starts, _ = cut_segments(encoded_stream(ids), spec, np.random.default_rng(0))
    assert len(starts) == 4
    assert all(ids[start - 1] == LINE_END for start in starts[1:])


def test_groups_hold_documents_of_all_lengths() -> None:
    """Groups of one length trained worse (names: 2.42 instead of 2.34)."""
    documents = [[20 + n] * 1 for n in range(32)] + [[90 + n] * 8 for n in range(32)]
    batches = epoch(encoded_documents(documents), BatchSpec(batch_size=8, bptt=64))
    mixed = [len(set((w.targets != PADDING).sum(axis=0).tolist())) > 1 for w in batches]
    assert sum(mixed) > len(mixed) / 2


def test_a_long_document_among_short_ones_is_cut() -> None:
    text = encoded_documents([[20 + n for n in range(90)], *([[5]] * 10)])
    starts, stops = cut_segments(text, BatchSpec(batch_size=5, bptt=4), np.random.default_rng(0))
    assert (stops - starts).max() <= 30


def test_very_unequal_documents_are_cut_until_half_of_the_places_hold_tokens() -> None:
    """The story: paragraphs of 30 to 36,000 letters filled a fifth, and training was as slow."""
    draws = np.random.default_rng(0)
    lengths = np.ceil(draws.lognormal(6, 1.5, 400)).astype(int)
    text = encoded_documents([[2] * int(length) for length in lengths])
    spec = BatchSpec(batch_size=16, bptt=8)

    assert lengths.max() > 20 * np.median(lengths)
    starts, stops = cut_segments(text, spec, draws)
    assert len(starts) < 3 * len(lengths)
    sizes = draws.permutation(stops - starts)[: 25 * 16].reshape(-1, 16)
    assert sizes.mean() / sizes.max(axis=1).mean() > 0.45
    assert longest_segment(lengths, spec) < lengths.max()


@pytest.mark.parametrize("lengths", [[900] * 200, [8] * 200 + [60], [5, 9000, 400], [*range(200)]])
def test_other_documents_are_cut_only_if_they_are_longer_than_a_sequence(lengths) -> None:
    """Equal ones, short ones, and a few of any length."""
    spec = BatchSpec(batch_size=16, bptt=8)
    expected = max(-(-sum(lengths) // 16), 8)
    assert longest_segment(np.array(lengths), spec) == expected


def test_random_window_lengths_follow_the_paper() -> None:
    """Merity et al. 2018: around bptt, one in twenty around half of it."""
    draws = np.random.default_rng(0)
    lengths = np.diff(random_window_ends(700_000, 70, draws))
    short = lengths < 52
    assert short.mean() == pytest.approx(0.05, abs=0.01)
    assert lengths[~short].mean() == pytest.approx(70, abs=0.3)
    assert lengths[short].mean() == pytest.approx(35, abs=1)
    assert lengths[~short].std() == pytest.approx(5, abs=0.3)
    assert lengths.max() <= 90
    assert lengths.min() >= 5
    for size in (1, 4, 5, 6, 69, 70, 71, 1000):
        cuts = random_window_ends(size, 70, draws)
        assert cuts[0] == 0
        assert cuts[-2] < size <= cuts[-1]


def test_random_windows_differ_between_epochs_only() -> None:
    """They depend on seed, epoch and group, so any position can resume."""
    text = encoded_stream(n % 99 for n in range(3000))
    spec = BatchSpec(batch_size=2, bptt=30, seed=3, random_bptt=True)
    first = [w.inputs.shape[0] for w in epoch(text, spec)]
    assert len(set(first)) > 5
    assert first == [w.inputs.shape[0] for w in epoch(text, spec)]
    assert first != [w.inputs.shape[0] for w in epoch(text, spec, Position(epoch=1))]


@pytest.mark.parametrize("documents", range(2, 40))
def test_long_documents_make_no_more_segments_than_sequences(documents: int) -> None:
    """Three equal novels once made 33 segments for batch size 32."""
    text = encoded_documents([[2] * 999 + [EOS]] * documents)
    starts, _ = cut_segments(text, BatchSpec(batch_size=32, bptt=8), np.random.default_rng(0))
    assert documents <= len(starts) <= max(32, documents)
    assert len(starts) >= 32 - documents


@given(text=texts(), spec=SPECS, parts=st.integers(1, 7))
@settings(max_examples=100)
def test_a_split_batch_is_the_whole_batch(text: EncodedText, spec: BatchSpec, parts: int) -> None:
    """No part is empty."""
    for batch in epoch(text, spec):
        split = batch.split(parts)
        assert len(split) == min(parts, len(batch.kept))
        for name in ("inputs", "targets", "kept"):
            joined = np.concatenate([getattr(part, name) for part in split], axis=-1)
            assert np.array_equal(joined, getattr(batch, name))
        assert sum(part.tokens for part in split) == batch.tokens
        assert all(part.tokens for part in split)


@given(texts(), SPECS)
@settings(max_examples=60)
def test_sequences_keep_their_places_in_a_group(text: EncodedText, spec: BatchSpec) -> None:
    """A process finds its sequences by them, whichever other ones have ended."""
    before: list[int] = []
    for batch in epoch(text, spec):
        places = batch.places
        assert places is not None
        if batch.first:
            assert places.now.tolist() == list(range(places.width))
        else:
            assert places.before.tolist() == before
            assert places.now.tolist() == places.before[batch.kept].tolist()
        before = places.now.tolist()
        parts = [part.places.now for part in batch.split(2) if part.places]
        assert np.concatenate(parts).tolist() == before
