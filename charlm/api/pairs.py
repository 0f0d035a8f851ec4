"""Minimal pairs: read them from files, score them, count the correct ones."""

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike, fspath
from typing import Any

from charlm.api.model import Model
from charlm.config.corpus import ReadSettings
from charlm.errors import CorpusError, UsageError
from charlm.inference.pairs import PairsResult, score_questions
from charlm.phases import phase
from charlm.text import pair_files
from charlm.text.pair_files import Pair
from charlm.text.rewritings import rewriting_note
from charlm.text.sources.rows import Warn
from charlm.text.splitting import splitter
from charlm.text.syntaxgym import SuiteItem

Row = Pair | SuiteItem | Mapping[str, Any] | Sequence[str]
"""A pair: a mapping with sentence_good and sentence_bad, or the two sentences in this order."""


def read_pairs(
    sources: Sequence[str],
    *,
    reading: Mapping[str, Any] | None = None,
    columns: Sequence[str] = (),
    warn: Warn = lambda _: None,
) -> list[Pair | SuiteItem]:
    """Return the pairs of files and folders; see `charlm.text.pair_files`.

    `reading` has fields of `ReadSettings`, `columns` the names of the good and the bad sentence's
    column and optionally the phenomenon's. Raises CorpusError with the line of a bad row.
    """
    if columns and len(columns) not in (2, 3):
        raise UsageError(
            f"--columns is {','.join(columns)!r}; expected GOOD,BAD or GOOD,BAD,PHENOMENON"
        )
    return pair_files.read_pairs(sources, ReadSettings(**(reading or {})), columns, warn)


def pairs(
    model: Model,
    rows: str | PathLike[str] | Iterable[Row],
    *,
    split: str = "auto",
    unk_penalty: float | None = None,
    warn: Warn = lambda _: None,
) -> PairsResult:
    """Score minimal pairs and count those whose good sentence is more probable.

    `rows` are pairs, or the name of a file or folder with pairs. `split` is "moses" (split words as
    in WikiText), "none", or "auto", which decides by the vocabulary and passes its decision to
    `warn`. `unk_penalty` is as in `Model.score`. Raises CorpusError for data without pairs.
    """
    if isinstance(rows, str | PathLike):
        items = read_pairs([fspath(rows)], warn=warn)
    else:
        items = [_pair(row, number) for number, row in enumerate(rows)]
    if not items:
        raise CorpusError("there are no pairs; expected a good and a bad sentence in each row")
    texts = [text for item in items for text in item.texts]
    divide = splitter(split, model.vocabulary, texts, warn)
    items = [item if divide is str else item.with_texts(divide) for item in items]
    texts = [text for item in items for text in item.texts]
    if note := rewriting_note(model.vocabulary, texts):
        warn(note)
    with phase("scoring", unit="tokens"):
        result = score_questions(model.scorer(unk_penalty=unk_penalty), items)
    result.split = "none" if divide is str else "moses"
    return result


def _pair(row: Row, number: int) -> Pair | SuiteItem:
    """Return a row as a pair. Raises UsageError for a row that is none."""
    if isinstance(row, Pair | SuiteItem):
        return row
    if isinstance(row, Mapping):
        good, bad = row.get(pair_files.GOOD), row.get(pair_files.BAD)
    else:
        good, bad = row if len(row) == 2 and not isinstance(row, str) else (None, None)
    if not isinstance(good, str) or not isinstance(bad, str):
        raise UsageError(
            f"rows[{number}] is {row!r:.80}; expected (good, bad), or a mapping with "
            f"{pair_files.GOOD} and {pair_files.BAD}"
        )
    cells = {str(name): cell for name, cell in row.items()} if isinstance(row, Mapping) else {}
    return Pair(
        good=good,
        bad=bad,
        paradigm=_first(cells, pair_files.PARADIGM) or "pairs",
        phenomenon=_first(cells, pair_files.PHENOMENON),
    )


def _first(cells: Mapping[str, Any], names: Sequence[str]) -> str:
    return next((str(cells[name]) for name in names if cells.get(name)), "")
