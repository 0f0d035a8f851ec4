"""N-gram models from Python: `ngram` fits one and keeps it as a run."""

import contextlib
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from charlm.api.loading import load_model
from charlm.api.model import Model
from charlm.api.training import checked_sources, text_in_memory
from charlm.config.flags import by_section, check_frozen, names_given
from charlm.config.settings import Nested, Settings, settings_from
from charlm.config.text_units import UNITS
from charlm.config.training import MAX_ORDER
from charlm.config.unused import drop_unused
from charlm.errors import UsageError, check_count, named, naming
from charlm.files.atomic import explained
from charlm.ngrams.kneser_ney import METHOD, Discounts
from charlm.ngrams.model import NgramModel
from charlm.phases import phase
from charlm.runs.built_in import built_in_text
from charlm.runs.data import corpus_record, read_data, write_data
from charlm.runs.folders import check_name, check_writable, new_folder, remove_run
from charlm.runs.layout import TOKENIZER, home, no_text, read_config, read_record
from charlm.runs.locate import checkpoints_folder, find_run
from charlm.runs.ngram_runs import fit_text, ngram_record, write_ngram_run
from charlm.text.conditioned import without_firsts
from charlm.text.dataset import Dataset, load_dataset
from charlm.text.tokenizers.vocabulary import load_vocabulary

TEXT_SECTIONS = ("corpus", "vocabulary")
"""Sections of settings that an n-gram model has."""


@dataclass(frozen=True, kw_only=True)
class RunText:
    """Text of a run that is to be written, its description for run.json, and its direction."""

    dataset: Dataset
    settings: Settings
    origins: dict[str, str]
    corpus: dict[str, Any]
    direction: str = "forward"


def ngram(
    *sources: str | Path,
    text: str | None = None,
    like: str | Path | None = None,
    order: int | None = None,
    name: str | None = None,
    checkpoints: str | Path | None = None,
    vocab: str | Path | None = None,
    overwrite: bool = False,
    **settings: Any,
) -> Model:
    """Fit a modified Kneser-Ney n-gram model, keep it as a run, and return it.

    The text is that of files, a `text` in memory, or that of the run `like`, whose vocabulary,
    documents and direction are used too, so that the two can be compared and mixed. `order` is the
    length of the n-grams (5; 7 for characters and bytes). Settings are those of `charlm.fit` for a
    text and its vocabulary: `ngram("a.txt", unit="word", document="line")`. Other options are as in
    `fit`. Raises a subclass of CharlmError.
    """
    given = by_section({"sources": checked_sources(sources), **settings})
    with naming(names_given(settings)):
        return fit_run(
            given, text=text, like=like, order=order, name=name, checkpoints=checkpoints,
            vocab=vocab, overwrite=overwrite,
        )  # fmt: skip


def fit_run(
    given: Nested,
    *,
    text: str | None = None,
    like: str | Path | None = None,
    order: int | None = None,
    name: str | None = None,
    checkpoints: str | Path | None = None,
    vocab: str | Path | None = None,
    overwrite: bool = False,
    command: str = "",
) -> Model:
    """Fit an n-gram model as in `ngram`, with settings by section, and return it.

    `command` is kept in the record.
    """
    folder = checkpoints_folder(checkpoints)
    if order is not None:
        check_count("order", order, 1)
        if order > MAX_ORDER:
            raise UsageError(f"{named('order')} is {order}; expected at most {MAX_ORDER}")
    check_writable(folder)
    check_name(folder, name, overwrite=overwrite)
    if like is None:
        run_text = _given_text(given, text, None if vocab is None else Path(vocab))
    elif given or text is not None or vocab:
        raise UsageError(
            f"{named('like')} takes the text, the vocabulary and their settings from the run; "
            f"expected no others beside it. Leave out {named('like')}, or the others"
        )
    else:
        run_text = text_of_run(find_run(str(like), folder, trained=False))
    begin = time.perf_counter()
    vocabulary = run_text.dataset.vocabulary
    order = order or UNITS[vocabulary.unit].ngram_order
    model, discounts = fit_text(run_text.dataset.train, vocabulary, order, run_text.direction)
    return keep_run(
        run_text, model, METHOD, folder=folder, name=name, overwrite=overwrite, command=command,
        seconds=time.perf_counter() - begin, discounts=discounts,
    )  # fmt: skip


def keep_run(
    text: RunText,
    model: NgramModel,
    method: str,
    *,
    folder: Path,
    name: str | None,
    overwrite: bool,
    command: str,
    notes: Sequence[str] = (),
    seconds: float = 0.0,
    discounts: Sequence[Discounts] = (),
) -> Model:
    """Write an n-gram model and its text as a new run in `folder`, and load it.

    `method` names the origin of the model, for people.
    """
    record = {
        "command": command,
        "settings": {section: asdict(getattr(text.settings, section)) for section in TEXT_SECTIONS},
        "origins": text.origins,
        "corpus": text.corpus,
        "ngrams": ngram_record(model, method, discounts),
        "results": {
            "step": 0,
            "seconds": seconds,
            "reason": method,
            "notes": [*text.dataset.warnings, *notes],
        },
    }
    if name and overwrite:
        remove_run(folder / name)
    path, lock = new_folder(folder, name, f"{text.dataset.name}-{model.order}-gram")
    with lock, contextlib.ExitStack() as on_error:
        on_error.callback(shutil.rmtree, path, ignore_errors=True)
        if len(text.dataset.train.ids):
            with explained(path), phase("writing the encoded text"):
                write_data(path, text.dataset, text.settings.corpus)
        write_ngram_run(path, text.dataset, model, record, text.direction)
        on_error.pop_all()
    return load_model(path)


def _given_text(given: Nested, text: str | None, vocab: Path | None) -> RunText:
    """Read the text that settings name, or a text in memory."""
    others = [name for section in given.keys() - set(TEXT_SECTIONS) for name in given[section]]
    if others:
        raise UsageError(
            f"{named(min(others))} is a setting of networks; expected settings of the text and of "
            f"its vocabulary. Leave out {named(min(others))}"
        )
    check_frozen(vocab, given)
    origins = {f"{section}.{name}": "flag" for section, each in given.items() for name in each}
    settings = drop_unused(settings_from(given), origins)
    corpus = None if text is None else text_in_memory(text, settings.corpus)
    if corpus is None and not settings.corpus.sources:
        sources = (str(built_in_text()),)
        settings = replace(settings, corpus=replace(settings.corpus, sources=sources))
    frozen = load_vocabulary(vocab) if vocab else None
    dataset = load_dataset(settings.corpus, settings.vocabulary, corpus=corpus, vocabulary=frozen)
    settings = replace(settings, vocabulary=dataset.vocabulary.settings)
    about = corpus_record(dataset, settings)
    return RunText(dataset=dataset, settings=settings, origins=origins, corpus=about)


def text_of_run(path: Path) -> RunText:
    """Read the text of a run again, with its vocabulary."""
    config, path = read_config(path), home(path)
    record = read_record(path)
    settings = settings_from(record["settings"])
    if UNITS[settings.vocabulary.unit].numeric:
        raise no_text(path)
    vocabulary = load_vocabulary(path / TOKENIZER)
    return RunText(
        dataset=without_firsts(read_data(path, settings, vocabulary, record)),
        settings=settings,
        origins={
            name: origin
            for name, origin in record.get("origins", {}).items()
            if name.partition(".")[0] in TEXT_SECTIONS
        },
        corpus={name: about for name, about in record["corpus"].items() if name != "labels"},
        direction="backward" if config["model"].get("direction") == "backward" else "forward",
    )
