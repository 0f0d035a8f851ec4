"""Settings of the task, and of texts with labels."""

from dataclasses import dataclass
from typing import ClassVar

from charlm.config.fields import MAX_COUNT, check, field_problems, setting
from charlm.config.tasks import LANGUAGE_MODEL, POOLINGS, TASKS
from charlm.config.training import WITH_PARENT


@dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """Task of a run; all settings but the first are about texts with labels."""

    panel: ClassVar[str] = "Task"

    task: str = setting(LANGUAGE_MODEL, "Task to learn", choices=TASKS)
    target: str | None = setting(
        None, "Column of the labels: its name, or its number in a table without header",
        default_note="by name",
    )  # fmt: skip
    pooling: str = setting(
        "concat", "Hidden vectors that the label is read from", flag=None, choices=POOLINGS
    )
    both_ways: bool = setting(True, "Read texts from both ends", flag=None)
    freeze: bool = setting(
        False, "Train only the output layer, on the run that --from names", needs=(WITH_PARENT,)
    )
    balance: bool = setting(False, "Weigh labels by the inverse of their frequency", flag=None)
    max_tokens: int = setting(
        1000, "Length to which texts are cut", flag=None, at_least=1, limit=MAX_COUNT, unit="tokens"
    )
    kept_part: str = setting(
        "ends", "Part of a long text that is kept", flag=None, choices=("ends", "start", "end")
    )

    def __post_init__(self) -> None:
        check(field_problems(self))
