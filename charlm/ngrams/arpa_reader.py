"""Reading of ARPA files; the format is described in `charlm.ngrams.arpa`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn

import numpy as np
from numpy.typing import NDArray

from charlm.errors import CorpusError
from charlm.files.escapes import escape_unprintable
from charlm.ngrams.arpa import EOS_NAME, START_NAME, UNK_NAME
from charlm.ngrams.model import LN10, MAX_ORDER, Ids, NgramModel
from charlm.text.sources.compressed import DAMAGED, PACKED

BLOCK_BYTES = 1 << 16
"""Bytes that are split at a time; more are slower, since their lists leave the cache."""
MISSING = -99.0
"""log10 of the probability of UNK or EOS in a file without it."""
MAX_LOG = 1000.0
"""Largest logarithm that is accepted."""


@dataclass(frozen=True, kw_only=True)
class Arpa:
    """A model from a file, the names of its entries (UNK and EOS first), and warnings."""

    model: NgramModel
    names: list[str]
    warnings: list[str]


@dataclass
class _Table:
    """The n-grams of one order in any order: tokens (N, n), and logarithms (N,)."""

    tokens: Ids
    log_p: NDArray[np.float64]
    log_backoff: NDArray[np.float64]

    def chosen(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> "_Table":
        """Return some of the n-grams."""
        return _Table(self.tokens[rows], self.log_p[rows], self.log_backoff[rows])


def read_arpa(path: Path, names: Sequence[str] | None = None) -> Arpa:
    """Read a model from an ARPA file, which may be packed (.gz, .bz2, .xz, .zst).

    `names` are those of `entry_names` of a vocabulary, which the file must have; without them the
    entries are numbered as in the file. N-grams may lack their beginning, as in pruned files.
    Raises CorpusError, with the line, for a file that is damaged or not an ARPA file.
    """
    with _Lines(path) as lines:
        sizes = _sizes(lines)
        lines.expect("\\1-grams:")
        words, table = _unigrams(lines, sizes[0], len(sizes) == 1)
        warnings: list[str] = []
        numbers = _numbers(lines, words, names, warnings)
        start = len(numbers)
        ids = {name.encode(): number for name, number in numbers.items()}
        ids |= {word: ids[UNK_NAME.encode()] for word in words if word == b"<UNK>"}
        ids[START_NAME.encode()] = start
        full = _Table(
            np.arange(start + 1)[:, None], np.full(start + 1, MISSING), np.zeros(start + 1)
        )
        places = [ids[word] for word in words]
        full.log_p[places], full.log_backoff[places] = table.log_p, table.log_backoff
        full.log_p[start] = 0.0
        tables = [full]
        for order, size in enumerate(sizes[1:], 2):
            lines.expect(f"\\{order}-grams:")
            tables.append(_ngrams(lines, order, size, ids, order == len(sizes)))
        lines.expect("\\end\\")
    return Arpa(model=_built(tables, path), names=list(numbers), warnings=warnings)


def _plain(path: Path) -> IO[bytes]:
    return path.open("rb")


class _Lines:
    """The lines of a file, with their numbers."""

    def __init__(self, path: Path) -> None:
        self.path, self.number = path, 0  # number of the line that was read last
        self._ahead: list[bytes] = []
        try:
            self._file = PACKED.get(path.suffix, _plain)(path)
        except OSError as error:
            reason = error.strerror or error
            raise CorpusError(f"{path} cannot be read ({reason}); expected an ARPA file") from error

    def __enter__(self) -> "_Lines":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def refuse(self, problem: str, number: int | None = None) -> NoReturn:
        """Raise CorpusError that names the file and the line."""
        shown = escape_unprintable(str(self.path))
        raise CorpusError(f"{shown}, line {number or self.number:,}: {problem}")

    def block(self) -> list[bytes]:
        """Return the next lines, which are put back by `push`; none at the end of the file."""
        lines, self._ahead = self._ahead, []
        if not lines:
            try:
                lines = self._file.readlines(BLOCK_BYTES)
            except DAMAGED as error:
                self.refuse(f"the file is damaged ({error}); expected a whole one. Get it again")
        self.number += len(lines)
        return lines

    def push(self, lines: list[bytes]) -> None:
        """Put lines back that were read last."""
        self._ahead = lines
        self.number -= len(lines)

    def next(self) -> str:
        """Return the next line that is not blank, without blanks around it; "" at the end."""
        while lines := self.block():
            for index, line in enumerate(lines):
                if line.strip():
                    self.push(lines[index + 1 :])
                    return line.strip().decode("utf-8", "replace")
        return ""

    def expect(self, header: str) -> None:
        """Read a header. Raises CorpusError for another line or the end of the file."""
        found = self.next()
        if found != header:
            what = f"{found[:60]!r}" if found else "the end of the file"
            self.refuse(f"found {what}; expected {header}. The file is cut or not an ARPA file")

    def entries(self) -> Iterator[tuple[int, list[bytes]]]:
        """Yield lines up to the next header in blocks, with the number of the first line."""
        while lines := self.block():
            end = next((i for i, line in enumerate(lines) if line.lstrip()[:1] == b"\\"), None)
            first = self.number - len(lines) + 1
            if end is not None:
                self.push(lines[end:])
                yield first, lines[:end]
                return
            yield first, lines


def _sizes(lines: _Lines) -> list[int]:
    """Read the number of n-grams of each order."""
    found = lines.next()
    while found and found != "\\data\\":  # tools may put comments before it
        found = lines.next()
    if not found:
        lines.refuse("no \\data\\ up to here; expected an ARPA file")
    sizes: list[int] = []
    for first, block in lines.entries():
        for number, line in enumerate(block, first):
            text = line.decode("utf-8", "replace").strip()
            if not text:
                continue
            name, _, size = text.replace(" ", "").partition("=")
            if name != f"ngram{len(sizes) + 1}" or not (size.isascii() and size.isdigit()):
                lines.refuse(f"found {text[:60]!r}; expected ngram {len(sizes) + 1}=N", number)
            sizes.append(int(size))
    if not 1 <= len(sizes) <= MAX_ORDER:
        lines.refuse(f"{len(sizes)} orders; expected 1 to {MAX_ORDER}")
    return sizes


def _rows(
    lines: _Lines, order: int, size: int, last: bool
) -> Iterator[tuple[list[tuple[bytes, ...]], NDArray[np.float64], NDArray[np.float64], list[int]]]:
    """Yield columns of words, log-probabilities, back-offs and line numbers, block by block."""
    count = 0
    for first, block in lines.entries():
        rows, numbers = [line.split() for line in block], list(range(first, first + len(block)))
        widths = set(map(len, rows))
        if 0 in widths:
            pairs = [(row, number) for row, number in zip(rows, numbers, strict=True) if row]
            rows, numbers = [row for row, _ in pairs], [number for _, number in pairs]
        allowed = {order + 1} if last else {order + 1, order + 2}
        if not widths <= allowed | {0}:
            at = next(i for i, row in enumerate(rows) if len(row) not in allowed)
            lines.refuse(
                f"{len(rows[at])} fields; expected log10 P, {order} tokens"
                + ("" if last else " and a back-off"),
                numbers[at],
            )
        if not rows:
            continue
        if order + 1 in widths and not last:
            rows = [row if len(row) == order + 2 else [*row, b"0"] for row in rows]
        columns = list(zip(*rows, strict=True))
        log_p = _floats(lines, columns[0], numbers, highest=0.0)
        backoff = np.zeros(len(rows)) if last else _floats(lines, columns[-1], numbers)
        count += len(rows)
        yield columns[1 : order + 1], log_p, backoff, numbers
    if count != size:
        lines.number += 1
        lines.refuse(
            f"{count:,} {order}-grams before this line; expected {size:,} by \\data\\. The file is "
            "cut or was changed"
        )


def _floats(
    lines: _Lines, fields: Sequence[bytes], numbers: list[int], highest: float = MAX_LOG
) -> NDArray[np.float64]:
    """Return numbers up to `highest`. Raises CorpusError for others and for NaN."""
    try:
        values = np.array(list(map(float, fields)))
        if b"_" not in b"".join(fields) and bool(
            ((values <= highest) & (values >= -MAX_LOG)).all()
        ):
            return values
    except ValueError:
        pass
    for field, number in zip(fields, numbers, strict=True):
        text = field.decode("utf-8", "replace")[:40]
        try:
            fits = b"_" not in field and -MAX_LOG <= float(field) <= highest
        except ValueError:
            fits = False
        if not fits:
            limit = "a log10 of at most 0" if highest == 0.0 else "a log10"
            lines.refuse(f"found {text!r}; expected {limit}", number)
    raise AssertionError("a number that does not fit was not found again")


def _unigrams(lines: _Lines, size: int, last: bool) -> tuple[list[bytes], _Table]:
    words: list[bytes] = []
    log_p, log_backoff = [np.empty(0)], [np.empty(0)]
    seen: set[bytes] = set()
    for (column,), p, backoff, numbers in _rows(lines, 1, size, last):
        for word, number in zip(column, numbers, strict=True):
            if word in seen:
                lines.refuse(f"{_shown(word)} again; expected each token once", number)
            seen.add(word)
            try:
                word.decode("utf-8")
            except UnicodeDecodeError:
                lines.refuse(f"{_shown(word)} is not UTF-8; convert the file", number)
        words += column
        log_p.append(p)
        log_backoff.append(backoff)
    tokens = np.zeros((len(words), 1), np.int64)
    return words, _Table(tokens, np.concatenate(log_p), np.concatenate(log_backoff))


def _numbers(
    lines: _Lines, words: list[bytes], names: Sequence[str] | None, warnings: list[str]
) -> dict[str, int]:
    """Return the id of each entry by its name, without the start symbol."""
    found = dict.fromkeys(word.decode("utf-8") for word in words)
    found.pop(START_NAME, None)
    if UNK_NAME not in found and "<UNK>" in found:
        del found["<UNK>"]
        found[UNK_NAME] = None
    for name in (UNK_NAME, EOS_NAME):
        if name not in found:
            warnings.append(f"{lines.path} has no {name}; its log10 P is {MISSING:g}")
    own = [UNK_NAME, EOS_NAME, *(name for name in found if name not in (UNK_NAME, EOS_NAME))]
    if names is None:
        return {name: number for number, name in enumerate(own)}
    differing = sorted(set(own) ^ set(names))
    if differing:
        where = "the file" if differing[0] in own else "the vocabulary"
        raise CorpusError(
            f"{lines.path}: {differing[0]!r} is only in {where}, one of {len(differing):,} such "
            "entries; expected the entries of the vocabulary. Import it without --like"
        )
    return {name: number for number, name in enumerate(names)}


def _ngrams(lines: _Lines, order: int, size: int, ids: Mapping[bytes, int], last: bool) -> _Table:
    parts = [_Table(np.empty((0, order), np.int64), np.empty(0), np.empty(0))]
    for columns, log_p, backoff, numbers in _rows(lines, order, size, last):
        tokens = np.empty((len(log_p), order), np.int64)
        for place, column in enumerate(columns):
            try:
                tokens[:, place] = list(map(ids.__getitem__, column))
            except KeyError:
                at = next(i for i, word in enumerate(column) if word not in ids)
                lines.refuse(
                    f"{_shown(column[at])} is not among the 1-grams; expected tokens of theirs",
                    numbers[at],
                )
        parts.append(_Table(tokens, log_p, backoff))
    whole = _Table(
        np.concatenate([part.tokens for part in parts]),
        np.concatenate([part.log_p for part in parts]),
        np.concatenate([part.log_backoff for part in parts]),
    )
    start = max(ids.values())
    return whole.chosen((whole.tokens[:, 1:] != start).all(axis=1))  # never predicted


def _shown(word: bytes) -> str:
    return repr(word.decode("utf-8", "backslashreplace")[:40])


def _built(tables: list[_Table], path: Path) -> NgramModel:
    """Return the model of the n-grams of all orders; beginnings that are missing are added."""
    start = len(tables[0].log_p) - 1
    keys: list[Ids] = []
    while len(keys) < len(tables) - 1:
        order = len(keys) + 2
        table = tables[order - 1]
        contexts = _nodes(keys, table.tokens[:, :-1], start)
        if bool((contexts < 0).any()):
            added = np.unique(table.tokens[contexts < 0, :-1], axis=0)
            tables[order - 2] = _with_unknown(tables[order - 2], added)
            keys.pop()
            continue
        unsorted = contexts * (start + 1) + table.tokens[:, -1]
        by_key = np.argsort(unsorted)
        keys.append(unsorted[by_key])
        tables[order - 1] = table.chosen(by_key)
        if bool((keys[-1][1:] == keys[-1][:-1]).any()):
            raise CorpusError(
                f"{path}: one of the {order}-grams is there twice; expected each once"
            )
    for order in range(2, len(tables)):
        _back_off(tables, keys, order, start)
    return _model(tables, keys, len(tables), start)


def _model(tables: list[_Table], keys: list[Ids], order: int, start: int) -> NgramModel:
    """Return the model of the orders up to one of them."""
    return NgramModel(
        vocab_size=start,
        keys=keys[: order - 1],
        log_p=[table.log_p.astype(np.float32) for table in tables[:order]],
        log_backoff=[table.log_backoff.astype(np.float32) for table in tables[: order - 1]],
    )


def _nodes(keys: list[Ids], tokens: Ids, start: int) -> Ids:
    """Return the node of each row of tokens (N, n), or -1."""
    partial = NgramModel(vocab_size=start, keys=keys, log_p=[], log_backoff=[])
    nodes = tokens[:, 0]
    for place in range(1, tokens.shape[1]):
        nodes = partial.find(place + 1, nodes, tokens[:, place])
    return nodes


def _with_unknown(table: _Table, tokens: Ids) -> _Table:
    """Return a table with further n-grams, whose probability is nan."""
    return _Table(
        np.concatenate([table.tokens, tokens]),
        np.concatenate([table.log_p, np.full(len(tokens), np.nan)]),
        np.concatenate([table.log_backoff, np.zeros(len(tokens))]),
    )


def _back_off(tables: list[_Table], keys: list[Ids], order: int, start: int) -> None:
    """Give the n-grams of an order that were added the probabilities of shorter n-grams."""
    table = tables[order - 1]
    rows = np.flatnonzero(np.isnan(table.log_p))
    if not len(rows):
        return
    tokens = table.tokens[rows]
    lower = _model(tables, keys, order - 1, start)
    contexts = lower.contexts(tokens[:, 1:-1].T)[:, -1] if order > 2 else np.empty((0, len(rows)))
    log_p = lower.look_up(contexts.astype(np.int64), tokens[:, -1])[0] / LN10
    nodes = _nodes(keys, tokens[:, :-1], start)
    table.log_p[rows] = log_p + tables[order - 2].log_backoff[nodes]
