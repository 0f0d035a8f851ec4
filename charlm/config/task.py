"""Settings of the task, and of texts with labels."""

from dataclasses import dataclass
from typing import ClassVar

from charlm.config.fields import MAX_COUNT, check, field_problems, setting
from charlm.config.tasks import LANGUAGE_MODEL, POOLINGS, TASKS
from charlm.config.training import WITH_PARENT

HEADS = ("auto", "softmax", "crf")
"""Output layers of a tagger: each tag by itself, or a linear-chain conditional random field."""


@dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """Task of a run; all settings but the first are about what lies beside its texts."""

    panel: ClassVar[str] = "Task"

    task: str = setting(LANGUAGE_MODEL, "Task to learn", choices=TASKS)
    target: str | None = setting(
        None, "Column of the labels, tags or translations; with --task translate also their file",
        default_note="by name",
    )  # fmt: skip
    condition: str | None = setting(None, "Column of a table whose value each text begins with")
    pooling: str = setting(
        "concat", "Hidden vectors that the label is read from", flag=None, choices=POOLINGS
    )
    both_ways: bool = setting(True, "Read texts from both ends", flag=None)
    freeze: bool = setting(
        False, "Train only the output layer, on the run that --from names", needs=(WITH_PARENT,)
    )
    bag_of_words: bool = setting(
        True, "Mix a bag of words into the answers, if it helps on the validation text", flag=None
    )
    balance: bool = setting(False, "Weigh labels by the inverse of their frequency", flag=None)
    max_tokens: int = setting(
        1000, "Length to which texts are cut", flag=None, at_least=1, limit=MAX_COUNT, unit="tokens"
    )
    kept_part: str = setting(
        "ends", "Part of a long text that is kept", flag=None, choices=("ends", "start", "end")
    )
    head: str = setting("auto", "Output layer of a tagger", flag=None, choices=HEADS)
    characters: bool | None = setting(
        None, "Read the letters of words too", flag=None, default_note="by rule"
    )

    def __post_init__(self) -> None:
        empty = (
            ["condition is empty; expected the name of a column"] if self.condition == "" else []
        )
        check([*field_problems(self), *empty])
