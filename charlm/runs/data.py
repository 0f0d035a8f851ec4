"""The text of a run: kept with it in encoded form, so that it can go on without the corpus."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from charlm.config import Settings
from charlm.errors import CorpusError, RunError
from charlm.runs.commit import manifest_problems
from charlm.runs.layout import RECORD, WEIGHTS, read_manifest
from charlm.runs.shapes import shown
from charlm.text.dataset import SPLITS, Dataset, load_dataset
from charlm.text.encoded import read_encoded, write_encoded
from charlm.text.idcache import CACHED_FROM_BYTES
from charlm.text.vocabulary import Vocabulary


def corpus_record(dataset: Dataset, settings: Settings) -> dict[str, Any]:
    """What run.json tells of the text: where it came from, its SHA-256, the size of each part."""
    parts = {name: dataset.split(name) for name in SPLITS}
    return {
        "name": dataset.name,
        "sources": [
            str(Path(s).resolve()) if Path(s).exists() else s for s in settings.corpus.sources
        ],
        "document": dataset.document,
        "fingerprint": dataset.fingerprint,
        "coverage": dataset.coverage,
        "vocabulary": len(dataset.vocabulary),
        "parts": {
            name: {
                "tokens": len(part.ids),
                "documents": part.documents,
                "chars": part.counts.chars,
                "bytes": part.counts.bytes,
                "words": part.counts.words,
            }
            for name, part in parts.items()
            if part is not None
        },
    }


def write_data(path: Path, dataset: Dataset) -> None:
    """Keep the encoded text with the run, unless it is large: then the corpus is needed again."""
    for name in SPLITS:
        part = dataset.split(name)
        if part is not None and part.ids.nbytes <= CACHED_FROM_BYTES:
            write_encoded(path / "data" / name, part)


def read_data(
    path: Path, settings: Settings, vocabulary: Vocabulary, record: Mapping[str, Any]
) -> Dataset:
    """The text of a run: as kept with it, else encoded again from its sources.

    Raises RunError when what is kept has changed, CorpusError when the sources have.
    """
    corpus = record["corpus"]
    if "train" not in corpus["parts"] or not set(SPLITS).issuperset(corpus["parts"]):
        raise RunError(f"{path / RECORD}: parts are {shown(list(corpus['parts']))}; expected train")
    folders = {name: path / "data" / name for name in corpus["parts"]}
    if not all((folder / "counts.json").exists() for folder in folders.values()):
        return _read_again(settings, vocabulary, corpus)
    _check_unchanged(path)
    parts = {name: read_encoded(folder) for name, folder in folders.items()}
    for name, part in parts.items():
        if len(part.ids) != corpus["parts"][name]["tokens"] or not part.fits(len(vocabulary)):
            raise CorpusError(f"{folders[name]}: not the text that run.json tells of; delete it")
    return Dataset(
        name=corpus["name"],
        document=corpus["document"],
        vocabulary=vocabulary,
        train=parts["train"],
        valid=parts.get("valid"),
        test=parts.get("test"),
        fingerprint=corpus["fingerprint"],
    )


def _check_unchanged(path: Path) -> None:
    """Raise RunError when a file that must not change in a run has changed."""
    files = read_manifest(path).get("files")
    known = files if isinstance(files, dict) else {}
    entries = {name: entry for name, entry in known.items() if name != WEIGHTS}
    problems = manifest_problems(path, {"files": entries})
    if problems:
        raise RunError(f"{problems[0]}. Restore the run from a copy, or start a new one")


def _read_again(settings: Settings, vocabulary: Vocabulary, corpus: Mapping[str, Any]) -> Dataset:
    if not settings.corpus.sources or not corpus["sources"]:
        raise RunError(
            f"the text of {corpus['name']} that was kept with the run is gone, and run.json names "
            "no other; expected the folder data. Restore the run from a copy"
        )
    for name in corpus["sources"]:
        if Path(name).is_fifo():
            raise CorpusError(f"{name} is a named pipe; expected the text that the run began with")
    sources = replace(settings.corpus, sources=tuple(corpus["sources"]))
    dataset = load_dataset(sources, settings.vocabulary, vocabulary=vocabulary)
    if dataset.fingerprint != corpus["fingerprint"]:
        raise CorpusError(
            f"{corpus['name']} has changed since the run began (its SHA-256 is another one); "
            "expected the same text. Start a new run for the new text"
        )
    return dataset
