"""Sentences of tagged words in tables: a sentence in each row, as lists, or a word in each row.

{"tokens": ["EU", "rejects"], "ner_tags": ["B-ORG", "O"]}        Sentence #,Word,Tag
                                                                 Sentence: 1,EU,B-ORG
                                                                 ,rejects,O
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import NamedTuple

from charlm.errors import CorpusError, named
from charlm.text.documents import check_text
from charlm.text.sentences import is_word, split_words
from charlm.text.sources.files import shown
from charlm.text.sources.kinds import ENTITY_TAG
from charlm.text.sources.rows import (
    PEEK_ROWS,
    Nested,
    Record,
    Rows,
    TwoColumns,
    Warn,
    columns_named,
    kind_of,
    listed,
)
from charlm.text.sources.text_lines import LineReader
from charlm.units import count_of

WORD_NAMES = ("tokens", "words", "token", "word", "form")
"""Names of a column of words, in the order of preference."""
TAG_NAMES = (
    "ner_tags", "tags", "labels", "ner", "tag", "label", "pos_tags", "upos", "pos", "xpos",
)  # fmt: skip
"""Names of a column of tags, in the order of preference."""
SENTENCE_NAMES = (
    "sentence #", "sentence_id", "sentence_idx", "sent_id", "sentence", "sent",
)  # fmt: skip
"""Names of a column whose cells say where a sentence begins."""
DOCUMENT_NAMES = ("document_id", "doc_id", "document", "doc", "docid")
"""Names of a column of documents, in which the numbers of sentences may begin again."""
MAX_UNDIVIDED = 250
"""Words of a table above which there must be several sentences."""
EXPECTED = (
    'rows such as {"tokens": ["EU", "rejects"], "tags": ["B-ORG", "O"]}, or a column of words, one '
    "of tags, and one such as sentence_id or an empty line after each sentence"
)
_ENDS = frozenset(".!?。！？।")
_LIST = re.compile(r"\s*\[\s*['\"].*\]\s*\Z", re.DOTALL)


class Sentence(NamedTuple):
    """Words of a sentence, their tags, and where it was read."""

    words: tuple[str, ...]
    tags: tuple[str, ...] | None
    """None for text without tags."""
    place: str
    """Place for messages, such as "train.conll: line 7"."""


@dataclass(frozen=True, kw_only=True)
class WordColumns(TwoColumns):
    """Rule that chooses the columns of words and tags in a table."""

    usual: str = ""
    holds = texts = "words"
    first_names, target_names = WORD_NAMES, TAG_NAMES
    noun = "tag"
    json_rows = f"{EXPECTED}. Write them so"
    skips_blank = False

    def fits(self, cells: Iterable[object]) -> bool:
        """Return True if a cell is a text or a list."""
        return any(type(cell) is str or isinstance(cell, list) for cell in cells)

    def cell(self, value: object, place: str, column: str) -> str:
        """Return a cell as text; a list as that of JSON. Raises CorpusError for other cells."""
        kind = kind_of(value)
        if isinstance(value, list):
            inner = next((item for item in value if isinstance(item, list | dict)), None)
            if inner is None:
                return Nested(json.dumps(value, ensure_ascii=False))
            kind = f"a list with {kind_of(inner)} in it"
        if type(value) is not str:
            raise CorpusError(
                f'{place}: the column "{shown(column)}" holds {kind}, expected words: '
                f"{EXPECTED}. Choose another with {named('column')}"
            )
        check_text(value, place, "Correct that row.")
        return value

    def choose(self, label: str, columns: Sequence[str], texts: Sequence[str]) -> str:
        """Return the column that is named, else that of a run, of `WORD_NAMES`, or of text."""
        if self.column is not None:
            return self.chosen(label, columns, texts)
        if usual := self.found(self.usual or None, columns):
            return usual
        if words := columns_named(WORD_NAMES, columns):
            return words[0]
        others = ["text"] if "text" in texts else [*texts]
        if self.needed or len(others) != 1:
            raise self.lacking(label, columns, "words", "column")
        return others[0]

    def lacking(self, label: str, columns: Sequence[str], what: str, setting: str) -> CorpusError:
        """Return the error of a table without a column of `what`, words or tags."""
        return CorpusError(
            f"{label} is a table; expected a CoNLL file, or a column of {what}: {EXPECTED}. "
            f"{listed(columns)} Name it with {named(setting)}, or add {named('input_format')} text "
            f"if this is a CoNLL file",
            columns=columns,
        )


def table_sentences(rows: Rows, reader: LineReader) -> Iterator[Sentence]:
    """Yield the sentences of a table.

    If tags are not needed, rows may have texts, whose words are those between blanks. Raises
    CorpusError for rows that have no words, or not a tag for each.
    """
    warn, needs_tags = reader.warn, reader.needed
    rule = reader.column_rule(WordColumns, compared=needs_tags)
    table, tags = reader.open_table(rows, rule)
    head = list(islice(table.records, PEEK_ROWS))
    records = chain(head, table.records)
    trained = rule.found(rule.usual or None, table.columns)
    are_words = table.column == trained or table.column.casefold() in WORD_NAMES
    if any(isinstance(each.text, Nested) for each in head):
        yield from _listed(records, rows.label, tags, warn, needs_tags)
    elif needs_tags or (are_words and not _have_blanks(head)):
        _check_words(head, rows.label, table.column)
        if needs_tags:
            _check_one_word(head, rows.label, tags or "")
        divider = columns_named(SENTENCE_NAMES, table.columns)[:1]
        if divider:
            divider += columns_named(DOCUMENT_NAMES, table.columns)[:1]
        yield from _joined(records, rows.label, tags, divider, warn, needs_tags)
    else:
        for record in records:
            _check_no_list(record.text or "", "", f"{rows.label}: {record.place}")
            words = tuple(word for word, _ in split_words(record.text or ""))
            yield Sentence(words, None, f"{rows.label}: {record.place}")


def _check_words(head: Sequence[Record], label: str, column: str) -> None:
    """Raise CorpusError if the column of the words evidently holds tags."""
    words = {text for each in head if (text := (each.text or "").strip())}
    if len(words) > 1 and all(map(ENTITY_TAG.fullmatch, words)):
        raise CorpusError(
            f'{label}: the column "{shown(column)}" holds tags '
            f"({', '.join(sorted(map(shown, words))[:3])}); expected words. Name theirs with "
            f"{named('column')}"
        )


def _have_blanks(records: Sequence[Record]) -> bool:
    """Return True if half of the texts have several words, so that each is a sentence."""
    texts = [each.text for each in records if each.text]
    return bool(texts) and 2 * sum(len(text.split()) > 1 for text in texts) >= len(texts)


def _check_one_word(head: Sequence[Record], label: str, column: str) -> None:
    """Raise CorpusError for rows with all words of a sentence in a cell, and all tags in another.

    Blanks separate them, so that most cells have several words, and as many tags.
    """
    cells = [(each.text or "", each.cells.get(column, "")) for each in head]
    pairs = [(text.split(), tags.split()) for text, tags in cells if text]
    if any(_LIST.match(text) or isinstance(tags, Nested) for text, tags in cells):
        return  # `_check_no_list` has a message of its own
    alike = sum(len(words) == len(tags) for words, tags in pairs)
    if _have_blanks(head) and 10 * alike >= 9 * len(pairs):
        words, tags = (shown(" ".join(each)[:40]) for each in pairs[0])
        raise CorpusError(
            f"{label} has several words and tags in a row, between blanks ({words}: {tags}); "
            f"expected {EXPECTED}. Write such lists, for example with pandas: "
            f'df.map(str.split).to_json("x.jsonl", orient="records", lines=True)'
        )


# ------------------------------------------------------------------ a sentence in each row


def _listed(
    records: Iterable[Record], label: str, column: str | None, warn: Warn, needs_tags: bool
) -> Iterator[Sentence]:
    """Yield the sentences of rows with lists of words and of tags."""
    numbers = reported = False
    empty = 0
    for record in records:
        place = f"{label}: {record.place}"
        words = tuple(map(str, _items(record.text, place, "words")))
        tags: tuple[str, ...] | None = None
        if needs_tags and column is not None:
            cells = _items(record.cells.get(column) or None, place, "tags")
            numbers |= any(not isinstance(tag, str) for tag in cells)
            tags = tuple(str(tag).strip() for tag in cells)
        if tags is not None and len(tags) != len(words):
            raise CorpusError(
                f"{place} has {count_of(len(words), 'word')} and {count_of(len(tags), 'tag')}; "
                "expected a tag for each word. Correct that row"
            )
        _check(words, tags, place)
        if numbers and not reported:
            reported = True
            warn(
                f"{label}: tags are numbers, which are learned as the names of classes: the file "
                "does not say what they mean, so spans are not recognised."
            )
        if words or not needs_tags:
            yield Sentence(words, tags, place)
        else:
            empty += 1
    if empty:
        warn(f"{label}: {count_of(empty, 'row')} without words skipped.")


def _items(cell: str | None, place: str, noun: str) -> list[object]:
    """Return the items of a list in a cell. Raises CorpusError for anything else."""
    if cell is None:
        return []
    items = json.loads(cell) if isinstance(cell, Nested) and cell[:1] == "[" else None
    if items is None or any(isinstance(item, list | dict | bool) for item in items):
        raise CorpusError(
            f"{place} has {cell[:40]!r} as {noun}; expected a list of {noun}: {EXPECTED}. Correct "
            "that row"
        )
    return ["" if item is None else item for item in items]


# ------------------------------------------------------------------ a word in each row


def _joined(
    records: Iterable[Record],
    label: str,
    column: str | None,
    keys: Sequence[str],
    warn: Warn,
    needs_tags: bool,
) -> Iterator[Sentence]:
    """Yield the sentences of rows with a word each; `keys` are columns that change with them.

    A cell of them that is empty continues the sentence, and so does an equal one. Without `keys`,
    an empty row ends it.
    """
    if keys:
        columns = " or ".join(f'"{shown(key)}"' for key in keys)
        warn(f"{label}: a sentence ends where the column {columns} changes.")
    else:
        warn(f"{label}: each row is read as a word; a sentence ends at an empty row.")
    words: list[str] = []
    tags: list[str] = []
    place, last = "", [""] * len(keys)
    divided = False

    def sentence() -> Sentence:
        """Return the sentence that ends here."""
        if not divided and len(words) > MAX_UNDIVIDED:
            raise CorpusError(
                f"{label} has {len(words):,} rows and no end of a sentence; expected a column such "
                "as sentence_id that changes, or an empty line after each sentence. Add one of them"
            )
        return Sentence(tuple(words), tuple(tags) if needs_tags else None, place)

    for record in records:
        own = f"{label}: {record.place}"
        cell = record.cells.get(column or "", "")
        _check_no_list(record.text or "", cell, own)
        word, tag = (record.text or "").strip(), cell.strip()
        own_keys = [record.cells.get(key, "").strip() for key in keys]
        begins = any(cell and cell != old for cell, old in zip(own_keys, last, strict=True))
        is_blank = not word and not any(cell.strip() for cell in record.cells.values())
        if words and (begins or (is_blank and not keys)):
            divided = True
            yield sentence()
            words, tags = [], []
        last = [cell or old for cell, old in zip(own_keys, last, strict=True)]
        if is_blank:
            continue
        if not word or (needs_tags and not tag):
            raise CorpusError(
                f"{own} has no {'tag' if word else 'word'}; expected a word and its tag in each "
                "row. Correct that row"
            )
        place = place if words else own
        words.append(word)
        tags.append(tag)
        _check((word,), (tag,) if needs_tags else None, own)
    if words:
        yield sentence()
        if not divided and (doubt := undivided(words)):
            warn(f"{label} {doubt}")


def undivided(words: Sequence[str]) -> str:
    """Return the end of a note on the only sentence of a file, if it is evidently several."""
    ends = sum(word in _ENDS for word in words[:-1])
    if ends < 2:
        return ""
    return (
        f"is read as one sentence of {len(words):,} words, with {ends:,} full stops before its "
        f"end; expected an empty line after each sentence."
    )


def _check_no_list(word: str, tag: str, place: str) -> None:
    """Raise CorpusError for a cell that holds all words or tags of a sentence."""
    if _LIST.match(word):
        raise CorpusError(
            f"{place} has a list as a text ({shown(word[:40])}), as pandas writes it; expected a "
            'word, or lists of JSON. Write the table with: to_json("x.jsonl", orient="records", '
            "lines=True)"
        )
    if isinstance(tag, Nested):
        raise CorpusError(
            f"{place} has a text ({shown(word[:40])}) and a list of tags; expected a list of words "
            "too, one for each tag. Split the text as its tags are, or name the column of the "
            f"words with {named('column')}"
        )


def _check(words: Iterable[str], tags: Iterable[str] | None, place: str) -> None:
    """Raise CorpusError for a word or a tag that is blank or has a line end or a tab."""
    for noun, values in (("word", words), ("tag", tags or ())):
        for value in values:
            check_text(value, place, "Correct that row.")
            if not is_word(value):
                bad = "has a line end or a tab" if value.strip() else "is blank"
                raise CorpusError(
                    f"{place} has the {noun} {value!r:.40}, which {bad}; expected {noun}s on one "
                    "line, without tabs and not blank. Correct that row"
                )
