"""Reading of ARPA files; the format is described in `charlm.ngrams.arpa`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn

import numpy as np
from numpy.typing import NDArray

from charlm.config.training import MAX_ORDER
from charlm.errors import CorpusError
from charlm.files.escapes import escape_unprintable
from charlm.ngrams.arpa import EOS_NAME, START_NAME, UNK_NAME
from charlm.ngrams.model import LN10, Ids, NgramModel
from charlm.text.sources.compressed import DAMAGED, PACKED
from charlm.units import count_of

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
    """The n-grams of one order in any order: tokens (N, n), logarithms (N,), line numbers (N,)."""

    tokens: Ids
    log_p: NDArray[np.float64]
    log_backoff: NDArray[np.float64]
    lines: Ids

    def chosen(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> "_Table":
        """Return some of the n-grams."""
        return _Table(self.tokens[rows], self.log_p[rows], self.log_backoff[rows], self.lines[rows])


def _joined(tables: Sequence[_Table]) -> _Table:
    return _Table(
        np.concatenate([table.tokens for table in tables]),
        np.concatenate([table.log_p for table in tables]),
        np.concatenate([table.log_backoff for table in tables]),
        np.concatenate([table.lines for table in tables]),
    )


def read_arpa(path: Path, names: Sequence[str] | None = None) -> Arpa:
    """Read a model from an ARPA file, which may be packed (.gz, .bz2, .xz, .zst).

    `names` are those of `entry_names` of a vocabulary, which the file must have; without them the
    entries are numbered as in the file. N-grams may lack their beginning, as in pruned files.
    Raises CorpusError, with the line, for a file that is damaged or not an ARPA file.
    """
    with _Lines(path) as lines:
        sizes = _sizes(lines)
        lines.expect("\\1-grams:")
        words, log_p, log_backoff = _unigrams(lines, sizes[0], len(sizes) == 1)
        warnings: list[str] = []
        numbers = _numbers(lines, words, names, warnings)
        start = len(numbers)
        ids = {name.encode(): number for name, number in numbers.items()}
        ids.setdefault(b"<UNK>", ids[UNK_NAME.encode()])
        ids[START_NAME.encode()] = start
        full = _unknown(np.arange(start + 1)[:, None], MISSING)
        places = [ids[word] for word in words]
        full.log_p[places], full.log_backoff[places] = log_p, log_backoff
        full.log_p[start] = 0.0
        tables = [full]
        for order, size in enumerate(sizes[1:], 2):
            lines.expect(f"\\{order}-grams:")
            table = _ngrams(lines, order, size, ids, order == len(sizes))
            usable = (table.tokens[:, 1:] != start).all(axis=1)
            if not usable.all():
                left_out = count_of(int(np.count_nonzero(~usable)), f"{order}-gram")
                warnings.append(
                    f"{lines.name}: left out {left_out} with {START_NAME} after another token, "
                    "which is never predicted"
                )
            tables.append(table.chosen(usable))
        lines.expect("\\end\\")
    return Arpa(model=_built(tables, lines), names=list(numbers), warnings=warnings)


def _plain(path: Path) -> IO[bytes]:
    return path.open("rb")


class _Lines:
    """The lines of a file, with their numbers."""

    def __init__(self, path: Path) -> None:
        self.name, self.number = escape_unprintable(str(path)), 0  # number of the last line read
        self._ahead: list[bytes] = []
        try:
            self._file = PACKED.get(path.suffix, _plain)(path)
        except OSError as error:
            reason = error.strerror or error
            raise CorpusError(
                f"{self.name} cannot be read ({reason}); expected an ARPA file"
            ) from error

    def __enter__(self) -> "_Lines":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def refuse(self, problem: str, number: int | None = None) -> NoReturn:
        """Raise CorpusError that names the file and the line."""
        raise CorpusError(f"{self.name}, line {number or self.number:,}: {problem}")

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
    found = lines.next().removeprefix("\ufeff")
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
            if sizes == [0]:
                lines.refuse("found no 1-grams; expected one for each token", number)
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


def _unigrams(
    lines: _Lines, size: int, last: bool
) -> tuple[list[bytes], NDArray[np.float64], NDArray[np.float64]]:
    """Return the tokens of the file, their log-probabilities and their back-offs."""
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
    return words, np.concatenate(log_p), np.concatenate(log_backoff)


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
            warnings.append(f"{lines.name} has no {name}; its log10 P is {MISSING:g}")
    own = [UNK_NAME, EOS_NAME, *(name for name in found if name not in (UNK_NAME, EOS_NAME))]
    if names is None:
        return {name: number for number, name in enumerate(own)}
    differing = sorted(set(own) ^ set(names))
    if differing:
        where = "the file" if differing[0] in own else "the vocabulary"
        raise CorpusError(
            f"{lines.name}: {differing[0]!r} is only in {where}, one of {len(differing):,} such "
            "entries; expected the entries of the vocabulary. Import it without --like"
        )
    return {name: number for number, name in enumerate(names)}


def _ngrams(lines: _Lines, order: int, size: int, ids: Mapping[bytes, int], last: bool) -> _Table:
    """Return the n-grams of one order."""
    parts = [_unknown(np.empty((0, order), np.int64))]
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
        parts.append(_Table(tokens, log_p, backoff, np.array(numbers)))
    return _joined(parts)


def _shown(word: bytes) -> str:
    return repr(word.decode("utf-8", "backslashreplace")[:40])


def _built(tables: list[_Table], lines: _Lines) -> NgramModel:
    """Return the model of the n-grams of all orders; beginnings that are missing are added."""
    start = len(tables[0].log_p) - 1
    keys: list[Ids] = []
    while len(keys) < len(tables) - 1:
        order = len(keys) + 2
        table = tables[order - 1]
        contexts = _nodes(keys, table.tokens[:, :-1], start)
        if bool((contexts < 0).any()):
            added = np.unique(table.tokens[contexts < 0, :-1], axis=0)
            tables[order - 2] = _joined([tables[order - 2], _unknown(added)])
            keys.pop()
            continue
        unsorted = contexts * (start + 1) + table.tokens[:, -1]
        by_key = np.argsort(unsorted, stable=True)
        keys.append(unsorted[by_key])
        tables[order - 1] = table.chosen(by_key)
        again = np.flatnonzero(keys[-1][1:] == keys[-1][:-1])
        if len(again):
            first, second = (int(tables[order - 1].lines[again[0] + place]) for place in (0, 1))
            lines.refuse(f"the {order}-gram of line {first:,} again; expected each once", second)
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


def _unknown(tokens: Ids, log_p: float = np.nan) -> _Table:
    """Return n-grams that have no line."""
    size = len(tokens)
    return _Table(tokens, np.full(size, log_p), np.zeros(size), np.zeros(size, np.int64))


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
