"""Scoring: the log-probability of texts, of each of their words, or of their tokens with ranks."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.backends.interface import Backend, Ids, Nats, State
from charlm.errors import UsageError, check_choice, named
from charlm.inference.entropy import with_entropy
from charlm.inference.likelihood import (
    MAX_ROWS,
    Read,
    nats_alone,
    read_documents,
    stream_nats,
    tally,
)
from charlm.inference.scores import Score, Scores, TokenScore
from charlm.inference.words import TokenNats, WordReader, WordRule, WordScore
from charlm.phases import reach
from charlm.text.boundaries import Boundaries
from charlm.text.direction import BackwardVocabulary
from charlm.text.documents import END, check_text
from charlm.text.encoded import EncodedText, count_text
from charlm.text.tokenizers.spans import Places, token_spans
from charlm.text.tokenizers.tokenizer_json import EOS
from charlm.text.tokenizers.vocabulary import Vocabulary

PARTS = ("text", "word", "token")
"""Parts of a text that get a score of their own, beside the text."""
TEXTS_AT_ONCE = 4096
"""Number of distinct texts that are scored at once, sorted by length."""
TEXTS_ENCODED = 16 * TEXTS_AT_ONCE
"""Number of texts that are held in encoded form to be sorted."""


class Scorer:
    """A scorer of texts under one model.

    `boundaries` decide whether EOS is part of a score, and where a text is cut into documents that
    are read from the zero state. With `carry`, the texts are one stream instead: each is read from
    the state after the text before. With `carry` and `lines` each text is a line of the stream; if
    no EOS ends it, its line end is scored too. `unk_penalty` is passed to every score.
    `word_rule` says how tokens become words. With `entropy`, tokens and words have the entropy of
    the prediction. Raises UsageError for `carry` with a model that reads backward.
    """

    def __init__(
        self,
        backend: Backend,
        vocabulary: Vocabulary,
        boundaries: Boundaries,
        *,
        carry: bool = False,
        lines: bool = False,
        unk_penalty: float = 0.0,
        word_rule: WordRule | None = None,
        entropy: bool = False,
    ) -> None:
        if carry and isinstance(vocabulary, BackwardVocabulary):
            raise UsageError(
                f"one stream of texts with a model that reads backward; leave out {named('carry')}"
            )
        self.backend, self.vocabulary, self.carry = backend, vocabulary, carry
        self.boundaries, self.end = boundaries, boundaries.has_ends
        self.unk_penalty, self.word_rule = unk_penalty, word_rule or WordRule()
        self.entropy = entropy
        self._by_line = boundaries.text_document == "line" and not carry
        line_end = lines and not self.end and not vocabulary.unknown("\n")
        self._suffix = "\n" if line_end else ""
        self._state: State | None = None
        self._last = EOS

    def score(
        self,
        texts: Sequence[str],
        *,
        by: str = "text",
        contexts: Sequence[str] | None = None,
    ) -> Scores:
        """Score texts in their order, by "text", or with a score for each "word" or "token" too.

        `contexts` has a text that precedes each text and is read but not scored; "" is none. Only
        its part after the last document end is read. If neither it nor the text has a blank where
        they meet, a space is put there. That space, or a last one of the context, is scored with
        the text. Raises UsageError for another part, for words of a model that has none (see
        `WordReader`), and for contexts with `carry` or a model that reads backward.
        """
        check_choice(named("by"), by, PARTS)
        items = [
            self._item(text, context)
            for text, context in zip(texts, contexts or [""] * len(texts), strict=True)
        ]
        if self.carry:
            return self._scores(items, [self._carried(item.ids, by) for item in items], by)
        return self._independent(items, by)

    def _independent(self, items: Sequence["_Item"], by: str) -> Scores:
        """Return the scores of encoded texts, each read from the state after its own context."""
        shared = self._shared_context(items)
        documents: list[list[Ids]] = []
        firsts, states = list[int](), list[State | None]()
        for item in items:
            own = self._documents([] if shared else item.context, self._read_ids(item.ids, by))
            documents.append(own)
            firsts += [int(item.context[-1]) if shared else EOS] + [EOS] * (len(own) - 1)
            states += [shared] + [None] * (len(own) - 1)
        read = self._read(by)
        pairs = read_documents(
            self.backend, list(chain(*documents)), read, MAX_ROWS, firsts, states
        )
        results, figures = iter(pairs), list[Figures]()
        for item, own in zip(items, documents, strict=True):
            nats, others = map(np.concatenate, zip(*(next(results) for _ in own), strict=True))
            skip = 0 if shared else len(item.context)
            figures.append((nats[skip : skip + len(item.ids)], others[skip:]))
        return self._scores(items, figures, by)

    def ids(self, text: str) -> Ids:
        """Return the ids that are scored for a text without context, with EOS if it is scored."""
        return self._item(text, "").ids

    def score_read(self, text: str, nats: Nats, ranks: Ids) -> Score:
        """Return the score of a text by token, given the figures of its `ids`."""
        return self._scores([self._item(text, "")], [(nats, ranks)], "token")[0]

    def score_distinct(self, texts: Iterable[str]) -> dict[str, Score]:
        """Return the score of each text; texts of the same tokens are scored once.

        Figures of the same tokens in two batches may differ in their last digit.
        """
        keys: dict[str, bytes] = {}
        scores: dict[bytes, Score] = {}
        distinct = dict.fromkeys(texts)
        remaining = iter(distinct)
        while group := list(islice(remaining, TEXTS_ENCODED)):
            items: dict[bytes, _Item] = {}
            for text in group:
                item = self._item(text, "")
                keys[text] = key = item.ids.tobytes()
                if key not in scores:
                    items[key] = item
            pairs = sorted(items.items(), key=lambda pair: len(pair[1].ids))
            for start in range(0, len(pairs), TEXTS_AT_ONCE):
                part = pairs[start : start + TEXTS_AT_ONCE]
                own = self._independent([item for _, item in part], "text")
                scores |= zip((key for key, _ in part), own, strict=True)
                left = len(pairs) - start - len(part)
                reach((len(keys) - left) / len(distinct))
        return {text: scores[key] for text, key in keys.items()}

    def _shared_context(self, items: Sequence["_Item"]) -> State | None:
        """Return the state after the context of all texts, or None if they have several or none."""
        contexts = {item.context.tobytes() for item in items}
        if len(contexts) != 1 or not len(items[0].context):
            return None
        return stream_nats(self.backend, items[0].context)[1]

    @cached_property
    def _words(self) -> WordReader:
        return WordReader(self.vocabulary, self.word_rule, ends=self.end)

    def _read(self, by: str) -> Read:
        """Return the function that reads tokens, with the figures that the parts need.

        With `entropy`, parts of a text have a second figure, the entropy.
        """
        read = self._read_alone(by)
        return with_entropy(self.backend, read) if self.entropy and by != "text" else read

    def _read_alone(self, by: str) -> Read:
        """Return the function that reads tokens, with one figure of each beside its nats."""
        if by == "token":
            return self.backend.ranks
        entries = self._words.entries if by == "word" else None
        if entries is None:
            return partial(nats_alone, self.backend)
        return lambda inputs, targets, state: self.backend.masses(inputs, targets, entries, state)

    def _read_ids(self, ids: Ids, by: str) -> Ids:
        """Return the ids to read; one more after a text without EOS, if its last word needs it."""
        after = by == "word" and not self.end and self._words.entries is not None
        return np.append(ids, EOS) if after else ids

    def _documents(self, context: Sequence[int] | Ids, ids: Ids) -> list[Ids]:
        """Cut ids, and those of the context before them, after each EOS where the state resets."""
        ids = np.concatenate([np.asarray(context, np.int64), ids])
        if not self.boundaries.resets:
            return [ids]
        cuts = np.flatnonzero(ids == EOS) + 1
        return np.split(ids, cuts[cuts < len(ids)])

    def _body(self, text: str) -> str:
        """Return the text whose tokens are scored, without EOS."""
        return text + self._suffix if self.carry else self.boundaries.scored_text(text)

    def _marked(self, body: str) -> str:
        """Return a body with an END at each line end that ends a document."""
        return self.boundaries.mark(body) if self._by_line else body

    def _item(self, text: str, context: str) -> "_Item":
        """Encode a text with its context."""
        body = self._body(text)
        check_text(body)
        before, blank = self._before(context, body) if context else ("", "")
        marked = self._marked(before + blank + body)
        ids = self.vocabulary.encode_marked(marked)[0].astype(np.int64)
        skip = 0
        if before:
            _, stops = token_spans(self.vocabulary, marked, ids)
            skip = int(np.searchsorted(stops, len(before), "right"))
        own = np.append(ids[skip:], EOS) if self.end else ids[skip:]
        counts, _ = count_text(blank + body + "\n" if self.end else blank + body)
        ends = np.array([len(own)], np.int64)
        encoded = EncodedText(ids=own, ends=ends, counts=counts, is_stream=not self.end)
        begin = len(before + blank)
        return _Item(text=text, marked=marked, begin=begin, context=ids[:skip], encoded=encoded)

    def _before(self, context: str, body: str) -> tuple[str, str]:
        """Return the part of a context that is read, and the blank that joins it to a body."""
        if self.carry or isinstance(self.vocabulary, BackwardVocabulary):
            other = named("carry") if self.carry else "a model that reads backward"
            raise UsageError(
                f"{named('context')} with {other}; expected independent texts that are read "
                f"forward. Leave out {named('context')}"
            )
        opened = self.boundaries.open_document(context)
        if opened.endswith(" "):
            return opened[:-1], " "
        has_blank = not opened or opened[-1].isspace() or not body or body[0].isspace()
        return opened, "" if has_blank or self.vocabulary.unknown(" ") else " "

    def _carried(self, ids: Ids, by: str) -> "Figures":
        nats, after = stream_nats(self.backend, ids, self._state, self._last)
        figures: NDArray[Any] = np.empty(0)
        if by != "text":
            read_ids = self._read_ids(ids, by)
            figures = read_tokens(self.backend, read_ids, self._read(by), self._state, self._last)
        if len(ids):
            self._state, self._last = after, int(ids[-1])
        return nats, figures

    def _scores(self, items: Sequence["_Item"], figures: Sequence["Figures"], by: str) -> Scores:
        """Return the scores of texts, given the nats and the other figure of their tokens."""
        words: list[tuple[WordScore, ...]] = [()] * len(items)
        if by == "word":
            pairs = zip(items, figures, strict=True)
            tokens = [self._token_nats(item, *own) for item, own in pairs]
            words = self._words.words([item.text for item in items], tokens)
        scores = Scores(
            Score(
                text=item.text,
                tally=tally(item.encoded, nats),
                tokens=self._tokens(item, nats, others) if by == "token" else (),
                words=own,
                word_rule=self.word_rule if by == "word" else None,
                unk_penalty=self.unk_penalty,
            )
            for item, (nats, others), own in zip(items, figures, words, strict=True)
        )
        scores.vocab_size = len(self.vocabulary)
        scores.backward = isinstance(self.vocabulary, BackwardVocabulary)
        return scores

    def _token_nats(self, item: "_Item", nats: Nats, log_masses: NDArray[Any]) -> TokenNats:
        """Return the tokens of a text with the characters of it that they cover."""
        log_masses, entropies = _divided(log_masses)
        text, ids = item.text, item.ids
        skip = len(item.context)
        all_ids = np.concatenate([item.context, ids[:-1] if self.end else ids])
        starts, ends = token_spans(self.vocabulary, item.marked, all_ids)
        starts, ends = starts[skip:] - item.begin, ends[skip:] - item.begin
        if "\r\n" in text and self._by_line and not self.boundaries.crlf:
            starts, ends = _with_cr(text, starts, ends)
        if self.end:
            starts, ends = np.append(starts, len(text)), np.append(ends, len(text))
        return TokenNats(
            ids=ids,
            nats=nats,
            starts=starts,
            ends=ends,
            log_masses=log_masses,
            before=item.marked[: item.begin].removesuffix(" ")[-1:] if skip else "",
            entropies=entropies,
        )

    def _tokens(self, item: "_Item", nats: Nats, ranks: NDArray[Any]) -> tuple[TokenScore, ...]:
        ranks, entropies = _divided(ranks)
        names = self.vocabulary.pieces(item.marked.replace(END, "\n"))[len(item.context) :]
        unknown = item.ids == self.vocabulary.unk
        own_end = self._by_line and item.text.endswith("\n")  # named like those inside
        return tuple(
            TokenScore(
                token=name,
                id=int(item.ids[at]),
                nats=float(nats[at]),
                rank=int(ranks[at]),
                oov=bool(unknown[at]),
                entropy=None if entropies is None else float(entropies[at]),
            )
            for at, name in enumerate(names + ["\n" if own_end else "<eos>"] * self.end)
        )


Figures = tuple[Nats, NDArray[Any]]
"""Nats of the tokens of a text, and another figure of each, (tokens,); with entropy (tokens, 2)."""


def _divided(figures: NDArray[Any]) -> tuple[NDArray[Any], Nats | None]:
    """Return the figures of tokens without their entropies, and the entropies or None."""
    return (figures, None) if figures.ndim == 1 else (figures[:, 0], figures[:, 1])


@dataclass(frozen=True, kw_only=True)
class _Item:
    """A text to score: its ids and those of its context.

    `marked` is what is encoded: the context, the blank that joins them, the text, with ENDs.
    `begin` counts the characters in it that precede the text.
    """

    text: str
    marked: str
    begin: int
    context: Ids
    encoded: EncodedText

    @property
    def ids(self) -> Ids:
        """Ids that are scored."""
        return np.asarray(self.encoded.ids)


def _with_cr(text: str, starts: Places, ends: Places) -> tuple[Places, Places]:
    """Return spans in a text for spans in the same text with LF in place of CR LF."""
    kept = [at for at in range(len(text)) if text[at : at + 2] != "\r\n"]
    places = np.array([*kept, len(text)], np.int64)
    return np.where(starts < 0, starts, places[starts]), places[ends - 1] + 1


def read_tokens(
    backend: Backend,
    ids: NDArray[Any],
    read: Read,
    state: State | None = None,
    first_input: int = EOS,
    step: int = 256,
) -> NDArray[Any]:
    """Return the figure, or several, that `read` gives for each token of a text beside its nats."""
    targets = np.asarray(ids, np.int64)[:, None]
    inputs = np.concatenate([[[first_input]], targets[:-1]])
    state = backend.initial_state(1) if state is None else state
    figures = np.zeros(len(targets))
    for start in range(0, len(targets), step):
        span = slice(start, start + step)
        _, values, state = read(inputs[span], targets[span], state)
        if start == 0:
            figures = np.zeros((len(targets), *values.shape[2:]))
        figures[span] = values[:, 0]
    return figures
