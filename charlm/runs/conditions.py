"""Conditions of a run: the values of a column with which its texts begin, as in config.json."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from charlm.commands import command, quote, run_word
from charlm.errors import UsageError, named, near_name
from charlm.runs.layout import CONDITIONS
from charlm.text.encoded import EncodedText, count_text
from charlm.text.labels import UNSEEN, read_targets
from charlm.text.tokenizers.tokenizer_json import UNK
from charlm.text.tokenizers.vocabulary import Vocabulary

MAX_LISTED = 10
"""Conditions that a message names."""


def conditions_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the conditions of a run, in the order of their rows; () if it has none."""
    return tuple(config.get(CONDITIONS, {}).get("labels", ()))


def usual_condition(config: Mapping[str, Any]) -> str | None:
    """Return the most frequent condition of the training texts, or None."""
    if not (names := conditions_of(config)):
        return None
    return names[int(np.argmax(config[CONDITIONS]["documents"]))]


def condition_number(path: Path, config: Mapping[str, Any], condition: str | None) -> int | None:
    """Return the row of a condition, or None without one. Raises UsageError if it is not known."""
    names = conditions_of(config)
    if condition is None or condition in names:
        return None if condition is None else names.index(condition)
    if not names:
        raise UsageError(
            f"{named('condition')} {condition} with run {path.name}, whose texts have no "
            f"conditions; expected a run trained with {named('condition')}. Leave it out"
        )
    from charlm.text.labelled import listed

    near = near_name(condition, names)
    hint = f"did you mean {near!r}?" if near else f"expected one of {listed(names, MAX_LISTED)}"
    raise UsageError(f"run {path.name} has no condition {condition!r:.80}; {hint}")


def check_condition(path: Path, config: Mapping[str, Any], condition: str | None) -> None:
    """Raise UsageError if a run needs a condition and none is given, or for an unknown one."""
    condition_number(path, config, condition)
    if condition is None and (names := conditions_of(config)) and not config[CONDITIONS]["without"]:
        from charlm.text.labelled import listed

        usual, flag = str(usual_condition(config)), named("condition")
        advice = (
            f", as in: {command('sample', '--condition', usual, run=path)} (in Python: "
            f"charlm.load({run_word(path)!r}, condition={usual!r}))"
        )
        if flag.startswith("--"):  # the command that was typed has the flag
            advice = f". Use {flag} {quote(usual)}"
        raise UsageError(
            f"run {path.name} begins each text with a condition ({listed(names, MAX_LISTED)}); "
            f"expected one{advice}"
        )


def documents_of(
    folder: Path, text: EncodedText, vocabulary: Vocabulary, names: int, number: int | None
) -> EncodedText:
    """Return the documents of a kept text that have this condition, or none if it is None.

    Their size is known if their ids spell them. They begin with EOS, in whose place a run has the
    condition. Raises CorpusError if the targets in the folder are damaged.
    """
    targets = read_targets(folder, text.documents, names, unseen=True)
    own = text.documents_at(np.flatnonzero(targets == (UNSEEN if number is None else number)))
    if vocabulary.drops_blanks or vocabulary.normalizes or np.any(own.ids == UNK):
        return own
    return replace(own, counts=count_text(vocabulary.decode(own.ids))[0])
