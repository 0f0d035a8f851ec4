"""Scores of many sentences, such as the lines of a file or the rows of a table, batch by batch."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from charlm.config.corpus import ReadSettings
from charlm.inference.scoring import Score, Scorer
from charlm.text.corpus import Corpus
from charlm.text.sources.rows import Record

BATCH = 256
"""Number of sentences that are scored at once."""


class Sentences:
    """Lines of a file or rows of a table, read in batches; the first batch is read at once.

    `warnings` grows while the file is read. Raises CorpusError.
    """

    def __init__(self, path: Path, reading: Mapping[str, Any]) -> None:
        corpus = Corpus([str(path)], document="line", reading=ReadSettings(**reading))
        self.warnings, self._records = corpus.warnings, corpus.records()
        self._first = list(islice(self._records, BATCH))

    def __iter__(self) -> Iterator[list[Record]]:
        batch = self._first
        while batch:
            yield batch
            batch = list(islice(self._records, BATCH))


def score_rows(
    scorer: Scorer, batches: Iterable[list[Record]], *, tokens: bool = False
) -> Iterator[list[tuple[Record, Score | None]]]:
    """Yield the rows of each batch with their scores; a row without text has no score.

    `tokens` asks for the score of each token too. Long batches are divided.
    """
    for batch in batches:
        for start in range(0, len(batch), BATCH):
            rows = batch[start : start + BATCH]
            texts = [row.text for row in rows if row.text is not None]
            scores = iter(scorer.score(texts, tokens=tokens))
            yield [(row, None if row.text is None else next(scores)) for row in rows]
