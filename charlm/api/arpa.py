"""ARPA files: write the model of an n-gram run, and keep the model of a file as a run."""

import contextlib
import gzip
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from charlm.api.model import Model
from charlm.api.ngrams import RunText, keep_run, text_of_run
from charlm.backends.ngram_backend import NgramBackend
from charlm.config.corpus import VocabularySettings
from charlm.config.settings import Settings
from charlm.errors import UsageError, check_choice, named
from charlm.files.atomic import is_special, replaced
from charlm.ngrams.arpa import entry_names, unescaped, write_arpa
from charlm.ngrams.arpa_reader import Arpa, read_arpa
from charlm.ngrams.model import NgramModel
from charlm.phases import phase
from charlm.runs.data import corpus_record, fit_command
from charlm.runs.folders import check_name, check_writable
from charlm.runs.locate import checkpoints_folder, find_run
from charlm.text.boundaries import Boundaries
from charlm.text.dataset import Dataset
from charlm.text.encoded import EncodedText
from charlm.text.sources.names import safe_name
from charlm.text.tokenizers.tokenizer_json import LINE_END, UNK_TOKEN, eos_token
from charlm.text.tokenizers.vocabulary import Vocabulary, vocabulary_class
from charlm.text.tokenizers.words import BETWEEN_BLANKS
from charlm.units import count_of

METHOD = "from an ARPA file"
DOCUMENTS = ("line", "paragraph", "file", "stream")
"""Documents that the sentences of a file can be."""
UNITS_OF_FILES = ("word", "char")
"""Units that the entries of a file can be."""


def export_arpa(model: Model, out: Path) -> int:
    """Write the model of an n-gram run as an ARPA file, packed if its name ends with .gz.

    Return the number of n-grams. Raises UsageError for a network, EnvironmentFailure if the file
    cannot be written.
    """
    backend = model.run.backend
    if not isinstance(backend, NgramBackend):
        raise UsageError(
            f"{model.path.name} is the run of a network; expected an n-gram run. Fit one with: "
            + fit_command(model.path)
        )
    names = entry_names(model.run.text_vocabulary.tokens)
    with phase("writing the ARPA file"), replaced(out) as plain, _packed(plain, out) as file:
        write_arpa(file, backend.model, names)
    return sum(backend.model.sizes)


@contextlib.contextmanager
def _packed(file: IO[bytes], path: Path) -> Iterator[IO[bytes]]:
    """Pack what is written to a file whose name ends with .gz, but not to a device or pipe."""
    if path.suffix != ".gz" or is_special(path):
        yield file
        return
    with gzip.GzipFile("", "wb", 6, file, mtime=0) as packed:
        with io.BufferedWriter(cast(Any, packed), 1 << 20) as buffered:
            yield buffered


def import_arpa(
    path: Path,
    *,
    name: str | None = None,
    like: str | None = None,
    unit: str | None = None,
    document: str | None = None,
    checkpoints: Path | None = None,
    overwrite: bool = False,
    command: str = "",
) -> Model:
    """Keep the model of an ARPA file as a run, and return it.

    The entries are words between blanks, the lines of a text are its sentences. `like` takes the
    vocabulary and the documents from a run with the same entries instead. A file of characters
    needs `unit` "char"; a file that charlm wrote is recognised. `document` is "line" by default,
    and "stream" for a model without sentence ends. Raises CorpusError for a file that is damaged or
    does not fit.
    """
    for option, value, choices in (
        ("unit", unit, UNITS_OF_FILES), ("document", document, DOCUMENTS)
    ):  # fmt: skip
        if value is not None and like is not None:
            raise UsageError(
                f"{named(option)} {value} with {named('like')}, which takes it from the run; "
                f"expected one of the two. Leave out {named(option)}"
            )
        if value is not None:
            check_choice(option, value, choices)
    folder = checkpoints_folder(checkpoints)
    check_writable(folder)
    check_name(folder, name, overwrite=overwrite)
    text = text_of_run(find_run(like, folder, trained=False)) if like else None
    with phase(f"reading {path.name}"):
        own = None if text is None else entry_names(text.dataset.vocabulary.tokens)
        arpa = read_arpa(path, own)
    if text is None:
        vocabulary = _vocabulary(arpa, unit)
        text = _text_of_entries(path, vocabulary, document or "line")
        arpa.warnings.extend(_unread_entries(path, vocabulary))
    return keep_run(
        text, arpa.model, METHOD, folder=folder, name=name, overwrite=overwrite, command=command,
        notes=arpa.warnings,
    )  # fmt: skip


def _text_of_entries(path: Path, vocabulary: Vocabulary, document: str) -> RunText:
    """Return an empty text with the vocabulary of an ARPA file."""
    boundaries = Boundaries(
        document=document,
        line_end_is_eos=vocabulary.line_ends_are_eos,
        line_ends_inside=document == "line" and LINE_END in vocabulary.tokens[2:],
    )
    dataset = Dataset(
        name=safe_name(path.name.removesuffix(".gz").removesuffix(".arpa")),
        vocabulary=vocabulary,
        train=EncodedText.stream(np.empty(0, vocabulary.dtype)),
        valid=None,
        test=None,
        fingerprint="",
        boundaries=boundaries,
    )
    settings = replace(Settings(), vocabulary=vocabulary.settings)
    about = corpus_record(dataset, settings) | {"parts": {}}
    return RunText(dataset=dataset, settings=settings, origins={}, corpus=about)


def _vocabulary(arpa: Arpa, unit: str | None) -> Vocabulary:
    """Return the vocabulary of the entries of an ARPA file."""
    names = arpa.names
    entries = [unescaped(name) for name in names[2:]]
    single = all(len(entry) == 1 for entry in entries)
    unit = unit or ("char" if single and " " in entries else "word")
    words = "text"
    if unit == "word" and not (
        any(entry.isspace() for entry in entries) and _blanks_are_tokens(arpa.model, entries)
    ):
        words = "whitespace"  # such entries have no blanks: those that look escaped are not
        pairs = zip(names[2:], entries, strict=True)
        entries = [name if re.search(r"[\s\0]", entry) else entry for name, entry in pairs]
    settings = VocabularySettings(unit=unit, words=words)
    tokens = [UNK_TOKEN, eos_token(settings), *entries]
    return vocabulary_class(unit)(settings, tokens)


def _blanks_are_tokens(model: NgramModel, entries: Sequence[str]) -> bool:
    """Return False if the 2-grams show that blanks separate the tokens.

    Where blanks are tokens, no word of letters and digits follows another one. So a word spelled
    `\\s`, or a single U+00A0, in a file of another program is not taken for a blank.
    """
    if model.order == 1:
        return True
    is_word = np.array([False, False, *(entry.isalnum() for entry in entries), False])
    first, last = np.divmod(model.keys[0], model.vocab_size + 1)
    return not bool((is_word[first] & is_word[last]).any())


def _unread_entries(path: Path, vocabulary: Vocabulary) -> list[str]:
    """Return a warning of entries that texts never have, since they are cut at Unicode blanks."""
    if not vocabulary.line_ends_are_eos:
        return []
    parted = [entry for entry in vocabulary.tokens[2:] if BETWEEN_BLANKS.fullmatch(entry) is None]
    if not parted:
        return []
    tokens = count_of(len(parted), "token")
    return [
        f"{path.name}: {tokens} with a Unicode blank, such as {parted[0]!a:.60}. Other programs "
        "cut words at ASCII blanks only, charlm at all blanks, so it does not find these, and "
        "scores of texts with them differ"
    ]
