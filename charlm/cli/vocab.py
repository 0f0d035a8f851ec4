"""`charlm vocab`: show the vocabulary of a text, save it, try it on another text."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from charlm.cli import options
from charlm.cli.output import render, say, say_all, write, write_document
from charlm.cli.stdin import Takes
from charlm.commands import command
from charlm.phases import counted, phase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from charlm.config.corpus import VocabularySettings
    from charlm.text.corpus import Corpus
    from charlm.text.tokenizers.building import BuiltVocabulary


Sources = Annotated[list[str] | None, typer.Argument(help="Text. (default: the built-in text)")]
Vocab = Annotated[
    Path | None, typer.Option("--vocab", help="Use this tokenizer.json instead of a new one.")
]
Oov = Annotated[
    list[str] | None, typer.Option("--oov", help="Second text, to count its unknown tokens.")
]
Out = Annotated[
    Path | None,
    typer.Option("--out", help="File to write the vocabulary to, as tokenizer.json."),
]


@Takes(text=("sources",))
def vocab(
    sources: Sources = None,
    settings: options.Vocabulary = options.NO_FLAGS,
    vocab: Vocab = None,
    reading: options.Reading = options.NO_FLAGS,
    oov: Oov = None,
    out: Out = None,
    top: Annotated[int, typer.Option("--top", min=0, help="Entries shown at each end.")] = 10,
    as_json: options.Json = False,
) -> None:
    """Show the vocabulary of a text: size, coverage, frequencies.

    Example:  charlm vocab corpus.txt --unit word --max-size 10000 --out words.json
    """
    from charlm.config.corpus import ReadSettings
    from charlm.config.flags import by_section, check_frozen
    from charlm.config.settings import settings_from
    from charlm.config.unused import drop_unused
    from charlm.runs.built_in import built_in_text
    from charlm.text.corpus import Corpus

    given = by_section(settings)
    check_frozen(vocab, given)
    flags = dict.fromkeys((f"vocabulary.{name}" for name in given.get("vocabulary", {})), "flag")
    chosen = drop_unused(settings_from(given), flags).vocabulary
    rules = ReadSettings(**reading)
    corpus = Corpus(sources or [str(built_in_text())], reading=rules)
    built = _built(corpus, chosen, vocab)
    say_all([*corpus.warnings, *built.warnings])
    content = _content(built, top)
    if oov:
        content["second_text"] = _second(built, Corpus(oov, reading=rules))
    if out:
        _write(built, out)
    if as_json:
        write_document(content)
    else:
        _show(content)


def _built(
    corpus: "Corpus", settings: "VocabularySettings", frozen: Path | None
) -> "BuiltVocabulary":
    """Return the vocabulary of a text with its counts, or a finished one with those of the text."""
    from charlm.text.tokenizers.building import (
        BuiltVocabulary,
        build_vocabulary,
        count_ids,
        count_unk_types,
    )
    from charlm.text.tokenizers.vocabulary import load_vocabulary

    def read() -> "Iterator[str]":
        """Read the text, and show how much of it was read."""
        return counted(corpus.chunks())

    if frozen is None:
        with phase("building the vocabulary", unit="characters"):
            return build_vocabulary(read, settings)
    known = load_vocabulary(frozen)
    with phase("counting the tokens", unit="characters"):
        return BuiltVocabulary(
            vocabulary=known,
            counts=count_ids(read(), known),
            unk_types=count_unk_types(read, known),
        )


def _content(built: "BuiltVocabulary", top: int) -> dict[str, Any]:
    vocabulary, counts = built.vocabulary, built.counts
    order = sorted(range(2, len(counts)), key=lambda index: (-int(counts[index]), index))
    entries = [(vocabulary.token_text(index), int(counts[index])) for index in order]
    return {
        "unit": vocabulary.unit,
        "size": len(vocabulary),
        "tokens": int(counts.sum()),
        "unknown": int(counts[vocabulary.unk]),
        "coverage": built.coverage,
        "unk_types": built.unk_types,
        "min_count": vocabulary.settings.min_count,
        "most_frequent": entries[:top],
        "least_frequent": entries[len(entries) - min(top, max(len(entries) - top, 0)) :],
    }


def _second(built: "BuiltVocabulary", corpus: "Corpus") -> dict[str, Any]:
    """Return how much of a second text is unknown, and its most frequent unknown pieces."""
    from charlm.text.documents import END
    from charlm.text.tokenizers.building import count_ids
    from charlm.text.tokenizers.cutting import safe_chunks

    vocabulary = built.vocabulary
    with phase("reading the second text", unit="characters"):
        counts = count_ids(counted(corpus.chunks()), vocabulary)
    missing: Counter[str] = Counter()
    for chunk in safe_chunks(corpus.chunks()) if counts[vocabulary.unk] else ():
        for part in chunk.split(END):
            missing.update(vocabulary.unknown_pieces(part))
    say_all(corpus.warnings)
    total = int(counts.sum())
    return {
        "tokens": total,
        "unknown": int(counts[vocabulary.unk]),
        "oov_rate": int(counts[vocabulary.unk]) / total if total else 0.0,
        "most_frequent_unknown": missing.most_common(10),
    }


def _write(built: "BuiltVocabulary", out: Path) -> None:
    from charlm.files.atomic import write_file
    from charlm.runs.model_files import vocabulary_bytes

    write_file(out, vocabulary_bytes(built.vocabulary))
    say(f"wrote {out}; use it with: {command('train', 'TEXT', '--vocab', out)}")


def _show(content: dict[str, Any]) -> None:
    from charlm.config.text_units import UNITS
    from charlm.report.tables import pairs_table, plain_table
    from charlm.report.text import number, visible
    from charlm.units import count_of

    pairs = [
        ("unit", content["unit"]),
        ("entries", f"{content['size']:,} (UNK and EOS included)"),
        ("tokens", number(content["tokens"])),
        ("unknown", number(content["unknown"])),
        ("coverage", f"{100 * content['coverage']:.3f} %"),
    ]
    if (types := content["unk_types"]) is not None and not UNITS[content["unit"]].byte_level:
        pairs.append(("UNK stands for", f"{count_of(round(types), 'type')}, estimated"))
    second = content.get("second_text")
    if second:
        rate = f"{100 * second['oov_rate']:.3f} % of {second['tokens']:,} tokens"
        pairs.append(("OOV in second text", rate))
    render(pairs_table(pairs))
    for name in ("most_frequent", "least_frequent"):
        if content[name]:
            table = plain_table("<" + name.replace("_", " "), "count")
            for token, count in content[name]:
                table.add_row(visible(token), number(count))
            write("\n")
            render(table)
