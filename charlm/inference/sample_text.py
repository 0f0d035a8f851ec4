"""The text of a sample: its tokens decoded one by one, up to a stop text."""

from collections.abc import Sequence
from operator import itemgetter

from charlm.text.direction import BackwardVocabulary
from charlm.text.tokenizers.tokenizer_json import EOS, UNKNOWN_TEXT
from charlm.text.tokenizers.vocabulary import Vocabulary

DECODED = 8
"""Tokens of a prompt, the last ones, that can change the text after it: a character has 4 bytes."""


class SampleText:
    """Text of one sample; holds back characters that may be the beginning of a stop text.

    `ids` are the tokens before it. `certain` is the number of characters returned so far, and
    `stopped_by` the stop text that ended the sample, or None.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        ids: Sequence[int],
        stops: Sequence[str],
        separator: str,
        unk_text: str = UNKNOWN_TEXT,
    ) -> None:
        self.separator, self.blank_line = separator, separator.removeprefix("\n")
        self.decoder = vocabulary.decoder(unk_text)  # it gives one line end for EOS
        self.backward = isinstance(vocabulary, BackwardVocabulary)
        self.after = ""  # documents after the one that is generated, if the model reads backward
        if not self.backward:
            for index in ids[-DECODED:]:
                self.decoder.feed(index)
        self.stops, self.held = tuple(stop for stop in stops if stop), ""
        self.certain = 0
        self.stopped_by: str | None = None

    @property
    def length(self) -> int:
        """Number of characters so far, with those held back."""
        return self.certain + len(self.held)

    def add(self, index: int, until_eos: bool) -> tuple[str, bool]:
        """Add a token; return the text that is certain now, and True if the sample continues."""
        if index == EOS and until_eos:
            return self.finish(), False
        if index == EOS and self.backward and self.blank_line:
            self.after, self.certain = self.separator + self.finish(), 0
            return "", True
        self.held += self.decoder.feed(index) + (self.blank_line if index == EOS else "")
        if not self.stops:
            return self._release(len(self.held)), True
        place = self._stop_place()
        if place is not None:
            return self._release(place), False
        return self._release(len(self.held) - self._partial()), True

    def finish(self) -> str:
        """Return the rest of the text when the sample ends."""
        self.held += self.decoder.finish() + self.after
        place = self._stop_place()
        return self._release(len(self.held) if place is None else place)

    def _stop_place(self) -> int | None:
        """Return the place of the first stop text in the held text, or None."""
        places = [(self.held.find(stop), stop) for stop in self.stops if stop in self.held]
        if not places:
            return None
        place, self.stopped_by = min(places, key=itemgetter(0))
        return place

    def _release(self, count: int) -> str:
        text, self.held = self.held[:count], self.held[count:]
        self.certain += count
        return text

    def _partial(self) -> int:
        """Return the length of the longest end of the held text that could become a stop text."""
        longest = min(max(map(len, self.stops)) - 1, len(self.held))
        return next(
            (
                count
                for count in range(longest, 0, -1)
                if any(stop.startswith(self.held[-count:]) for stop in self.stops)
            ),
            0,
        )
