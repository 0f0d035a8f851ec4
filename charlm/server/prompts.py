"""Prompts: from a text or ids of a request to the ids that a model reads."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from charlm.backends.interface import Ids
from charlm.errors import CorpusError
from charlm.inspect.text_tokens import text_tokens
from charlm.runs.run import Run
from charlm.server.errors import Refused
from charlm.text.boundaries import Boundaries
from charlm.text.documents import check_text
from charlm.text.tokenizers.tokenizer_json import EOS, EOS_TOKEN
from charlm.text.tokenizers.vocabulary import Vocabulary


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """Prompt as a model reads it; a leading EOS is the start symbol and has no text.

    `source` is the text, if it is one; `added` the number of EOS before the client's tokens.
    """

    ids: Ids
    source: str | None = None
    added: int = 0

    @property
    def tokens(self) -> int:
        """Number of the client's own tokens."""
        return len(self.ids) - self.added

    def echo(self, run: Run) -> tuple[str, list[int]]:
        """Return the text of the prompt, and the characters in it before each client's token.

        A text is returned as it was sent, with what the model does not know.
        """
        if self.source is not None:
            return self.source, text_tokens(run, self.source).cuts[:-1].tolist()
        start = int(len(self.ids) > 0 and self.ids[0] == EOS)
        text, offsets = text_and_offsets(self.ids[start:], run.text_vocabulary, run.boundaries)
        return text, [0] * start + offsets


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
    if prompt == EOS_TOKEN:
        return Prompt(ids=ids)
    added = int(len(ids) > 0 and ids[0] == EOS)
    return Prompt(ids=np.append([EOS] * added, ids).astype(np.int64), source=prompt, added=added)


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
