"""Surprisal of the rows of a table whose rows are the words or regions of texts."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from charlm.api.scoring import BATCH
from charlm.errors import UsageError, named
from charlm.inference.regions import region_scores
from charlm.inference.scores import Score
from charlm.inference.scoring import Scorer
from charlm.inference.words import WordScore
from charlm.listing import Listing
from charlm.report.formats import output_names
from charlm.text.regions import join_rows
from charlm.text.sources.rows import Record
from charlm.units import Tally

ScoredRows = list[tuple[Record, Score | None]]
OWN_COLUMNS = ("sentence_id", "word_id", "surprisal", "entropy", "gap", "tokens", "oov", "start",
               "end", "word_rule")  # fmt: skip
"""Columns that are added to those of a table; one of the table with such a name is renamed."""


class Region(NamedTuple):
    """One row of a table, as a region of its text.

    `cells` are those of the table. `sentence_id` numbers the texts, `word_id` the regions of each,
    both from 1. `score` is the surprisal of the region as one word; it and `word_id` are None for a
    row without words.
    """

    cells: Mapping[str, Any]
    sentence_id: int
    word_id: int | None
    score: WordScore | None

    def __repr__(self) -> str:
        return f"Region({self.score!r}, text {self.sentence_id})"


class Regions(Listing[Region]):
    """Rows of a table in their order, each with its surprisal as a region of its text."""

    word_rule: str = ""

    def rows(self) -> list[dict[str, Any]]:
        """Return the cells of each row with its figures, in nats; None without words.

        A column of the table that has the name of a figure becomes `input_NAME`.
        """
        columns = dict.fromkeys(name for region in self for name in region.cells)
        names = output_names(columns, OWN_COLUMNS)
        has_entropy = any(each.score and each.score.entropy is not None for each in self)
        return [
            {names[name]: cell for name, cell in region.cells.items()}
            | self._figures(region, has_entropy)
            for region in self
        ]

    def _figures(self, region: Region, has_entropy: bool) -> dict[str, Any]:
        score = region.score
        return {
            "sentence_id": region.sentence_id,
            "word_id": region.word_id,
            "surprisal": score and score.nats,
            **({"entropy": score and score.entropy} if has_entropy else {}),
            "gap": score and score.gap,
            "tokens": score and score.tokens,
            "oov": score and score.oov,
            "start": score and score.start,
            "end": score and score.end,
            "word_rule": self.word_rule,
        }


def table_regions(
    scorer: Scorer,
    table: Any,
    column: str,
    group_by: str | Sequence[str],
    *,
    order: str | None = None,
    context: str = "",
) -> Regions:
    """Return the rows of a table with their scores; see `score_regions`.

    `table` is a pandas.DataFrame, or dictionaries with the cells of each row. None, NaN and "" are
    no text. Raises UsageError for a column that is missing, or that has other cells than text.
    """
    cells = _dictionaries(table)
    records = [_record(number, row, column) for number, row in enumerate(cells, start=1)]
    columns = [group_by] if isinstance(group_by, str) else list(group_by)
    if not columns:
        raise UsageError(f"{named('group_by')} names no column; expected some, such as item")
    scored = score_regions(scorer, records, columns, order=order, context=context)
    regions = Regions(
        Region(row, record.number, score.first_word, score.words[0])
        if score
        else Region(row, record.number, None, None)
        for row, (record, score) in zip(cells, scored, strict=True)
    )
    regions.word_rule = str(scorer.word_rule)
    return regions


def _dictionaries(table: Any) -> list[Mapping[str, Any]]:
    """Return the rows of a DataFrame or of a list as dictionaries. Raises UsageError for others."""
    frame = getattr(table, "to_dict", None)
    rows = frame("records") if callable(frame) and hasattr(table, "columns") else table
    if isinstance(rows, str | Mapping) or not isinstance(rows, Iterable):
        raise UsageError(f"table is {table!r:.80}; expected a DataFrame or a list of dictionaries")
    listed = list(rows)
    for number, row in enumerate(listed, start=1):
        if not isinstance(row, Mapping):
            raise UsageError(f"row {number} is {row!r:.80}; expected a dictionary of its cells")
    return listed


def _record(number: int, row: Mapping[str, Any], column: str) -> Record:
    """Return a row as the readers of files do. Raises UsageError for a cell that is no text."""
    if column not in row:
        present = ", ".join(map(str, row))
        raise UsageError(
            f"row {number} has no column {column!r}; expected the column of the words, one of "
            f"{present or 'some columns'}. Correct {named('column')}"
        )
    present_cells = {name: None if _is_missing(cell) else cell for name, cell in row.items()}
    text = present_cells.pop(column)
    if text is not None and not isinstance(text, str):
        raise UsageError(f"row {number} has {text!r:.60} in {column!r}; expected a str")
    cells = {name: "" if cell is None else str(cell) for name, cell in present_cells.items()}
    return Record(number, None, text or None, cells)


def _is_missing(cell: object) -> bool:
    """Return whether a cell is None, NaN, or NA or NaT of pandas, as there are for empty cells."""
    if cell is None or type(cell).__name__ == "NAType":  # NA != NA is no bool
        return True
    differs = cell != cell  # of an array, an array
    return isinstance(differs, bool | np.bool_) and bool(differs)


def score_regions(
    scorer: Scorer,
    rows: Sequence[Record],
    columns: Sequence[str],
    *,
    order: str | None = None,
    context: str = "",
    seen: list[Score] | None = None,
) -> ScoredRows:
    """Return the rows in their order, each with its score as a region of its text.

    Rows with equal cells in `columns` are a text (see `join_rows`). The number of a row becomes
    that of its text, from 1; the only word of its score is the region, whose place in the text is
    `first_word`. A row without words has no score. `context` is read before each text. Equal texts
    are scored once; `seen` gets the score of each.
    """
    texts = join_rows(rows, columns, order)
    scores = _distinct(scorer, [each.text for each in texts], context)
    if seen is not None:
        seen += scores.values()
    results: ScoredRows = [(row, None) for row in rows]
    for number, each in enumerate(texts, start=1):
        score = scores.get(each.text)
        for place in each.rows:
            results[place] = (rows[place]._replace(number=number), None)
        words = score.words if score else ()
        regions = region_scores(each.text, words, each.starts, follows=bool(context))
        for at, (place, region) in enumerate(zip(each.places, regions, strict=False), start=1):
            if region and score:
                results[place] = (results[place][0], _region(region, at, score))
    return results


def _distinct(scorer: Scorer, texts: Sequence[str], context: str) -> dict[str, Score]:
    """Return the score of each text that is not empty, by its words."""
    distinct = [text for text in dict.fromkeys(texts) if text]
    scores: dict[str, Score] = {}
    for start in range(0, len(distinct), BATCH):
        batch = distinct[start : start + BATCH]
        scored = scorer.score(batch, by="word", contexts=[context] * len(batch))
        scores.update(zip(batch, scored, strict=True))
    return scores


def _region(region: WordScore, place: int, score: Score) -> Score:
    return Score(
        text=region.word,
        tally=Tally(nats=region.nats + region.gap, tokens=region.tokens, oov=int(region.oov)),
        words=(region,),
        first_word=place,
        word_rule=score.word_rule,
        unk_penalty=score.unk_penalty,
    )
