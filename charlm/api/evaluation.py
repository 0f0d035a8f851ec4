"""Evaluation of a model on its held-out text or on files, plain and with adaptation methods."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from charlm.api.loading import load_model
from charlm.api.methods import Methods
from charlm.api.mixtures import evaluate_mixture, ngram_run
from charlm.api.model import Model
from charlm.config.corpus import ReadSettings
from charlm.errors import CorpusError, UsageError
from charlm.inference.likelihood import evaluate, tally, text_nats
from charlm.phases import phase
from charlm.runs.columns import run_columns
from charlm.runs.layout import CONDITIONS
from charlm.runs.locate import checkpoints_folder
from charlm.runs.mixtures import check_members, load_members, member_name
from charlm.runs.run import Run
from charlm.text.corpus import Corpus
from charlm.text.encoded import EncodedText
from charlm.units import Tally


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Tallies of texts: `plain` by the name of the text, `adapted` by "text, method".

    `notes` are about the text and about settings that were fitted.
    """

    protocol: str
    plain: dict[str, Tally]
    adapted: dict[str, Tally]
    notes: list[str]


def evaluate_run(
    model: Model,
    files: Sequence[str] | None = None,
    *,
    document: str | None = None,
    reading: Mapping[str, Any] | None = None,
    reset_every: int | None = None,
    methods: Methods | None = None,
) -> Evaluation:
    """Return the tallies of files, or of the text that the run held out.

    `document` and `reading` (fields of `ReadSettings`) say how files are read, by default as in
    training. `reset_every` resets the state after that many tokens. Raises UsageError if the run
    keeps too little text, CorpusError for a text that is empty or cannot be read.
    """
    methods = methods or Methods()
    names, others, weights = _mixed_in(model, methods)
    adaptation = None
    if methods.in_torch:
        from charlm.api.adaptation import Adaptation

        adaptation = Adaptation(model, methods)
    notes: list[str] = []
    if files:
        texts = {"text": _read(model, run_corpus(model.run, files, reading, document), notes)}
    else:
        texts = held_out_texts(model)
    nats = {}
    for name, text in texts.items():
        with phase(f"evaluating: {name}", total=len(text.ids)):
            nats[name] = text_nats(model.run.backend, text, reset_every=reset_every)
    plain = {name: tally(text, nats[name]) for name, text in texts.items()}
    adapted = adaptation.tallies(texts) if adaptation else {}
    notes += adaptation.notes if adaptation else []
    if model.weights != "fp32":
        notes += _cost_of_weights(model, texts, plain, reset_every)
    if others:
        runs = [model.run, *others]
        mixed = evaluate_mixture(names, runs, weights, texts, nats, reset_every)
        plain, adapted = plain | mixed.plain, adapted | mixed.adapted
        notes.append(mixed.note)
    protocol = "one full pass, state carried"
    if reset_every:
        protocol = f"windows of {reset_every} tokens, each from the zero state"
    return Evaluation(protocol=protocol, plain=plain, adapted=adapted, notes=notes)


def _mixed_in(model: Model, methods: Methods) -> tuple[list[str], list[Run], list[float | None]]:
    """Return the names of the model and of the runs to mix in, these runs, and their weights.

    A weight that was not given is None. Raises UsageError for runs that cannot be mixed.
    """
    others, weights = load_members(
        model.path,
        methods.others,
        checkpoints_folder(methods.checkpoints),
        condition=model.condition,
    )
    check_members([model.run, *others])
    names = [model.path.name, *(member_name(model.path, other.path) for other in others)]
    if methods.ngram:
        names.append(f"{methods.ngram}-gram")
        others, weights = [*others, ngram_run(model.run, methods.ngram)], [*weights, None]
    return names, others, weights


def held_out_texts(model: Model) -> dict[str, EncodedText]:
    """Return the validation and test text that a run keeps. Raises UsageError if it keeps none."""
    kept = {name: model.run.kept(name) for name in ("valid", "test")}
    texts = {name: text for name, text in kept.items() if text is not None}
    if not texts:
        raise UsageError("this run keeps no held-out text; expected one to evaluate. Use --file")
    return texts


def run_corpus(
    run: Run, files: Sequence[str], reading: Mapping[str, Any] | None, document: str | None = None
) -> Corpus:
    """Return files as a corpus that is read as the training text of a run was.

    `reading` (fields of `ReadSettings`) and `document` replace settings of the run.
    """
    rules = ReadSettings(**{"keep_cr": run.boundaries.crlf, **(reading or {})})
    document = document or run.boundaries.document
    return Corpus(files, document=document, reading=rules, columns=run_columns(run.path))


def _read(model: Model, corpus: Corpus, notes: list[str]) -> EncodedText:
    with phase("encoding the text"):
        text = model.run.encode(corpus)
    notes += corpus.warnings
    if not len(text.ids):
        raise CorpusError("the text is empty; expected at least one token. Use another --file")
    notes += _unread_conditions(model, corpus)
    return text


def _unread_conditions(model: Model, corpus: Corpus) -> list[str]:
    """Return a sentence about the column of conditions of a table, if its first row has one."""
    column = model.config.get(CONDITIONS, {}).get("column")
    first = next(corpus.records(), None)
    if column is None or first is None or column not in first.cells:
        return []
    condition = "no condition" if model.condition is None else f"the condition {model.condition}"
    return [
        f"the column {column!r:.80} was not read: every text was evaluated with {condition}. For "
        "the figures of one condition, give a file of its texts"
    ]


def _cost_of_weights(
    model: Model,
    texts: Mapping[str, EncodedText],
    tallies: Mapping[str, Tally],
    reset_every: int | None,
) -> list[str]:
    """Compare the loss with that of the fp32 weights, in one sentence for each text."""
    exact = load_model(model.path, condition=model.condition).run.backend
    sentences = []
    for name, text in texts.items():
        before = evaluate(exact, text, reset_every=reset_every).nats_per_token
        after = tallies[name].nats_per_token
        sentences.append(
            f"{name}: {after:.5f} nats/token with {model.run.backend.name} weights, "
            f"{before:.5f} with fp32 ({after - before:+.5f})"
        )
    return sentences
