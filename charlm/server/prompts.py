"""Prompts: from a text or ids of a request to the ids that a model reads."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from charlm.backends.interface import Ids
from charlm.errors import CorpusError
from charlm.server.errors import Refused
from charlm.text.boundaries import Boundaries
from charlm.text.documents import check_text
from charlm.text.tokenizers.tokenizer_json import EOS, EOS_TOKEN
from charlm.text.tokenizers.vocabulary import Vocabulary


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """Prompt as a model reads it; a leading EOS is the start symbol and has no text.

    `added` is the number of EOS in front of the client's own tokens.
    """

    ids: Ids
    added: int = 0

    @property
    def tokens(self) -> int:
        """Number of the client's own tokens."""
        return len(self.ids) - self.added

    def echo(self, vocabulary: Vocabulary, boundaries: Boundaries) -> tuple[str, list[int]]:
        """Return the text of the prompt, and the characters in it before each client's token."""
        start = int(len(self.ids) > 0 and self.ids[0] == EOS)
        text, offsets = text_and_offsets(self.ids[start:], vocabulary, boundaries)
        return text, [0] * (start - self.added) + offsets


def encode(text: str, vocabulary: Vocabulary, boundaries: Boundaries, param: str = "prompt") -> Ids:
    """Return the ids of a text, with an EOS at each line end or blank line that ends a document.

    The text `<eos>`, alone, is EOS: programs ask for the start symbol so. Raises Refused for a lone
    surrogate.
    """
    if text == EOS_TOKEN:
        return np.array([EOS], np.int64)
    try:
        check_text(text, param)
    except CorpusError as error:
        raise Refused(400, str(error), param) from error
    return vocabulary.encode_marked(boundaries.mark(text))[0].astype(np.int64)


def checked_ids(tokens: Sequence[int], vocabulary: Vocabulary, param: str = "prompt") -> Ids:
    """Return ids as an array. Raises Refused for one that is not in the vocabulary."""
    most = len(vocabulary) - 1
    if tokens and (min(tokens) < 0 or max(tokens) > most):
        wrong = next(token for token in tokens if not 0 <= token <= most)
        raise Refused(
            400,
            f"{param} has the token id {str(wrong)[:20]}, which is out of the vocabulary; expected "
            f"ids from 0 to {most}. Take them from POST /tokenize",
            param,
        )
    return np.array(tokens, np.int64)


def read_prompt(
    prompt: str | Sequence[int], vocabulary: Vocabulary, boundaries: Boundaries
) -> Prompt:
    """Return a prompt as a model reads it. Raises Refused.

    A text that begins with the end of a document gets the start symbol in front, since a leading
    EOS would be the start symbol itself.
    """
    if not isinstance(prompt, str):
        return Prompt(ids=checked_ids(prompt, vocabulary))
    ids = encode(prompt, vocabulary, boundaries)
    if len(ids) and ids[0] == EOS and prompt != EOS_TOKEN:
        return Prompt(ids=np.append(EOS, ids), added=1)
    return Prompt(ids=ids)


def token_names(vocabulary: Vocabulary) -> list[str]:
    """Return a distinct name for each token: its text, or `<id 5>` if another one reads alike."""
    names: dict[str, None] = {}
    for index in range(len(vocabulary)):
        name = vocabulary.token_text(index)
        names[f"<id {index}>" if name in names else name] = None
    return list(names)


def text_and_offsets(
    ids: Ids, vocabulary: Vocabulary, boundaries: Boundaries
) -> tuple[str, list[int]]:
    """Return the text of ids, and the number of characters in it before each token."""
    decoder, pieces, offsets, length = vocabulary.decoder(), [], [], 0
    blank_line = boundaries.separator.removeprefix("\n")  # the decoder gives one line end for EOS
    for index in ids.tolist():
        offsets.append(length)
        pieces.append(decoder.feed(index) + (blank_line if index == EOS else ""))
        length += len(pieces[-1])
    return "".join(pieces) + decoder.finish(), offsets
