"""Scores of many sentences, such as lines of a file or stream, or rows of a table, in batches."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charlm.config.corpus import ReadSettings
from charlm.errors import UsageError, named
from charlm.inference.scores import Score, Scores
from charlm.inference.scoring import Scorer
from charlm.runs.columns import run_columns
from charlm.text.sources.files import STDIN_LABEL
from charlm.text.sources.rows import Record, Warn

if TYPE_CHECKING:
    from charlm.text.corpus import Corpus

BATCH = 256
"""Number of sentences that are scored at once."""
Batches = Iterator[list[Record]]


def score_texts(
    scorer: Scorer, texts: str | Sequence[str], by: str, context: str | Sequence[str]
) -> Scores:
    """Score one text or several. Raises UsageError for texts or contexts of other types."""
    if not isinstance(texts, Iterable):
        raise UsageError(f"texts is {texts!r:.80}; expected a str or several")
    items = [texts] if isinstance(texts, str) else list(texts)
    contexts = [context] * len(items) if isinstance(context, str) else list(context)
    for name, values in (("texts", items), ("context", contexts)):
        for number, item in enumerate(values):
            if not isinstance(item, str):
                raise UsageError(f"{name}[{number}] is {item!r:.80}; expected a str")
    if len(contexts) != len(items):
        raise UsageError(
            f"context has {len(contexts)} texts for {len(items)} texts; expected one for each"
        )
    return scorer.score(items, by=by, contexts=contexts)


def score_rows(
    scorer: Scorer,
    batches: Iterable[list[Record]],
    *,
    by: str = "text",
    contexts: Callable[[list[Record]], list[str]] | None = None,
) -> Iterator[list[tuple[Record, Score | None]]]:
    """Yield the rows of each batch with their scores; a row without text has no score.

    `by` is as in `Scorer.score`; `contexts` returns the context of each row. Long batches are
    divided.
    """
    for batch in batches:
        for start in range(0, len(batch), BATCH):
            rows = batch[start : start + BATCH]
            filled = [row for row in rows if row.text is not None]
            texts = [row.text or "" for row in filled]
            before = contexts(filled) if contexts else None
            scores = iter(scorer.score(texts, by=by, contexts=before))
            yield [(row, None if row.text is None else next(scores)) for row in rows]


def row_contexts(rows: Sequence[Record], column: str | None, context: str) -> list[str]:
    """Return the cell of a column of each row, or `context` for all of them if it is None.

    Raises UsageError if no row has the column.
    """
    if column is None:
        return [context] * len(rows)
    if rows and not any(column in row.cells for row in rows):
        present = ", ".join(dict.fromkeys(name for row in rows for name in row.cells))
        raise UsageError(
            f"{named('context_column')} is {column!r}; expected another column than the scored "
            f"one: {present or 'the text has none'}. Correct {named('context_column')}"
        )
    return [row.cells.get(column, "") for row in rows]


def file_sentences(
    path: Path, reading: Mapping[str, Any], warn: Warn, run: Path | None = None
) -> Batches:
    """Return the lines of a file or the rows of a table; the first batch is read at once.

    `reading` has fields of `ReadSettings`. A table is read by the columns of `run`, if it has them.
    Raises CorpusError.
    """
    from charlm.text.corpus import Corpus

    columns = run_columns(run) if run else None
    rules = ReadSettings(**reading)
    corpus = Corpus([str(path)], document="line", reading=rules, columns=columns)
    records = corpus.records()
    return _with_warnings(corpus, list(islice(records, BATCH)), records, warn)


def _with_warnings(
    corpus: "Corpus", batch: list[Record], records: Iterator[Record], warn: Warn
) -> Batches:
    """Yield the first batch and the others, and pass on warnings as they arise."""
    reported = 0
    while True:
        for text in corpus.warnings[reported:]:
            warn(text)
        reported = len(corpus.warnings)
        if not batch:
            return
        yield batch
        batch = list(islice(records, BATCH))


def stream_sentences(blocks: Iterable[bytes], reading: Mapping[str, Any], warn: Warn) -> Batches:
    """Yield the lines of standard input as they arrive. Raises CorpusError.

    Warns if the first lines look like a table, and if lines end with a carriage return, which is
    left out.
    """
    rules = ReadSettings(**reading)
    lines = _lines(blocks, rules, warn)
    if rules.input_format == "auto":
        lines = _advised(lines, warn)
    batches = numbered(lines)
    return batches if rules.keep_cr else _without_cr(batches, warn)


def _lines(blocks: Iterable[bytes], rules: ReadSettings, warn: Warn) -> Iterator[list[str]]:
    from charlm.text.sources.decoding import codec_name, decode

    encoding, rest = codec_name(rules.encoding), ""
    for piece in decode(
        iter(blocks), STDIN_LABEL, warn, encoding=encoding, errors=rules.errors, sniff_bytes=1
    ):
        *lines, rest = (rest + piece).split("\n")
        if lines:
            yield lines
    if rest:
        yield [rest]


def _advised(batches: Iterator[list[str]], warn: Warn) -> Iterator[list[str]]:
    from charlm.text.sources.kinds import advice_for

    for number, batch in enumerate(batches):
        if number == 0 and (advice := advice_for("\n".join([*batch, ""]))):
            warn(f"{STDIN_LABEL} {advice}")
        yield batch


def numbered(batches: Iterable[list[str]]) -> Batches:
    """Yield texts as records, numbered from 1."""
    number = 0
    for batch in batches:
        yield [Record(number + at, number + at, text) for at, text in enumerate(batch, start=1)]
        number += len(batch)


def _without_cr(batches: Batches, warn: Warn) -> Batches:
    reported = False
    for batch in batches:
        if not reported and any(row.text and row.text.endswith("\r") for row in batch):
            reported = True
            warn("lines end with a carriage return; it was left out. Keep it with --keep-cr")
        yield [row._replace(text=row.text and row.text.removesuffix("\r")) for row in batch]
