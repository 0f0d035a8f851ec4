"""Reading backward: the tokens from the last to the first, with EOS still after each document."""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from charlm.text.encoded import EncodedText
from charlm.text.tokenizers.decoders import Decoder
from charlm.text.tokenizers.tokenizer_json import UNKNOWN_TEXT
from charlm.text.tokenizers.vocabulary import Ids, Vocabulary

if TYPE_CHECKING:
    from charlm.text.dataset import Dataset


def mirrored(text: EncodedText) -> EncodedText:
    """Return a text in reverse: `a b EOS c EOS` becomes `c EOS b a EOS`."""
    ids = np.asarray(text.ids)[::-1]
    if len(ids) and not text.is_stream:
        ids = np.roll(ids, -1)  # the EOS of the last document moves to the end again
    ends = np.cumsum(np.diff(text.ends, prepend=0)[::-1], dtype=np.int64)
    return replace(text, ids=np.ascontiguousarray(ids), ends=ends)


def mirrored_dataset(dataset: "Dataset") -> "Dataset":
    """Return a dataset with each of its texts in reverse."""
    return dataset.with_texts(lambda _, text: mirrored(text))


class BackwardVocabulary(Vocabulary):
    """A vocabulary for a model that reads backward, with text in its usual order.

    `encode` returns the last token first. A decoder returns all of its text at the end.
    """

    def __init__(self, inner: Vocabulary) -> None:
        super().__init__(inner.settings, inner.tokens, inner.merges)
        self.inner = inner

    def encode_marked(self, text: str) -> tuple[Ids, NDArray[np.int64]]:
        """See `Vocabulary.encode_marked`; an END comes before its document."""
        ids, marks = self.inner.encode_marked(text)
        return np.ascontiguousarray(ids[::-1]), len(ids) + 1 - marks[::-1]

    def pieces(self, text: str) -> list[str]:
        """See `Vocabulary.pieces`; the last piece comes first."""
        return self.inner.pieces(text)[::-1]

    def decoder(self, unk_text: str = UNKNOWN_TEXT) -> Decoder:
        """See `Vocabulary.decoder`."""
        return _BackwardDecoder(self.inner, unk_text)


class _BackwardDecoder(Decoder):
    """A decoder that keeps its ids and decodes them in reverse at the end."""

    def __init__(self, inner: Vocabulary, unk_text: str) -> None:
        self.inner, self.unk_text = inner, unk_text
        self.ids: list[int] = []

    def feed(self, index: int) -> str:
        """See `Decoder.feed`."""
        self.ids.append(index)
        return ""

    def finish(self) -> str:
        """See `Decoder.finish`."""
        ids, self.ids = self.ids[::-1], []
        return self.inner.decode(ids, self.unk_text)
