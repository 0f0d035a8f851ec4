"""Checks that several runs, or a run and a text, agree: on the labels, and on one text."""

from collections.abc import Sequence
from pathlib import Path

from charlm.errors import CorpusError, UsageError, named
from charlm.runs.layout import RECORD, home, read_record
from charlm.runs.locate import run_name
from charlm.text.labels import few_names
from charlm.units import count_of


def check_same_labels(
    paths: Sequence[Path], labels: Sequence[Sequence[str]], noun: str = "labels"
) -> None:
    """Raise UsageError unless all runs have the same labels, in any order."""
    first, known = run_name(paths[0]), set(labels[0])
    for path, names in zip(paths[1:], labels[1:], strict=True):
        if set(names) == known:
            continue
        own = {
            first: [name for name in labels[0] if name not in names],
            run_name(path): [name for name in names if name not in known],
        }
        differing = "; ".join(f"only {run}: {few_names(few)}" for run, few in own.items() if few)
        raise UsageError(
            f"{first} and {run_name(path)} have different {noun} ({differing}); expected runs of "
            f"the same {noun}"
        )


def unknown_names(
    path: Path, known: Sequence[str], names: Sequence[str], where: str, noun: str, unit: str
) -> list[str]:
    """Return a sentence about names of labels, each that of one `unit`, which a run does not know.

    `where` names their files. Raises CorpusError if the run knows none of them.
    """
    own = set(known)
    unknown = [name for name in names if name not in own]
    few = few_names(list(dict.fromkeys(unknown)))
    if len(unknown) == len(names):
        raise CorpusError(
            f"{where}: none of its {noun}s ({few}) is one of run {path.name} ({few_names(known)}). "
            f"Name the column of the {noun}s with {named('target')}"
        )
    if not unknown:
        return []
    units = count_of(len(unknown), unit)
    note = f"{units} with {noun}s that the run does not know ({few}) count as errors"
    if 2 * len(unknown) > len(names):
        note += f"; if another column holds the {noun}s, name it with {named('target')}"
    return [note]


def check_same_text(paths: Sequence[Path]) -> None:
    """Raise UsageError unless all runs have one text, of which they held out the same parts."""
    for path in paths:
        if not (home(path) / RECORD).exists():
            raise UsageError(
                f"{path} has no {RECORD}, which says what text a run held out; expected one text "
                "for all runs. Use --file"
            )
    first, *others = [read_record(home(path))["corpus"]["fingerprint"] for path in paths]
    for path, other in zip(paths[1:], others, strict=True):
        if other != first:
            raise UsageError(
                f"{run_name(paths[0])} and {run_name(path)} were trained on different texts, or "
                "held out different parts of them; expected one text for all runs. Use --file"
            )
