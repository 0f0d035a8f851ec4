"""Series: the numbers of one column as a dataset, whose tokens are the steps to the next number.

values     v0 v1 v2 v3        a step is EOS in the encoded text; the numbers lie in values.bin
steps         1  2  3         beside it, and those before the first step come first
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charlm.config.corpus import CorpusSettings
from charlm.config.settings import Settings
from charlm.config.task import TaskSettings
from charlm.errors import CorpusError, RunError, UsageError, named
from charlm.files.safe_read import file_size
from charlm.phases import phase
from charlm.text.boundaries import STREAM
from charlm.text.corpus import collector
from charlm.text.dataset import SPLITS, Dataset
from charlm.text.encoded import EncodedText
from charlm.text.labelled import run_name
from charlm.text.series_floors import Values
from charlm.text.series_rows import SeriesRows
from charlm.text.sources.files import shown
from charlm.text.sources.rows import Columns, Rows, TextColumn, Warn
from charlm.text.sources.text_lines import FileRules, LineReader
from charlm.text.splits import VALID_FRACTION
from charlm.text.task_text import NOTHING, Given
from charlm.text.tokenizers.numbers import NumberVocabulary
from charlm.text.tokenizers.tokenizer_json import EOS, EOS_TOKEN, UNK_TOKEN
from charlm.text.tokenizers.vocabulary import Vocabulary
from charlm.units import count_of

VALUES = "values.bin"
"""File of the numbers of a split: float64, little endian."""
CONTEXT = 1024
"""Numbers that are read before the first one that is forecast, if they are there."""
MIN_VALUES = 32
"""Fewest numbers of a training series."""
MAX_VALUE = 1e150
"""Largest amount of a number, whose square must be finite."""
MAX_INTEGER = 2**53
"""Largest amount up to which every integer is a float64."""
_COMMAS = re.compile(
    r"[+-]?(\d*,\d+|\d+,|\d{1,3}(,\d{2,3})*,\d{3}(\.\d*)?|\d{1,3}(\.\d{3})+,\d+)([eE][+-]?\d+)?",
    re.ASCII,
)
"""Number with a decimal comma, or with commas between thousands, as in 1,234.5 and 12,34,567."""
_MARKED = re.compile(
    r"([A-Z]{2,3} )?[^\w+.]{0,3}([0-9]+|[0-9]{1,3}([ \u00a0\u202f'’_,.][0-9]{3})+)"
    r"([.,][0-9]+)?[^0-9]{0,9}"
)
"""Number with a unit or a currency, a minus of its own, or signs between thousands."""
_NINES = re.compile(r"-9{2,}(\.9+)?|9{3,}(\.9+)?|9{2,}\.9+")
"""Number that often marks a missing one."""
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


class Scales(NamedTuple):
    """Mean and deviation of the training numbers, and the root mean square of their changes."""

    mean: float
    scale: float
    change: float

    @classmethod
    def of(cls, values: Values) -> "Scales":
        """Return the scales of a series, shape (N,)."""
        changes = np.diff(values)
        return cls(float(values.mean()), float(values.std()), float(np.sqrt(np.mean(changes**2))))


@dataclass(frozen=True, kw_only=True)
class Series:
    """Numbers of a dataset by split, what they were read from, and the scales of training.

    The numbers of a split begin with those before its first step: at least one.
    """

    column: str
    """Column of the training numbers; empty if they were lines."""
    scales: Scales
    values: Mapping[str, Values]
    steps: Mapping[str, int]

    def total(self, split: str) -> int:
        """Return the number of targets of a split."""
        return self.steps[split]

    def record(self) -> dict[str, Any]:
        """Return what run.json holds of the text."""
        return {"column": self.column}

    def write(self, folder: Path, split: str) -> None:
        """Write the numbers of a split beside its encoded text."""
        (folder / VALUES).write_bytes(self.values[split].astype("<f8").tobytes())

    def tokenizers(self) -> dict[str, Vocabulary]:
        """Return no further vocabularies."""
        return {}


def inputs_of(values: Values, scales: Scales) -> NDArray[np.float32]:
    """Return the inputs of steps from each of these numbers, shape (N, 2).

    They are the number and the change that led to it, both standardised; the first change is 0.
    """
    changes = np.diff(values, prepend=values[:1])
    pairs = np.stack([(values - scales.mean) / scales.scale, changes / scales.change], axis=-1)
    return pairs.astype(np.float32)


def read_values(folder: Path, steps: int) -> Values:
    """Read the numbers of a split. Raises CorpusError if they are damaged or missing."""
    path = folder / VALUES
    try:
        size = file_size(path)
        if size % 8 or size < 8 * (steps + 1):
            raise ValueError(f"{size} bytes for {steps} steps")
        values = np.fromfile(path, dtype="<f8").astype(np.float64)
        if not bool(np.all(np.abs(values) <= MAX_VALUE)):
            raise ValueError("they are not all finite")
    except (OSError, ValueError, RunError) as error:
        raise CorpusError(f"{path}: the numbers are damaged ({error}); delete {folder}") from error
    return values


# ------------------------------------------------------------------ reading


@dataclass(frozen=True, kw_only=True)
class NumberColumn(TextColumn):
    """Rule that chooses the column of the numbers of a table."""

    usual: str = "value"
    holds = "numbers"
    json_rows = (
        'an object such as {"value": 1.5}. Write the numbers so, or one on each line of a text file'
    )
    skips_blank = is_plain_too = False

    def fits(self, cells: Iterable[object]) -> bool:
        """Return whether all cells that are not missing are numbers, and some are."""
        texts = [str(cell).strip() for cell in cells if cell is not None]
        return bool(texts) and all(map(_NUMBER.fullmatch, texts))

    def choose(self, label: str, columns: Sequence[str], texts: Sequence[str]) -> str:
        """Return the column; the usual one even if a cell is no number, whose place is named."""
        if self.column is None and (usual := self.found(self.usual, columns)):
            return usual
        return super().choose(label, columns, texts)

    def numbers_advice(self, columns: Sequence[str]) -> str:
        """Return why a column of a table without a column of numbers may be none."""
        column = named("column")
        return f" If a column has a gap or a decimal comma, name it with {column} to see where."

    def cell(self, value: object, place: str, column: str) -> str:
        """Return a cell as text, which `checked_numbers` checks."""
        return str(value)


def read_numbers(names: Sequence[str], rules: FileRules) -> tuple[str, Values]:
    """Return the column and the numbers of one file: a column of a table, or a number a line.

    The text column of the rules is the one to read if the settings name none. Raises CorpusError,
    with the place, for anything that is not a number, and warns of what may be misread.
    """
    reader, warn, columns = LineReader(rules), rules.warn, rules.columns
    sources = reader.find(names)
    if len(sources) != 1:
        labels = ", ".join(source.label for source in sources[:3])
        raise CorpusError(
            f"{len(sources):,} files were named ({labels}{' ...' if len(sources) > 3 else ''}); "
            "expected one series in one file. Name one"
        )
    (source,) = sources
    with reader.opened(sources):
        if isinstance(source, Rows):
            column, _, records = source.read(warn, True, NumberColumn.of(columns))
            rows = SeriesRows(records)
            advice = f"Choose a column of numbers with {named('column')}"
            values = checked_numbers(rows.cells(), source.label, advice)
            for doubt in (*doubts_of_values(values), *rows.doubts(len(values))):
                warn(f"{source.label}: {doubt}")
            return column, values
        numbered = ((f"line {at:,}", line) for at, line in enumerate(reader.lines(source), 1))
        advice = (
            "Remove a heading; name the format of a table with "
            f"{named('input_format')} and its column with {named('column')}"
        )
        values = checked_numbers(numbered, source.label, advice)
        for doubt in doubts_of_values(values):
            warn(f"{source.label}: {doubt}")
        return "", values


def checked_numbers(cells: Iterable[tuple[str, str | None]], label: str, advice: str) -> Values:
    """Return the numbers of cells with their places; empty cells at the end are left out.

    `advice` says what to do if the first cell is no number. Raises CorpusError for a cell that is
    no number, or that a float64 cannot hold.
    """
    values: list[float] = []
    gap = ""
    for place, cell in cells:
        text = (cell or "").strip()
        if not text:
            gap = gap or place
            continue
        if gap:
            raise CorpusError(
                f"{label}: {gap} has no number, and later ones have; expected a number in each. "
                "Fill the gap, or cut the series there"
            )
        if not _NUMBER.fullmatch(text):
            usual = "Fill the gap, or cut the series there" if values else advice
            expected = _expected(text) or f"expected a number. {usual}"
            raise CorpusError(f"{label}: {place} holds {text[:60]!r}; {expected}")
        value = float(text)
        if not abs(value) <= MAX_VALUE:
            raise CorpusError(
                f"{label}: {place} holds {text:.60}; expected at most {MAX_VALUE:g}. Scale the "
                "series down"
            )
        integer = abs(value) >= MAX_INTEGER and text.lstrip("+-").isdecimal()
        if integer and Decimal(text) != Decimal(value):
            raise CorpusError(
                f"{label}: {place} holds {text:.60}, which float64 would round to {value:.0f}; "
                "expected at most 15 digits. Subtract a constant from the series, or divide it"
            )
        values.append(value)
    return np.array(values, np.float64)


def _expected(text: str) -> str:
    """Return what was expected of a number with other signs in it, and what to do; or ""."""
    if _COMMAS.fullmatch(text):
        return (
            "expected a number with a decimal point and no commas. Replace a decimal comma by a "
            "point; remove commas between thousands"
        )
    if _MARKED.fullmatch(text):
        return (
            "expected a number such as -1234.5 alone. Remove units, signs of currencies, and what "
            "separates thousands; write - for minus"
        )
    return ""


def doubts_of_values(values: Values) -> Iterator[str]:
    """Yield a sentence about numbers such as -999 if they may mark missing ones.

    They consist of nines, and lie further from all others than those, which differ, lie from each
    other.
    """
    for end in np.unique(values)[[0, -1]] if len(values) else ():
        others = values[values != end]
        if len(others) < 2 or not _NINES.fullmatch(f"{end:.10g}"):
            continue
        if float(np.abs(others - end).min()) > float(np.ptp(others)) > 0:
            count, first = len(values) - len(others), int(np.argmax(values == end)) + 1
            yield (
                f"{count_of(count, 'number')} {'is' if count == 1 else 'are'} {end:.10g} (the "
                f"first is number {first:,}), all others between {others.min():g} and "
                f"{others.max():g}; it is read as a number. If it marks missing ones, fill the "
                f"gaps, or cut the series there."
            )


# ------------------------------------------------------------------ the dataset


class SeriesText:
    """Reader and keeper of series; see `charlm.text.task_text.TaskText`."""

    def load(self, settings: Settings, given: Given = NOTHING) -> Dataset:
        """Read the series of each split, and hold out the end of the training series.

        Raises CorpusError for what is not a series of numbers.
        """
        if given.examples is not None:
            raise UsageError(f"examples with a series; {self.check_example(None)}")
        warnings: list[str] = []
        column, values, steps = _read(settings.corpus, collector(warnings))
        texts = {
            name: EncodedText.stream(np.full(count, EOS, np.uint8)) for name, count in steps.items()
        }
        return Dataset(
            name=run_name(settings.corpus, None),
            vocabulary=given.vocabulary
            or NumberVocabulary(settings.vocabulary, [UNK_TOKEN, EOS_TOKEN]),
            train=texts["train"],
            valid=texts.get("valid"),
            test=texts.get("test"),
            fingerprint=_fingerprint(values),
            boundaries=STREAM,
            unk_types=None,
            warnings=warnings,
            labelled=Series(
                column=column, scales=Scales.of(values["train"]), values=values, steps=steps
            ),
        )

    def check_example(self, pair: Any) -> str:
        """Return what was expected in place of examples in Python."""
        return "expected the file of a series, not examples"

    def fingerprint(self, corpus: CorpusSettings, task: TaskSettings) -> str:
        """Read the series and return the fingerprint of their dataset."""
        return _fingerprint(_read(corpus, lambda _: None)[1])

    def read(
        self, path: Path, config: Mapping[str, Any], splits: Mapping[str, EncodedText]
    ) -> Series:
        """Read the numbers of a run. Raises CorpusError if they are damaged."""
        steps = {name: len(text.ids) for name, text in splits.items()}
        task = config["task"]
        return Series(
            column=task["column"],
            scales=Scales(task["mean"], task["scale"], task["change"]),
            values={name: read_values(path / "data" / name, steps[name]) for name in splits},
            steps=steps,
        )


def _read(corpus: CorpusSettings, warn: Warn) -> tuple[str, dict[str, Values], dict[str, int]]:
    """Return the column, and the numbers and steps of each split, with a held-out part."""
    sources = {"train": corpus.sources, "valid": corpus.valid, "test": corpus.test}
    values: dict[str, Values] = {}
    column = ""
    for name, names in sources.items():
        if names:
            with phase(f"reading the {name} series"):
                known = Columns(text=column or None)
                rules = FileRules(settings=corpus, warn=warn, columns=known)
                own, values[name] = read_numbers(names, rules)
            column = own if name == "train" else column
            least = MIN_VALUES if name == "train" else 2
            if len(values[name]) < least:
                raise CorpusError(
                    f"{', '.join(map(shown, names))} has {len(values[name]):,} numbers; expected "
                    f"at least {least}. Give a longer series"
                )
    steps = {name: len(each) - 1 for name, each in values.items()}
    if "valid" not in values and corpus.valid_frac != 0.0:
        whole = values["train"]
        fraction = VALID_FRACTION if corpus.valid_frac is None else corpus.valid_frac
        begin = len(whole) - max(round(fraction * len(whole)), 1)
        steps |= {"train": begin - 1, "valid": len(whole) - begin}
        values |= {"train": whole[:begin], "valid": whole[max(begin - CONTEXT, 0) :]}
    train = values["train"]
    if len(train) < 3 or not Scales.of(train).change * MAX_VALUE > 1.0:
        width = float(np.ptp(train))
        all_are = f"differ by at most {width:g}" if width else f"are {train[0]:g}"
        advice = ", or scale the series up" if width else ""
        raise CorpusError(
            f"{', '.join(map(shown, corpus.sources))}: all {len(train):,} training numbers "
            f"{all_are}; expected a series that changes. Give another column or file{advice}"
        )
    return column, {name: values[name] for name in SPLITS if name in values}, steps


def _fingerprint(values: Mapping[str, Values]) -> str:
    digest = hashlib.sha256()
    for name, each in values.items():
        digest.update(f"{name}:{len(each)}:".encode() + each.astype("<f8").tobytes())
    return digest.hexdigest()


SERIES_TEXT = SeriesText()
