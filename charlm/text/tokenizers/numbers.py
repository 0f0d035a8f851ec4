"""The vocabulary of numbers: it has no entries, since a series is read as it is."""

from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from charlm.commands import command
from charlm.config.corpus import VocabularySettings
from charlm.errors import UsageError, named
from charlm.text.tokenizers import tokenizer_json
from charlm.text.tokenizers.tokenizer_json import Json
from charlm.text.tokenizers.vocabulary import Ids, Vocabulary


class NumberVocabulary(Vocabulary):
    """A vocabulary of UNK and EOS alone; EOS stands for the step from a number to the next."""

    @staticmethod
    def pre_tokenizer(settings: VocabularySettings) -> Json:  # noqa: ARG004
        """See `Vocabulary.pre_tokenizer`."""
        return tokenizer_json.split(r"\S+", "Isolated")

    @staticmethod
    def can_hold(tokens: list[str], merges: list[tuple[str, str]]) -> bool:
        """See `Vocabulary.can_hold`."""
        return not tokens and not merges

    def encode_marked(self, text: str) -> tuple[Ids, NDArray[np.int64]]:
        """Raise UsageError: no text can be encoded."""
        raise _no_text()

    def pieces(self, text: str) -> list[str]:
        """Raise UsageError: no text can be cut."""
        raise _no_text()

    def unknown_pieces(self, text: str) -> list[str]:
        """Return no pieces: nothing is looked up."""
        return []


def build_numbers(*_: Any, **__: Any) -> NoReturn:
    """Raise UsageError: a text has no vocabulary of numbers."""
    raise _no_text()


def _no_text() -> UsageError:
    return UsageError(
        f"{named('unit')} number has no vocabulary, so it reads no text; expected a unit of text, "
        "such as word. Use numbers with: " + command("train", "FILE", "--unit", "number")
    )
