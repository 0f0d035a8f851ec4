"""Choice of methods that adapt a model to a text (see `adaptation`)."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Methods:
    """Methods that adapt a model to a text while it is read; their settings are fitted.

    All but `others` and `ngram` need a model that was loaded with engine "torch".
    """

    cache: int | None = None
    """Size of a neural cache, in tokens."""
    dynamic: bool = False
    """Gradient steps on the text that was just read."""
    temperature: bool = False
    """Logits without the run's calibration, and calibrated again."""
    average: bool = False
    """The mean of the weights of the kept checkpoints."""
    others: tuple[str, ...] = ()
    """Runs whose probabilities are mixed with those of the model, as `RUN` or `RUN=WEIGHT`."""
    ngram: int | None = None
    """Order of n-grams of the training text, whose probabilities are mixed in too."""
    checkpoints: Path | None = None
    """Folder in which `others` are looked up."""

    @property
    def in_torch(self) -> str:
        """Name of the first method that only torch computes; empty without any."""
        names = ("cache", "dynamic", "temperature", "average")
        return next((name for name in names if getattr(self, name)), "")

    def __bool__(self) -> bool:
        return bool(self.in_torch or self.others or self.ngram)
