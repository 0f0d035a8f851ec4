"""Minimal pairs in files: pairs of sentences of which only the first is good.

    .jsonl .csv .tsv .parquet   a pair in each row: sentence_good, sentence_bad; BLiMP is such data
    .txt                        odd lines are bad, even lines good (Zorro); the file is the paradigm
    .json                       a test suite of SyntaxGym (see `charlm.text.syntaxgym`), or a table

BLiMP: Warstadt et al. 2020, https://arxiv.org/abs/1912.00582. Zorro: Huebner et al. 2021,
https://aclanthology.org/2021.conll-1.49.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from charlm.config.corpus import ReadSettings
from charlm.errors import CorpusError
from charlm.text.corpus import Corpus
from charlm.text.sources.compressed import unpacked_name
from charlm.text.sources.files import TextFile, shown
from charlm.text.sources.names import Source, find, short_name
from charlm.text.sources.rows import Record, Rows, TextColumn, Warn, listed
from charlm.text.syntaxgym import SuiteItem, is_suite, suite_items
from charlm.units import first_few

GOOD, BAD = "sentence_good", "sentence_bad"
"""Columns of the two sentences in BLiMP."""
PARADIGM, PHENOMENON = ("UID", "paradigm"), ("linguistics_term", "phenomenon")
"""Columns with the paradigm and the phenomenon of a pair; the first one that a table has counts."""
WORDS = {
    "good": "bad",
    "grammatical": "ungrammatical",
    "acceptable": "unacceptable",
    "correct": "incorrect",
}
"""Words by which the names of the two columns of sentences differ: in the good one, in the bad."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two sentences that differ little, of which only the first is good.

    `paradigm` names the set of pairs of one kind, `phenomenon` a set of paradigms. `cells` are the
    other columns of its table.
    """

    good: str
    bad: str
    paradigm: str = ""
    phenomenon: str = ""
    cells: Mapping[str, str] = field(default_factory=dict)

    @property
    def texts(self) -> list[str]:
        """Both sentences."""
        return [self.good, self.bad]

    def with_texts(self, change: Callable[[str], str]) -> "Pair":
        """Return the pair with changed sentences."""
        return replace(self, good=change(self.good), bad=change(self.bad))


def read_pairs(
    names: Sequence[str], reading: ReadSettings, columns: Sequence[str], warn: Warn
) -> list[Pair | SuiteItem]:
    """Return the pairs, and the items of test suites, of files and folders in their order.

    Other files of a folder are skipped, with a warning.

    `columns` names the columns of tables: the good sentence, the bad one, and optionally the
    phenomenon; empty for those that fit best. Raises CorpusError with the line of a pair that is
    incomplete, and for data without pairs.
    """
    pairs: list[Pair | SuiteItem] = []
    skipped: list[str] = []
    for source in find(names, reading, warn):
        if isinstance(source, Rows) and (suite := _suite(source, reading)):
            name = short_name(str(source.path), [source])
            pairs += suite_items(suite, source.label, name)
        elif isinstance(source, Rows):
            pairs += _table_pairs(source, columns, warn)
        elif _is_meant(source, names):
            pairs += _line_pairs(source, reading, warn)
        else:
            skipped.append(source.label)
    if skipped:
        named, were = first_few(skipped, 1), "were" if len(skipped) > 1 else "was"
        warn(f"{named} {were} skipped, since only tables and .txt files hold pairs.")
    if not pairs:
        raise CorpusError(
            f"{', '.join(map(shown, names))} contains no pairs; expected tables with the columns "
            f"{GOOD} and {BAD}, or .txt files. Check the files"
        )
    return pairs


def _suite(rows: Rows, reading: ReadSettings) -> Mapping[str, object] | None:
    """Return the content of a JSON file that is a test suite; None for any other table."""
    path = rows.path
    if path is None or ".json" not in (suffix.lower() for suffix in path.suffixes[-2:]):
        return None
    plain = replace(reading, input_format="text")
    try:
        content = json.loads(
            "".join(Corpus([str(path)], document="stream", reading=plain).chunks())
        )
    except (ValueError, RecursionError):
        return None  # the reader of tables names the line
    return content if is_suite(content) else None


def _is_meant(source: Source, names: Sequence[str]) -> bool:
    """Return whether a file without columns holds pairs: by its suffix, or since it was named."""
    if not isinstance(source, TextFile):
        return True
    is_text = Path(unpacked_name(source.path)).suffix.lower() == ".txt"
    return is_text or str(source.path) in names


def _line_pairs(source: Source, reading: ReadSettings, warn: Warn) -> Iterator[Pair]:
    """Yield the pairs of lines of a file: the bad sentence, then the good one."""
    name = str(source.path) if isinstance(source, TextFile) else "-"
    corpus = Corpus([name], document="line", reading=reading)
    paradigm = short_name(name, [source])
    lines = corpus.records()
    while pair := list(islice(lines, 2)):
        for row in pair:
            if not (row.text or "").strip():
                raise CorpusError(
                    f"{source.label}: line {row.number:,} is empty; expected a sentence: odd lines "
                    "are bad, even lines good. Remove the line"
                )
        if len(pair) < 2:
            raise CorpusError(
                f"{source.label}: line {pair[0].number:,} is a bad sentence at the end of the "
                "file; expected the good one after it: odd lines are bad, even lines good. "
                "Complete the pair, or name a table with --input-format"
            )
        yield Pair(bad=str(pair[0].text), good=str(pair[1].text), paradigm=paradigm)
    for sentence in corpus.warnings:
        warn(sentence)


def _table_pairs(rows: Rows, columns: Sequence[str], warn: Warn) -> Iterator[Pair]:
    """Yield the pairs of a table."""
    good, bad, *phenomenon = columns or (GOOD, BAD)
    try:
        records = rows.read(warn, True, TextColumn(column=good)).records
    except CorpusError as error:
        if not error.columns:
            raise
        good, bad = _fitting(error.columns) if not columns else ("", "")
        if not good:
            raise _no_columns(rows.label, columns or (GOOD, BAD), error.columns) from error
        warn(f'{rows.label}: "{good}" is read as the good sentence, "{bad}" as the bad one.')
        records = rows.read(warn, True, TextColumn(column=good)).records
    file = short_name(str(rows.path or rows.label), [rows])
    for row in records:
        for name in (bad, *phenomenon):
            if name not in row.cells and row.number == 1:
                raise _no_columns(rows.label, (good, bad, *phenomenon), (good, *row.cells))
        yield _row_pair(rows.label, row, (good, bad), phenomenon or PHENOMENON, file)


def _row_pair(
    label: str, row: Record, columns: tuple[str, str], phenomena: Sequence[str], file: str
) -> Pair:
    sentences = row.text, row.cells.get(columns[1])
    for name, text in zip(columns, sentences, strict=True):
        if not text:
            raise CorpusError(
                f'{label}: {row.place} has no "{shown(name)}"; expected both sentences of the '
                "pair. Complete or remove the row"
            )
    other = {name: cell for name, cell in row.cells.items() if name != columns[1]}
    named = [next((name for name in each if name in other), "") for each in (PARADIGM, phenomena)]
    paradigm, phenomenon = (other.pop(name, "") for name in named)
    return Pair(
        good=str(sentences[0]),
        bad=str(sentences[1]),
        paradigm=paradigm or file,
        phenomenon=phenomenon,
        cells=other,
    )


def _fitting(columns: Sequence[str]) -> tuple[str, str]:
    """Return the only two columns whose names differ as in `WORDS`, or two empty names."""
    couples = [
        (column, column.replace(good, bad))
        for good, bad in WORDS.items()
        for column in columns
        if good in column and column.replace(good, bad) in columns
    ]
    return couples[0] if len(couples) == 1 else ("", "")


def _no_columns(label: str, expected: Sequence[str], columns: Sequence[str]) -> CorpusError:
    names = " and ".join(f'"{shown(name)}"' for name in expected)
    return CorpusError(
        f"{label} does not have the columns {names}. {listed(columns)} Name the good sentence and "
        "the bad one with --columns GOOD,BAD; if the first row is data, add --no-header"
    )
