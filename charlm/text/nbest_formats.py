"""Files of n-best lists in the formats of recognisers, read and written.

| format | one hypothesis | features |
|---|---|---|
| srilm | `ascore lscore nwords w1 ...`; a file for each utterance | ascore, lscore (log10) |
| kaldi | `utterance-3 w1 ...` | acoustic, graph: the costs in other files, with minus |
| nemo | `text<TAB>score`; as many lines for each utterance as the beam | score |
| tsv | a row of a table, also CSV, with the columns utterance and text | columns of numbers |
| jsonl | an item of `{"id": ..., "hyps": [{"text": ...}, ...]}` | members that are numbers |

The writers add the log-probability of a model: in place of lscore, as a cost, as a column.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, islice
from pathlib import Path

from charlm.config.corpus import ReadSettings
from charlm.errors import CorpusError, UsageError
from charlm.text.corpus import Corpus
from charlm.text.documents import check_text
from charlm.text.nbest import LM, WORDS, Hypothesis, NBestLists, Utterance
from charlm.text.nbest_files import NBestFiles, finite_number, is_number, line_error
from charlm.text.sources.delimited import quoted_field
from charlm.text.sources.files import shown
from charlm.text.sources.json_rows import json_text, lines_of
from charlm.text.sources.rows import Number, Record, kind_of
from charlm.units import count_of

PEEK_LINES = 100
"""Lines of a file by which its format is recognised."""


def read_nbest(files: NBestFiles, format_name: str = "auto") -> NBestLists:
    """Read n-best lists; `auto` recognises the format if it is certain.

    Raises CorpusError, with file and line, for content that the format does not have, and
    UsageError for a format that needs a number, or has no use for one.
    """
    name = _recognised(files) if format_name == "auto" else format_name
    if name == "nemo" and files.beam is None:
        raise UsageError(
            "the format nemo does not show where an utterance ends; expected the number of "
            "hypotheses of each. Add --beam N"
        )
    given = {"--beam": files.beam, "--acoustic": files.acoustic, "--graph": files.graph}
    for flag, value in given.items():
        user = "nemo" if flag == "--beam" else "kaldi"
        if value is not None and name != user:
            raise UsageError(
                f"{flag} with lists in the format {name}; expected the format {user}. Leave out "
                f"{flag}, or add --format {user}"
            )
    row = FORMATS[name]
    lists = row.read(files)
    files.report_marks()
    if not lists:
        raise CorpusError(
            f"{shown(files.path)} has no hypotheses; expected n-best lists. Give another file"
        )
    return lists


def log_base_of(format_name: str) -> str:
    """Return the base of the scores of a format: 10 for srilm, else e."""
    return "10" if format_name == "srilm" else "e"


def _recognised(files: NBestFiles) -> str:
    """Return the format of n-best lists. Raises CorpusError unless it is certain."""
    if files.path.is_dir():
        return "srilm"
    lines = [line for _, line in islice(files.lines(files.path), PEEK_LINES)]
    _refuse_decipher(files.path, lines)
    names = [name for name, row in FORMATS.items() if lines and row.fits(lines)]
    if len(names) == 1:
        return names[0]
    found = f"may be {' or '.join(names)}" if names else "is in no format that is known for certain"
    raise CorpusError(
        f"{shown(files.path)} {found}; expected n-best lists. Name their format with --format: "
        f"{', '.join(FORMATS)}"
    )


# ------------------------------------------------------------------ srilm


def _refuse_decipher(path: Path, lines: Sequence[str]) -> None:
    if lines and (match := re.match(r"NBestList\d\.\d", lines[0])):
        raise CorpusError(
            f"{shown(path)}: line 1 is {match[0]}, a format of Decipher; expected SRILM's own: "
            "ascore lscore nwords w1 w2 ... Convert it with: nbest-lattice -write-nbest"
        )


def _read_srilm(files: NBestFiles) -> NBestLists:
    paths = [files.path]
    if files.path.is_dir():
        paths = sorted(each for each in files.path.iterdir() if each.name[0] != ".")
    utterances = [_srilm_utterance(files, path) for path in paths]
    if twice := _repeated(utterance.name for utterance in utterances):
        raise CorpusError(
            f"{shown(files.path)} has several files for utterance {shown(twice[0])}; expected one "
            "for each, named by it. Remove the others"
        )
    return NBestLists(utterances, "srilm", log_base=log_base_of("srilm"))


def _repeated(names: Iterable[str]) -> list[str]:
    """Return the names that occur several times, sorted."""
    return sorted(name for name, count in Counter(names).items() if count > 1)


def _srilm_utterance(files: NBestFiles, path: Path) -> Utterance:
    hypotheses: list[Hypothesis] = []
    for line, text in files.lines(path):
        if not hypotheses:
            _refuse_decipher(path, [text])
        fields = text.split()
        if len(fields) < 3:
            found = f"has {count_of(len(fields), 'field')}"
            raise line_error(path, line, found, "ascore lscore nwords w1 w2 ...")
        ascore, lscore = (
            finite_number(value, path, line, name)
            for value, name in zip(fields, ("ascore", "lscore"), strict=False)
        )
        words = int(fields[2]) if fields[2].isdecimal() and len(fields[2]) < 10 else -1
        if not 0 <= words <= len(fields) - 3:
            count = count_of(len(fields) - 3, "word")
            found = f"has {shown(fields[2][:40])!r} as nwords, before {count}"
            raise line_error(path, line, found, "the number of these words, apart from pauses")
        given = " ".join(fields[3:])
        bare = files.unmarked(given, path, line)
        hypotheses.append(
            Hypothesis(
                text=bare,
                features={"ascore": ascore, "lscore": lscore},
                words=min(words, len(bare.split())),
                line=line,
                content=(fields[0], words, given),
            )
        )
    if not hypotheses:
        raise CorpusError(f"{shown(path)} has no hypotheses; expected one on each line. Remove it")
    name = path.name.removesuffix(".gz").removesuffix(".score")
    return Utterance(name=name, hypotheses=tuple(hypotheses))


def _srilm_lines(lists: Sequence[Utterance]) -> Iterator[str]:
    for utterance in lists:
        for each in utterance.hypotheses:
            ascore, words, text = each.content
            fields = (ascore, f"{each.features[LM]:.7g}", words, text)
            yield " ".join(map(str, fields)).rstrip(" ")


def _counts(words: Sequence[str]) -> tuple[str, str]:
    """Return the number of words, with and without sentence marks."""
    marks = sum(word.lower() in ("<s>", "</s>") for word in words)
    return str(len(words)), str(len(words) - marks)


def _fits_srilm(lines: Sequence[str]) -> bool:
    rows = [line.split() for line in lines]
    return all(
        len(row) > 2 and all(map(is_number, row[:2])) and row[2] in _counts(row[3:]) for row in rows
    )


# ------------------------------------------------------------------ kaldi

_KEY = re.compile(r"(\S+)-(\d{1,9})")


def _read_kaldi(files: NBestFiles) -> NBestLists:
    texts = _keyed(files, files.path, "the name of an utterance, - and a number, such as utt-3")
    columns: dict[str, dict[str, float]] = {}
    for name, path in (("acoustic", files.acoustic), ("graph", files.graph)):
        if path is None:
            continue
        costs = _keyed(files, path, "utt-3 and its cost")
        columns[name] = {
            key: -finite_number(cost, path, line, "cost") for key, (line, cost) in costs.items()
        }
        if differing := sorted(costs.keys() ^ texts.keys()):
            lacking = path if differing[0] in texts else files.path
            raise CorpusError(
                f"{shown(lacking)} lacks {shown(differing[0])}; expected the same names as in the "
                f"other file. Correct it, or leave out --{name}"
            )
    numbered: dict[str, list[tuple[int, Hypothesis]]] = {}
    for key, (line, given) in texts.items():
        text = files.unmarked(given, files.path, line)
        hypothesis = Hypothesis(
            text=text,
            features={name: values[key] for name, values in columns.items()},
            words=len(text.split()),
            line=line,
            content=key,
        )
        name, _, number = key.rpartition("-")
        numbered.setdefault(name, []).append((int(number), hypothesis))
    ranked = {name: sorted(pairs, key=lambda pair: pair[0]) for name, pairs in numbered.items()}
    return NBestLists(
        (
            Utterance(name=name, hypotheses=tuple(h for _, h in pairs))
            for name, pairs in ranked.items()
        ),
        "kaldi",
    )


def _keyed(files: NBestFiles, path: Path, expected: str) -> dict[str, tuple[int, str]]:
    """Return the line number and the rest of each line, by its first field."""
    rows: dict[str, tuple[int, str]] = {}
    for line, text in files.lines(path):
        key, *fields = text.split()
        if not _KEY.fullmatch(key):
            raise line_error(path, line, f"begins with {shown(key[:60])!r}", expected)
        if key in rows:
            raise line_error(
                path, line, f"repeats {shown(key)}", "each once", "Remove one of the lines"
            )
        rows[key] = line, " ".join(fields)
    return rows


def _kaldi_lines(lists: Sequence[Utterance]) -> Iterator[str]:
    for each in _in_file_order(lists):
        yield f"{each.content}\t{0.0 - each.features[LM]:.6f}"


def _in_file_order(lists: Sequence[Utterance]) -> list[Hypothesis]:
    hypotheses = chain.from_iterable(utterance.hypotheses for utterance in lists)
    return sorted(hypotheses, key=lambda each: each.line)


def _fits_kaldi(lines: Sequence[str]) -> bool:
    keys = [line.split(maxsplit=1)[0] for line in lines]
    return all(_KEY.fullmatch(key) and re.search(r"[^-\d.]", key) for key in keys)


# ------------------------------------------------------------------ nemo


def _read_nemo(files: NBestFiles) -> NBestLists:
    beam = files.beam or 1
    hypotheses = []
    for line, row in files.lines(files.path):
        text, tab, score = row.rpartition("\t")
        if not tab:
            raise line_error(files.path, line, "has no tab", "text, a tab and a score")
        features = {"score": finite_number(score.strip(), files.path, line, "score")}
        text = files.unmarked(text, files.path, line)
        hypotheses.append(
            Hypothesis(text=text, features=features, words=len(text.split()), content=row)
        )
    if len(hypotheses) % beam:
        raise CorpusError(
            f"{shown(files.path)} has {len(hypotheses):,} hypotheses; expected a multiple of "
            f"--beam {beam}. Correct --beam, or complete the file"
        )
    starts = range(0, len(hypotheses), beam)
    return NBestLists(
        (
            Utterance(name=str(number), hypotheses=tuple(hypotheses[start : start + beam]))
            for number, start in enumerate(starts, start=1)
        ),
        "nemo",
    )


def _nemo_lines(lists: Sequence[Utterance]) -> Iterator[str]:
    for each in _in_file_order(lists):
        yield f"{each.content}\t{each.features[LM]:.6f}"


def _fits_nemo(lines: Sequence[str]) -> bool:
    rows = [line.split("\t") for line in lines]
    return all(len(row) == 2 and is_number(row[1].strip()) for row in rows)


# ------------------------------------------------------------------ tsv

NAME, TEXT = "utterance", "text"
SEPARATORS = "\t,;|"
DECIMAL_COMMA = re.compile(r"[-+]?\d[\d.]*,\d+")


def _read_tsv(files: NBestFiles) -> NBestLists:
    first = next(iter(files.lines(files.path)), (0, ""))[1]
    reading = ReadSettings(
        input_format="tsv" if _separator(first) in (None, "\t") else "csv",
        column=TEXT,
        encoding=files.reading.encoding,
        errors=files.reading.errors,
    )
    corpus = Corpus([str(files.path)], document="line", reading=reading)
    records = list(corpus.records())
    columns = list(records[0].cells) if records else []
    if records and NAME not in columns:
        raise CorpusError(
            f'{shown(files.path)} has no column "{NAME}"; expected the columns {NAME}, {TEXT} and '
            "columns of numbers. Rename a column, or name another format with --format"
        )
    numeric = [name for name in columns if name != NAME and _is_numeric(files, records, name)]
    utterances: list[Utterance] = []
    seen: set[str] = set()
    for name, group in groupby(records, key=lambda record: record.cells[NAME]):
        rows = list(group)
        if name in seen or not name:
            found = f"begins utterance {shown(name)} again" if name else "names no utterance"
            raise line_error(
                files.path, rows[0].line or 0, found, "all hypotheses of an utterance together"
            )
        seen.add(name)
        texts = [files.unmarked(row.text or "", files.path, row.line or 0) for row in rows]
        hypotheses = [
            Hypothesis(
                text=text,
                features={
                    feature: finite_number(
                        row.cells[column].strip(), files.path, row.line or 0, column
                    )
                    for column, feature in _feature_names(numeric).items()
                },
                words=len(text.split()),
                content=(row.cells, row.text or ""),
            )
            for row, text in zip(rows, texts, strict=True)
        ]
        utterances.append(Utterance(name=name, hypotheses=tuple(hypotheses)))
    return NBestLists(utterances, "tsv", columns=columns)


def _separator(header: str) -> str | None:
    """Return the character between the names of the columns of a table of hypotheses, or None."""
    for mark in SEPARATORS:
        names = [name.strip('"') for name in header.split(mark)]
        if NAME in names and TEXT in names:
            return mark
    return None


def _is_numeric(files: NBestFiles, records: Sequence[Record], column: str) -> bool:
    """Return whether a column is a feature: its first cell, or every filled one, is a number.

    Raises CorpusError for numbers with decimal commas, which would be left out otherwise.
    """
    cells = [record.cells[column].strip() for record in records]
    if is_number(cells[0]):
        return True
    filled = [(cell, record.line) for cell, record in zip(cells, records, strict=True) if cell]
    if not filled:
        return False
    if all(DECIMAL_COMMA.fullmatch(cell) for cell, _ in filled):
        cell, line = filled[0]
        raise line_error(
            files.path, line or 0, f"has {shown(cell[:40])!r} as {column}",
            "numbers with a decimal point", "Replace the decimal commas",
        )  # fmt: skip
    return all(is_number(cell) for cell, _ in filled)


def _feature_names(names: Iterable[str]) -> dict[str, str]:
    """Return the name of each feature; one that charlm uses itself becomes `input_NAME`."""
    return {name: f"input_{name}" if name in (LM, WORDS) else name for name in names}


def _tsv_lines(lists: Sequence[Utterance]) -> Iterator[str]:
    for utterance in lists:
        for each in utterance.hypotheses:
            others, text = each.content
            cells = [*others.values(), text, f"{each.features[LM]:.6f}"]
            yield "\t".join(quoted_field(cell, "\t") for cell in cells)


def _fits_tsv(lines: Sequence[str]) -> bool:
    return len(lines) > 1 and _separator(lines[0]) is not None


# ------------------------------------------------------------------ jsonl


def _read_jsonl(files: NBestFiles) -> NBestLists:
    path = files.path
    utterances: list[Utterance] = []
    seen: set[str] = set()
    names: list[str] | None = None
    for line, row in lines_of(files.pieces(path), shown(path)):
        line = line or 0
        items = row.get("hyps") if type(row) is dict else None
        name = row.get("id") if type(row) is dict else None
        if type(row) is not dict or not isinstance(items, list) or not isinstance(name, str):
            raise line_error(
                path, line, "is another JSON value", '{"id": ..., "hyps": [{"text": ...}, ...]}'
            )
        if name in seen or not items:
            found = f"repeats utterance {shown(name)}" if items else "has no hypotheses"
            raise line_error(path, line, found, "each utterance once, with hypotheses")
        seen.add(name)
        hypotheses = []
        for item in items:
            text = item.get("text") if type(item) is dict else None
            if type(text) is not str:
                raise line_error(
                    path, line, f"has {kind_of(text)} as text of a hypothesis", "a text"
                )
            check_text(text, f"{shown(path)}: line {line:,}", "Correct that line.")
            text = files.unmarked(text, path, line)
            if names is None:
                names = [key for key, value in item.items() if type(value) is Number]
            features = {
                feature: finite_number(item.get(key), path, line, key)
                for key, feature in _feature_names(names).items()
            }
            hypotheses.append(
                Hypothesis(text=text, features=features, words=len(text.split()), content=item)
            )
        utterances.append(Utterance(name=name, hypotheses=tuple(hypotheses), content=row))
    return NBestLists(utterances, "jsonl")


def _jsonl_lines(lists: Sequence[Utterance]) -> Iterator[str]:
    for utterance in lists:
        items = [
            {f"input_{key}" if key == LM else key: value for key, value in each.content.items()}
            | {LM: Number(f"{each.features[LM]:.6f}")}
            for each in utterance.hypotheses
        ]
        yield json_text(utterance.content | {"hyps": items})


def _fits_jsonl(lines: Sequence[str]) -> bool:
    try:
        row = json.loads(lines[0])
    except (ValueError, RecursionError):
        return False
    return isinstance(row, dict) and "hyps" in row


# ------------------------------------------------------------------ table of formats


@dataclass(frozen=True, kw_only=True)
class NBestFormat:
    """Functions of a format: read files, write lines, and whether the first lines fit it."""

    read: Callable[[NBestFiles], NBestLists]
    lines: Callable[[Sequence[Utterance]], Iterator[str]]
    fits: Callable[[Sequence[str]], bool]


FORMATS: Mapping[str, NBestFormat] = {
    "srilm": NBestFormat(read=_read_srilm, lines=_srilm_lines, fits=_fits_srilm),
    "kaldi": NBestFormat(read=_read_kaldi, lines=_kaldi_lines, fits=_fits_kaldi),
    "nemo": NBestFormat(read=_read_nemo, lines=_nemo_lines, fits=_fits_nemo),
    "tsv": NBestFormat(read=_read_tsv, lines=_tsv_lines, fits=_fits_tsv),
    "jsonl": NBestFormat(read=_read_jsonl, lines=_jsonl_lines, fits=_fits_jsonl),
}


def nbest_lines(lists: NBestLists) -> Iterator[str]:
    """Yield the lines of rescored lists in their own format, without line ends."""
    if lists.format_name == "tsv":
        names = [f"input_{name}" if name == LM else name for name in lists.columns]
        yield "\t".join([*(quoted_field(name, "\t") for name in names), f'"{TEXT}"', LM])
    yield from FORMATS[lists.format_name].lines(lists)
