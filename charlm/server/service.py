"""The models that a server serves, by name."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from charlm.api.model import Model
from charlm.errors import UsageError
from charlm.server.errors import Refused


@dataclass(frozen=True)
class Served:
    """A model with what a server needs beside it."""

    model: Model
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def name(self) -> str:
        """Name by which a request chooses the model."""
        return self.model.path.name


class Service:
    """Models by name; the first is the one that a request gets if it names none."""

    def __init__(self, models: Sequence[Model]) -> None:
        served = [Served(model) for model in models]
        self.models = {each.name: each for each in served}
        if len(self.models) < len(served):
            names = ", ".join(each.name for each in served)
            raise UsageError(
                f"two runs have one name ({names}); expected a name for each. Rename one"
            )
        self.default = served[0]
        self.stopping = False

    def find(self, name: str | None = None) -> Served:
        """Return the model of this name, by default the first. Raises Refused (404)."""
        if name is None:
            return self.default
        if name not in self.models:
            raise Refused(
                404,
                f"model is {name[:80]!r}; expected one of {', '.join(self.models)}. Leave it out "
                "to use the first",
                "model",
                "model_not_found",
            )
        return self.models[name]

    def counts(self) -> dict[str, int]:
        """Return the figures of GET /health."""
        return dict.fromkeys(("waiting", "rows", "requests", "refused", "tokens"), 0)

    def stop(self) -> None:
        """Refuse new work."""
        self.stopping = True
