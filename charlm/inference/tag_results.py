"""Results of evaluations and comparisons of runs that give tags."""

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from charlm.inference.tag_counts import TagCounts
from charlm.units import finite


class WrongSentence(NamedTuple):
    """The words of a sentence, their gold and predicted tags, and the nats of the gold tags.

    A gold tag that the run does not know is "?".
    """

    words: tuple[str, ...]
    gold: tuple[str, ...]
    predicted: tuple[str, ...]
    nats: float


@dataclass(frozen=True, kw_only=True)
class TagEvaluation:
    """Figures of texts by their name, with the floor (None if unknown) and the worst sentences.

    The floor is the most frequent tag of each word: its span-F1, or its accuracy if tags are no
    spans. `notes` are about the texts.
    """

    labels: tuple[str, ...]
    counts: dict[str, TagCounts]
    floors: dict[str, float | None]
    worst: dict[str, list[WrongSentence]]
    notes: list[str]


@dataclass(frozen=True)
class TagDifference:
    """Difference of a figure (f1 or accuracy) of two runs; positive if the second is better.

    `low` and `high` bound 95 % of the bootstrap samples over sentences; `p` is their `sign_p`.
    """

    figure: str
    value: float
    low: float
    high: float
    p: float

    @property
    def verdict(self) -> str:
        """`better`, `worse` or `no difference shown`, by p."""
        if not self.p < 0.05:  # NaN too
            return "no difference shown"
        return "better" if self.value > 0.0 else "worse"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        figures = {k: v if isinstance(v, str) else finite(v) for k, v in asdict(self).items()}
        return {**figures, "verdict": self.verdict}
