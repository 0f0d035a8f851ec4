"""Surprisal of the rows of a table whose rows are the words or regions of texts."""

from collections.abc import Sequence

from charlm.api.scoring import BATCH
from charlm.inference.regions import region_scores
from charlm.inference.scores import Score
from charlm.inference.scoring import Scorer
from charlm.inference.words import WordScore
from charlm.text.regions import join_rows
from charlm.text.sources.rows import Record
from charlm.units import Tally

ScoredRows = list[tuple[Record, Score | None]]


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
