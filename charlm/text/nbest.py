"""N-best lists: the hypotheses of a recogniser for each utterance, with their features."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from charlm.errors import UsageError
from charlm.listing import Listing
from charlm.units import count_of

LM, WORDS = "charlm", "words"
"""Names of the features that charlm adds: log-probability, and number of words."""


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """One hypothesis with its features, of which greater ones are better.

    `words` is its number of words, `line` its place in the file, `content` what a writer copies.
    """

    text: str
    features: Mapping[str, float]
    words: int
    line: int = 0
    content: Any = None

    def values(self, names: Iterable[str]) -> list[float]:
        """Return the features of these names; `words` is one of them."""
        return [float(self.words) if name == WORDS else self.features[name] for name in names]


@dataclass(frozen=True, kw_only=True)
class Utterance:
    """Hypotheses for one utterance; the first one is the best of the recogniser."""

    name: str
    hypotheses: tuple[Hypothesis, ...]
    content: Any = None


class NBestLists(Listing[Utterance]):
    """Utterances in the order of their file, all with the same features.

    `format_name` is the format of the file, `log_base` the base of the feature `charlm`, and
    `columns` are those of a table.
    """

    def __init__(
        self,
        utterances: Iterable[Utterance],
        format_name: str,
        log_base: str = "e",
        columns: Iterable[str] = (),
    ) -> None:
        super().__init__(utterances)
        self.format_name, self.log_base, self.columns = format_name, log_base, tuple(columns)

    def __repr__(self) -> str:
        utterances, features = count_of(len(self), "utterance"), ", ".join(self.features)
        return (
            f"NBestLists({self.format_name}, {utterances}, {self.size:,} hypotheses, "
            f"features {features})"
        )

    @property
    def size(self) -> int:
        """Number of hypotheses."""
        return sum(len(utterance.hypotheses) for utterance in self)

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features: those of the file, `charlm` once it was added, and `words`."""
        return (*(self[0].hypotheses[0].features if self else ()), WORDS)

    def rising(self) -> list[str]:
        """Return the features of the file that never fall from a hypothesis to the next.

        A recogniser's first hypothesis is its best, so they may be costs or ranks. Features that
        could rise so by chance more often than once in 100 times are left out.
        """
        names = [name for name in self.features if name not in (LM, WORDS)]
        return [name for name in names if self._rises(name)]

    def _rises(self, name: str) -> bool:
        orders = 0.0  # ln of the number of orders of the distinct values
        for utterance in self:
            values = [each.features[name] for each in utterance.hypotheses]
            if values != sorted(values):
                return False
            orders += math.lgamma(len(set(values)) + 1)
        return orders > math.log(100)

    def best(self, weights: Mapping[str, float]) -> list[Hypothesis]:
        """Return the hypothesis with the greatest weighted sum of features for each utterance.

        The first of equal ones is chosen; a feature without a weight does not count. Raises
        UsageError for the weight of a feature that the lists do not have.
        """
        if unknown := [name for name in weights if name not in self.features]:
            raise UsageError(
                f"weight of {unknown[0]!r}; expected features of these lists: "
                f"{', '.join(self.features)}. Leave it out"
            )
        names = [name for name in self.features if name in weights]

        def score(utterance: Utterance, place: int) -> float:
            """Return the score of a hypothesis, less the score of the first one."""
            own, first = (utterance.hypotheses[at].values(names) for at in (place, 0))
            total = 0.0
            for name, value, base in zip(names, own, first, strict=True):
                total += weights[name] * (value - base)
            return total

        return [
            each.hypotheses[max(range(len(each.hypotheses)), key=partial(score, each))]
            for each in self
        ]

    def with_utterances(self, utterances: Iterable[Utterance]) -> "NBestLists":
        """Return lists of the same format with other utterances."""
        return NBestLists(utterances, self.format_name, self.log_base, self.columns)

    def rows(self) -> list[dict[str, Any]]:
        """Return the utterance, rank, text and features of each hypothesis."""
        return [
            {"utterance": utterance.name, "rank": rank, "text": each.text}
            | {**each.features, WORDS: each.words}
            for utterance in self
            for rank, each in enumerate(utterance.hypotheses, start=1)
        ]
