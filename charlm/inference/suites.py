"""Test suites of SyntaxGym: which predictions about the surprisals of regions are true."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from charlm.inference.scores import Score
from charlm.inference.scoring import Scorer
from charlm.text.syntaxgym import Region, SuiteItem
from charlm.units import bits


@dataclass(frozen=True, kw_only=True)
class PredictionScore:
    """A prediction about an item of a suite; `surprisals` are bits by condition and region.

    `equal_oov` is true if the sentences of all conditions have equally many unknown tokens.
    """

    item: SuiteItem
    name: str
    formula: str
    surprisals: dict[str, dict[int, float]]
    is_correct: bool
    equal_oov: bool
    is_tie: bool = False

    @property
    def paradigm(self) -> str:
        """The suite, and the prediction if it has several."""
        return f"{self.item.suite}, {self.name}" if self.name else self.item.suite

    @property
    def phenomenon(self) -> str:
        """The suite, if it has several predictions."""
        return self.item.suite if self.name else ""

    def row(self) -> dict[str, Any]:
        """Return the figures by column; `surprisals` is JSON, `correct` is 0 or 1."""
        return {
            "paradigm": self.paradigm,
            "phenomenon": self.phenomenon,
            "item": self.item.number,
            "formula": self.formula,
            "surprisals": json.dumps(self.surprisals, ensure_ascii=False),
            "correct": int(self.is_correct),
        }


def score_items(scorer: Scorer, items: Sequence[SuiteItem]) -> list[PredictionScore]:
    """Return whether each prediction is true of each item.

    The sentence of a condition is its regions with blanks between them. The surprisal of a region
    is the sum over the words that begin in it (see `inference.words` for the surprisal of a word).
    """
    if not items:
        return []
    texts = [_sentence(regions) for item in items for regions in item.conditions.values()]
    scores = iter(scorer.score(texts, by="word"))
    results = []
    for item in items:
        own = {name: next(scores) for name in item.conditions}
        surprisals = {name: _bits(regions, own[name]) for name, regions in item.conditions.items()}
        equal_oov = len({score.tally.oov for score in own.values()}) <= 1
        for prediction in item.predictions:
            results.append(
                PredictionScore(
                    item=item,
                    name=prediction.name,
                    formula=prediction.text,
                    surprisals=surprisals,
                    is_correct=bool(prediction.holds(surprisals)),
                    equal_oov=equal_oov,
                )
            )
    return results


def _sentence(regions: Sequence[Region]) -> str:
    return " ".join(text for _, text in regions if text)


def _bits(regions: Sequence[Region], score: Score) -> dict[int, float]:
    """Return the bits of each region, rounded to a millionth."""
    sums, end = dict.fromkeys((number for number, _ in regions), 0.0), 0
    words = iter([*score.words, None])
    word = next(words)
    for number, text in regions:
        end += len(text) + bool(text)
        while word is not None and word.start < end:
            sums[number] += bits(word.nats)
            word = next(words)
    return {number: round(value, 6) for number, value in sums.items()}
