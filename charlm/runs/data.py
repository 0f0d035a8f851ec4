"""The text of a run, kept with it in encoded form so that it can resume without the corpus."""

import contextlib
import glob
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from charlm.commands import command, run_word
from charlm.config.corpus import CorpusSettings
from charlm.config.settings import Settings, settings_from
from charlm.config.tasks import TASKS
from charlm.errors import CorpusError, RunError
from charlm.files.atomic import manifest_problems
from charlm.runs.built_in import shipped_sources
from charlm.runs.layout import (
    CONFIG,
    RECORD,
    TOKENIZER,
    TOKENIZERS,
    WEIGHTS,
    read_config,
    read_manifest,
    read_record,
)
from charlm.runs.shapes import shown
from charlm.text.boundaries import Boundaries
from charlm.text.conditioned import with_firsts
from charlm.text.corpus import Corpus
from charlm.text.dataset import SPLITS, Dataset, load_dataset, text_fingerprint
from charlm.text.encoded import read_encoded, write_encoded
from charlm.text.idcache import CACHED_FROM_BYTES
from charlm.text.sources.hub import HUB_PREFIX
from charlm.text.sources.names import literal_folders, reads_once
from charlm.text.sources.rows import Columns
from charlm.text.task_text import Given, text_for
from charlm.text.tokenizers.vocabulary import Vocabulary, load_vocabulary

READ_AGAIN_BYTES = 100 << 20
"""Size up to which a text is read again to check if it has changed, even if its files are old."""


def corpus_record(dataset: Dataset, settings: Settings) -> dict[str, Any]:
    """Return the description of the text in run.json: sources, SHA-256, sizes of the splits."""
    splits = {name: dataset.split(name) for name in SPLITS}
    beside = dataset.labelled
    counted = beside if TASKS[settings.task.task].labelled else None
    return {
        "name": dataset.name,
        "sources": absolute(settings.corpus.sources),
        "valid": absolute(settings.corpus.valid),
        "test": absolute(settings.corpus.test),
        "document": dataset.boundaries.document,
        "fingerprint": dataset.fingerprint,
        "coverage": dataset.coverage,
        **({"columns": columns} if (columns := dataset.columns.record()) else {}),
        "vocabulary": len(dataset.vocabulary),
        "parts": {
            name: {
                "tokens": len(split.ids),
                "documents": split.documents,
                "chars": split.counts.chars,
                "bytes": split.counts.bytes,
                "words": split.counts.words,
                **({"targets": counted.total(name)} if counted else {}),
            }
            for name, split in splits.items()
            if split is not None
        },
    } | (beside.record() if beside else {})


def absolute(names: Iterable[str]) -> list[str]:
    """Return names of texts that lead to them from any folder."""
    return [_absolute(name) for name in names]


def _absolute(name: str) -> str:
    """Return the absolute name of a text, or the name itself if it is not a file."""
    if name == "-" or name.startswith(HUB_PREFIX):
        return name
    path = name
    if Path(name).exists():
        path = str(Path(name).resolve())
    elif not Path(name).is_absolute():  # a pattern
        folder, pattern = literal_folders(name)
        path = f"{glob.escape(str(Path.cwd()))}/{glob.escape(folder)}{pattern}"
    with contextlib.suppress(UnicodeEncodeError):  # a folder whose name is not UTF-8
        path.encode("utf-8")
        return path
    return name


def write_data(path: Path, dataset: Dataset, settings: CorpusSettings) -> None:
    """Keep the encoded text with the run, and what lies beside it.

    A large text with nothing beside it is left out, and then read again, if it can be: a text in
    memory, or one that came from standard input, cannot.
    """
    names = (*settings.sources, *settings.valid, *settings.test)
    kept = dataset.labelled is not None or not settings.sources or any(map(reads_once, names))
    for name in SPLITS:
        split = dataset.split(name)
        if split is None or (not kept and split.ids.nbytes > CACHED_FROM_BYTES):
            continue
        write_encoded(path / "data" / name, split)
        if dataset.labelled:
            dataset.labelled.write(path / "data" / name, name)


def read_data(
    path: Path, settings: Settings, vocabulary: Vocabulary, record: Mapping[str, Any]
) -> Dataset:
    """Return the text of a run: kept with it, or encoded again from its sources.

    Raises RunError if the kept text has changed, CorpusError if the sources have.
    """
    corpus = record["corpus"]
    if sources := shipped_sources(path):
        corpus = {**corpus, "sources": sources}
    if "train" not in corpus["parts"] or not set(SPLITS).issuperset(corpus["parts"]):
        raise RunError(f"{path / RECORD}: parts are {shown(list(corpus['parts']))}; expected train")
    config = read_config(path)
    boundaries = Boundaries.from_config(config, vocabulary)
    unk_types = config.get("unk_types")
    folders = {name: path / "data" / name for name in corpus["parts"]}
    if not all((folder / "counts.json").exists() for folder in folders.values()):
        check_unchanged(path, (CONFIG, *TOKENIZERS))
        dataset = _read_again(path, settings, vocabulary, corpus)
        return replace(dataset, boundaries=boundaries, unk_types=unk_types)
    check_unchanged(path)
    splits = {name: read_encoded(folder) for name, folder in folders.items()}
    for name, split in splits.items():
        if len(split.ids) != corpus["parts"][name]["tokens"] or not split.fits(len(vocabulary)):
            raise CorpusError(f"{folders[name]}: not the text that run.json describes; delete it")
    beside = text_for(settings)
    dataset = Dataset(
        name=corpus["name"],
        vocabulary=vocabulary,
        labelled=beside.read(path, config, splits) if beside else None,
        train=splits["train"],
        valid=splits.get("valid"),
        test=splits.get("test"),
        fingerprint=corpus["fingerprint"],
        boundaries=boundaries,
        unk_types=unk_types,
        columns=Columns(**corpus.get("columns", {})),
    )
    return with_firsts(dataset) if settings.task.condition else dataset


def more_vocabularies(path: Path) -> dict[str, Vocabulary]:
    """Return the vocabularies of a run beside tokenizer.json, by the names of their files."""
    names = (name for name in TOKENIZERS[1:] if (path / name).exists())
    return {name: load_vocabulary(path / name) for name in names}


def has_text(path: Path) -> bool:
    """Return whether the text of a run was kept, or seems to be where the run read it."""
    if (path / "data" / "train").exists() or shipped_sources(path):
        return True
    names = read_record(path)["corpus"]["sources"]
    return bool(names) and all(
        name.startswith(HUB_PREFIX) or glob.has_magic(name) or Path(name).exists() for name in names
    )


def fit_command(path: Path) -> str:
    """Return the command that fits n-grams for a run, on another TEXT if its own is gone."""
    if has_text(path):
        return command("ngram", "--like", run_word(path), "--name", "NAME")
    return command("ngram", "TEXT", "--vocab", path / TOKENIZER, "--name", "NAME")


def text_changed(settings: CorpusSettings, record: Mapping[str, Any]) -> bool:
    """Return whether the text that the settings name differs from the text of a run.

    Large files that are older than the run are not read. Text that is gone or cannot be read
    again, such as standard input, counts as unchanged.
    """
    names = (*settings.sources, *settings.valid, *settings.test)
    if any(name.startswith(HUB_PREFIX) or reads_once(name) for name in names):
        return False
    corpus = record["corpus"]
    created = datetime.fromisoformat(record["created"]).timestamp()
    try:
        opened = Corpus(names, document=corpus["document"], reading=settings)
        stamps = [stamp for stamp in opened.stamps() if stamp]
        older = all(changed < 1e9 * created for _, changed, *_ in stamps)
        if older and sum(size for size, *_ in stamps) > READ_AGAIN_BYTES:
            return False
        chosen = settings_from(record["settings"])
        if beside := text_for(chosen):
            return bool(beside.fingerprint(settings, chosen.task) != corpus["fingerprint"])
        return bool(text_fingerprint(settings, corpus["document"]) != corpus["fingerprint"])
    except CorpusError:
        return False


def weights_problem(path: Path) -> str:
    """Return what is wrong with the best weights of a run; empty if they are intact or missing."""
    entry = _manifest_files(path).get(WEIGHTS)
    if entry is None or not (path / WEIGHTS).is_file():
        return ""
    return "".join(manifest_problems(path, {"files": {WEIGHTS: entry}}))


def _manifest_files(path: Path) -> dict[str, Any]:
    files = read_manifest(path).get("files")
    return files if isinstance(files, dict) else {}


def check_unchanged(path: Path, names: Collection[str] = ()) -> None:
    """Raise RunError if a file that must not change has changed; check these names, or all."""
    entries = {
        name: entry
        for name, entry in _manifest_files(path).items()
        if name in names or (not names and name != WEIGHTS)
    }
    problems = manifest_problems(path, {"files": entries})
    if problems:
        raise RunError(f"{problems[0]}. Restore the run from a copy, or start a new one")


def _read_again(
    path: Path, settings: Settings, vocabulary: Vocabulary, corpus: Mapping[str, Any]
) -> Dataset:
    if not settings.corpus.sources or not corpus["sources"]:
        raise RunError(
            f"the text of {corpus['name']} that was kept with the run is gone, and run.json names "
            "no other; expected the folder data. Restore the run from a copy"
        )
    given = settings.corpus
    sources = replace(
        given,
        sources=tuple(corpus["sources"]),
        valid=tuple(corpus.get("valid", given.valid)),  # older runs have none of these
        test=tuple(corpus.get("test", given.test)),
    )
    for name in (*sources.sources, *sources.valid, *sources.test):
        if Path(name).is_fifo():
            raise CorpusError(f"{name} is a named pipe; expected the text that the run began with")
        if name == "-" and sys.stdin.isatty():
            raise CorpusError("the text came from stdin; expected it there again")
        is_file = name != "-" and not name.startswith(HUB_PREFIX) and not glob.has_magic(name)
        if is_file and not Path(name).exists():
            raise CorpusError(
                f"{name} is not there; expected the text that the run began with, or a link to it: "
                "the run keeps no copy"
            )
    if beside := text_for(settings):
        kept = Given(vocabulary=vocabulary, more=more_vocabularies(path))
        dataset = beside.load(replace(settings, corpus=sources), kept)
    else:
        words = settings.vocabulary
        dataset = load_dataset(sources, words, vocabulary=vocabulary, count_types=False)
    if dataset.fingerprint != corpus["fingerprint"]:
        raise CorpusError(
            f"{corpus['name']} has changed since the run began (its SHA-256 differs); "
            "expected the same text. Start a new run for the new text"
        )
    return dataset
