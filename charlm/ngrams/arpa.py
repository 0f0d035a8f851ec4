r"""N-gram models as ARPA files, the format of SRILM, KenLM and others (man page ngram-format).

    \data\
    ngram 1=47

    \1-grams:
    -1.971801<tab><unk><tab>0

    \end\

Logarithms are of base 10. A line has log10 P, the tokens, and log10 of the back-off weight except
in the highest order. UNK is `<unk>`, EOS is `</s>`, and the start symbol is `<s>`. Other entries
with these names, and entries with blanks or backslashes, are escaped (see `escaped`).
"""

import re
from collections.abc import Sequence
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from charlm.ngrams.model import Ids, NgramModel, ngram_tokens

UNK_NAME, EOS_NAME, START_NAME = "<unk>", "</s>", "<s>"
NAMES = (UNK_NAME, EOS_NAME, START_NAME, "<UNK>")
"""Names with a meaning in ARPA files."""
BLOCK = 1 << 15
"""Lines that are written at a time."""
LETTERS = {" ": "s", "\t": "t", "\n": "n", "\r": "r", "\v": "v", "\f": "f", "\0": "0", "\\": "\\"}
"""Letters after a backslash for the characters that separate the entries of a line."""
AMBIGUOUS = re.compile(r"[ \t\n\r\v\f\0]|\\(?=[strnvf0\\ \t\n\r\v\f\0])")


def escaped(entry: str) -> str:
    r"""Return an entry of a vocabulary as in an ARPA file: `a b` is `a\sb`, `<s>` is `\<s>`.

    A backslash stays single where it cannot be misread, as in `1\/2` of the Penn Treebank, since
    other programs do not know escapes.
    """
    if entry.lstrip("\\") in NAMES:
        return "\\" + entry
    return AMBIGUOUS.sub(lambda match: "\\" + LETTERS[match[0]], entry)


def unescaped(name: str) -> str:
    """Return the entry of `escaped`; a name that it does not give is returned as it is."""
    if name[:1] == "\\" and name.lstrip("\\") in NAMES:
        return name[1:]
    characters = {letter: character for character, letter in LETTERS.items()}
    entry = re.sub(r"\\([strnvf0\\])", lambda match: characters[match[1]], name)
    return entry if escaped(entry) == name else name


def entry_names(tokens: Sequence[str]) -> list[str]:
    """Return the names of the entries of a vocabulary, with UNK and EOS first."""
    return [UNK_NAME, EOS_NAME, *map(escaped, tokens[2:])]


def write_arpa(file: IO[bytes], model: NgramModel, names: Sequence[str]) -> None:
    """Write a model; `names` are those of `entry_names`. Numbers have seven significant digits."""
    table = np.array([*names, START_NAME], object)
    counts = (f"ngram {order}={size}\n" for order, size in enumerate(model.sizes, 1))
    file.write(("\\data\\\n" + "".join(counts)).encode())
    for order, size in enumerate(model.sizes, 1):
        file.write(f"\n\\{order}-grams:\n".encode())
        nodes = _in_order(model, order)
        for begin in range(0, size, BLOCK):
            file.write(_lines(model, order, nodes[begin : begin + BLOCK], table))
    file.write(b"\n\\end\\\n")


def _in_order(model: NgramModel, order: int) -> Ids:
    """Return the nodes of one order sorted as by lmplz: by the last token, then the one before.

    The start symbol comes between UNK and EOS.
    """
    columns = ngram_tokens(model, order, np.arange(model.sizes[order - 1]))
    places = [np.where(tokens == model.vocab_size, 1, 2 * tokens) for tokens in columns]
    return np.lexsort([column.astype(np.uint32) for column in reversed(places)])


def _lines(model: NgramModel, order: int, nodes: Ids, table: NDArray[Any]) -> bytes:
    """Return the lines of some nodes."""
    has_backoff = order < model.order
    cells = np.empty((len(nodes), order + 1 + has_backoff), object)
    log_p = np.asarray(model.log_p[order - 1][nodes], np.float64) + 0.0  # no -0
    log_p[nodes == model.vocab_size] *= order > 1
    cells[:, 0] = log_p
    for place, tokens in enumerate(ngram_tokens(model, order, nodes)):
        cells[:, order - place] = table[tokens]
    line = "%.7g\t" + " ".join(["%s"] * order) + "\n"
    if has_backoff:
        cells[:, -1] = np.asarray(model.log_backoff[order - 1][nodes], np.float64) + 0.0
        line = line[:-1] + "\t%.7g\n"
    text: str = (line * len(nodes)) % tuple(cells.ravel().tolist())
    return text.encode("utf-8")
