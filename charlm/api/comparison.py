"""Comparison of runs on one text, with confidence intervals of their differences."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from charlm.api.model import Model
from charlm.config.corpus import SPLIT_NAMES, ReadSettings
from charlm.errors import UsageError
from charlm.inference.comparison import (
    Difference,
    LineNats,
    bytes_of_lines,
    difference,
    line_nats,
)
from charlm.phases import phase
from charlm.report.scores import unk_note
from charlm.runs.agreement import check_same_text
from charlm.runs.columns import common_columns
from charlm.runs.locate import run_name
from charlm.text.corpus import Corpus
from charlm.text.encoded import EncodedText
from charlm.text.tokenizers.tokenizer_json import UNK
from charlm.units import count_of

PARTS = ("test", "valid")
"""Parts that runs are compared on, the best first."""
ALSO_CHOSE = "this text also chose the best weights of each run; for a fair test use --file"
Part = TypeVar("Part")
"""A kept part of a run's text, as its task reads it."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Losses of runs on one text, and how each run differs from the first (None for the first).

    `notes` are about the text and about unknown tokens.
    """

    runs: list[LineNats]
    differences: list[Difference | None]
    notes: list[str]


def compare_runs(
    models: Sequence[Model],
    files: Sequence[str] | None = None,
    *,
    reading: Mapping[str, Any] | None = None,
    unk_penalty: float | None = None,
    seed: int = 0,
) -> Comparison:
    """Compare models on files, or on the text that all their runs held out.

    `reading` has fields of `ReadSettings`. `unk_penalty` is the cost of an unknown token in nats;
    by default each run has its own. `seed` seeds the bootstrap. Raises UsageError for fewer than
    two models, for one that reads backward, and for runs that held out different texts.
    """
    if len(models) < 2:
        raise UsageError(f"found {len(models)} run; expected two runs or more to compare")
    for model in models:
        if model.run.backward:
            raise UsageError(
                f"{run_name(model.path)} reads backward; expected runs that read forward"
            )
    notes: list[str] = []
    texts, sizes = (
        _read_files(models, files, reading, notes) if files else _held_out_texts(models, notes)
    )
    losses = []
    for model, text in zip(models, texts, strict=True):
        penalty = model.run.unk_penalty if unk_penalty is None else unk_penalty
        name = run_name(model.path)
        with phase(f"evaluating {name}", total=len(text.ids)):
            losses.append(
                line_nats(name, model.run.backend, text, model.vocabulary, unk_penalty=penalty)
            )
        if penalty and losses[-1].tally.oov:
            notes.append(f"{name}: {unk_note(model.run, unk_penalty)}")
    others = [difference(losses[0], other, sizes, seed=seed) for other in losses[1:]]
    return Comparison(runs=losses, differences=[None, *others], notes=notes)


def _read_files(
    models: Sequence[Model],
    files: Sequence[str],
    reading: Mapping[str, Any] | None,
    notes: list[str],
) -> tuple[list[EncodedText], Sequence[float]]:
    """Return files as each run reads them, and the number of bytes of each line."""
    rules = ReadSettings(**{"keep_cr": True, **(reading or {})})  # every run reads the same text
    columns = common_columns([model.path for model in models], files, reading, only_text=True)
    corpus = Corpus(files, document="stream", reading=rules, columns=columns)
    text = "".join(corpus.chunks())
    notes += corpus.warnings
    sizes = [len(line.encode("utf-8")) for line in text.split("\n")]
    sizes = [size + 1 for size in sizes[:-1]] + ([sizes[-1]] if sizes[-1] else [])
    return [
        model.run.encode(corpus.with_document(model.run.boundaries.document)) for model in models
    ], sizes


def _held_out_texts(
    models: Sequence[Model], notes: list[str]
) -> tuple[list[EncodedText], Sequence[float]]:
    """Return the text that all runs held out, and the number of bytes of each line."""
    check_same_text([model.path for model in models])
    for part in PARTS:
        texts = [text for model in models if (text := model.run.kept(part)) is not None]
        if len(texts) == len(models):
            break
    else:
        raise UsageError("these runs keep no held-out text; expected one to compare on. Use --file")
    notes.append(
        f"compared on the {SPLIT_NAMES[part]} text of these runs, {texts[0].counts.bytes:,} bytes"
    )
    if part == "valid":
        notes.append(ALSO_CHOSE)
    unknown = [int((text.ids == UNK).sum()) for text in texts]
    exact = unknown.index(min(unknown))  # its tokens say most about the bytes of a line
    return texts, bytes_of_lines(texts[exact], models[exact].vocabulary).tolist()


def common_parts(
    paths: Sequence[Path],
    kept: Sequence[Mapping[str, Part]],
    notes: list[str],
    count_texts: Callable[[Part], int],
    noun: str = "text",
) -> list[Part]:
    """Return the test part that all runs keep, or else the validation part, as each keeps it.

    `kept` has the parts of each run by name; `count_texts` returns the number of texts of a part. A
    note that names the part is added to `notes`. Raises UsageError if there is none, and for runs
    that held out different texts.
    """
    check_same_text(paths)
    name = next((name for name in PARTS if all(name in parts for parts in kept)), None)
    if name is None:
        raise UsageError(
            f"these runs keep no common {noun}s; expected some to compare on. Use --file"
        )
    parts = [own[name] for own in kept]
    number = count_of(min(map(count_texts, parts)), f"{SPLIT_NAMES[name]} {noun}")
    notes.append(f"compared on {number} of these runs")
    if name == "valid":
        notes.append(ALSO_CHOSE)
    return parts
