"""Training of translators: the loss, runs, plans, and toys that are learned."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import nested
from task_sessions import check_resumed, finished, weights
from torch.nn import functional as F

from charlm.api.sessions import Request, plan_run, start_run
from charlm.config.settings import Settings, settings_from
from charlm.errors import CharlmError, UsageError
from charlm.files.atomic import write_json
from charlm.inference.translation_counts import TranslationCounts
from charlm.nn.devices import Precision
from charlm.nn.encoder import Encoder
from charlm.nn.task_models import build_model
from charlm.report.run_list import run_lines
from charlm.report.translations import figures_text
from charlm.runs.data import read_data
from charlm.runs.layout import RECORD, read_config, read_record
from charlm.runs.overview import list_runs
from charlm.runs.run import torch_model
from charlm.runs.translate_run import load_translate_run
from charlm.tasks.translate import TranslateLoss, TranslateValidation
from charlm.text.batches import PADDING
from charlm.text.corpus import Corpus
from charlm.text.pair_batches import pair_batch
from charlm.text.parallel import Parallel
from charlm.text.task_text import gold_of
from charlm.text.tokenizers.vocabulary import load_vocabulary
from charlm.training.records import FinishedRecord, Review
from charlm.training.resume import halves, resume
from charlm.training.session import Session

TINY: dict[str, Any] = {
    "batch_size": 8, "seed": 1, "threads": 1, "precision": "fp32", "steps": 6, "evals": 2,
    "hidden_size": 4, "embedding_size": 4, "dropout": 0.0,
}  # fmt: skip


def toys(kind: str, number: int) -> list[tuple[str, str]]:
    """Return distinct words of one to six of four letters, with their copy or their reverse."""
    random = np.random.default_rng(7)
    words: dict[str, None] = {}
    while len(words) < number:
        words["".join(random.choice(list("abcd"), random.integers(1, 7)))] = None
    return [(word, word if kind == "copy" else word[::-1]) for word in words]


def new_run(folder: Path, examples: list[tuple[str, str]] | None = None, **options: Any) -> Session:
    """Start a run on pairs in memory."""
    about = {name: options.pop(name, None) for name in ("name", "start_from")}
    values = {name: value for name, value in (TINY | options).items() if value is not None}
    flags = nested(task="translate", **values)
    request = Request(flags=flags, checkpoints=folder, **about)
    return start_run(request, examples=examples or toys("copy", 60))


def run_settings(path: Path) -> Settings:
    return settings_from(read_record(path)["settings"])


@pytest.fixture(scope="module")
def reversing(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, FinishedRecord]:
    """Return a run that has learned to reverse words, and its last record."""
    session = new_run(
        tmp_path_factory.mktemp("runs"), toys("reverse", 900), hidden_size=32, embedding_size=32,
        batch_size=32, steps=280, evals=2, learning_rate=0.01,
    )  # fmt: skip
    return session.path, finished(session)


def test_words_are_reversed(reversing: tuple[Path, FinishedRecord]) -> None:
    valid = reversing[1].valid
    assert isinstance(valid, TranslationCounts)
    assert (valid.texts, valid.exact) == (90, 1.0)
    assert valid.nats_per_token < 0.05
    floors = read_record(reversing[0])["floors"]["copy"]["valid"]
    assert floors["exact"] < 0.5 < 1.0
    assert (review := reversing[1].review)
    assert review.train.keys() == {"nats_per_token"} and review.train["nats_per_token"] < 0.05
    assert not any("copy of the source" in line for line in review.advice)


def test_the_loss_comes_first_and_bleu_is_for_sentences() -> None:
    """Outputs are only made at the end; short texts have no runs of four words."""
    figures, long = (
        TranslationCounts.of([text], [text], nats=1.0, tokens=2).summary()
        for text in ("ab" * 19, "ab" * 20)
    )
    during = TranslationCounts(nats=1.0, tokens=2).summary()
    assert figures_text(during) == "0.5000 nats/token"
    assert figures_text(during | {"nats_per_token": 2.06e-5}) == "2.1e-05 nats/token"
    assert "BLEU" in figures_text(long) and figures_text(long).startswith("chrF 100.0 (")
    short = figures_text(figures)
    assert "BLEU" not in short and short.startswith("exact 1.000 (0.207 to 1.000), chrF 100.0")
    old = {key: value for key, value in figures.items() if key != "reference_letters"}
    assert figures_text(old).startswith("chrF")


def test_every_report_has_the_same_headline(
    reversing: tuple[Path, FinishedRecord], tmp_path: Path
) -> None:
    """The list of runs showed chrF of dates and sums, whose other reports begin with exact."""
    path = Path(shutil.copytree(reversing[0], tmp_path / "runs" / "own"))
    for letters in (3.5, 40.0, None):
        record = read_record(path)
        record["results"]["valid"]["reference_letters"] = letters
        write_json(path / RECORD, record)
        listed = run_lines(list_runs(path.parent), 0.0, 100).plain.splitlines()[1]
        head = figures_text(record["results"]["valid"]).split(" (")[0]
        assert head.startswith("exact 1.000" if letters == 3.5 else "chrF 100.0") and head in listed


def test_words_are_copied(tmp_path: Path) -> None:
    sizes = {"hidden_size": 32, "embedding_size": 32, "batch_size": 32, "learning_rate": 0.01}
    last = finished(new_run(tmp_path, toys("copy", 900), **(sizes | {"steps": 160, "evals": 1})))
    assert isinstance(last.valid, TranslationCounts)
    assert last.valid.exact == 1.0


def test_recorded_figures_are_those_of_the_files(reversing: tuple[Path, FinishedRecord]) -> None:
    path = reversing[0]
    run = load_translate_run(path)
    assert run.translate(["abcd", "dda"])[0].text == "dcba"
    pairs = run.kept("valid")
    assert pairs is not None
    recorded = read_record(path)["results"]["valid"]
    assert recorded["bleu"] == run.evaluate(pairs)[0].bleu
    assert read_config(path)["task"] == {
        "name": "translate", "both_ways": True, "target_size": len(run.languages.target),
    }  # fmt: skip
    dataset = read_data(path, run_settings(path), run.vocabulary, read_record(path))
    assert gold_of(dataset, Parallel).pairs["valid"] == pairs.pairs


def test_validation_gives_the_nats_of_the_search(reversing: tuple[Path, FinishedRecord]) -> None:
    """Teacher forcing in torch is step by step in numpy."""
    path = reversing[0]
    pairs = load_translate_run(path).kept("valid")
    assert pairs is not None
    config = read_config(path)
    model: Any = build_model(run_settings(path).model, config["vocab_size"], config["task"])
    model.load_state_dict(weights(path))
    found = TranslateValidation(pairs.sources, pairs.targets)(model)
    recorded = read_record(path)["results"]["valid"]
    assert found.nats == pytest.approx(recorded["nats"], rel=1e-4)
    assert found.tokens == recorded["tokens"] == len(pairs.targets.ids)


def test_a_resumed_run_equals_one_that_never_stopped(tmp_path: Path) -> None:
    def stopped(path: Path) -> None:
        results = read_record(path)["results"]["valid"]
        assert results["texts"] == 0  # no one who interrupts a run waits for outputs
        assert results["tokens"] > 0

    about = {"dropout": 0.3, "label_smoothing": 0.1}
    check_resumed(lambda name: new_run(tmp_path, name=name, **about), stopped)


def test_a_run_resumes_from_its_sources_if_its_copy_is_gone(tmp_path: Path) -> None:
    """Both vocabularies are those of the run."""
    table = tmp_path / "pairs.tsv"
    table.write_text("".join(f"{a}\t{b}\n" for a, b in [("en", "de"), *toys("copy", 60)]))
    flags = nested(task="translate", sources=[str(table)], **TINY)
    session = start_run(Request(flags=flags, checkpoints=tmp_path))
    for record in session.records():
        if record.kind == "evaluation":
            session.trainer.stop("interrupted")
    kept = gold_of(session.dataset, Parallel)
    shutil.rmtree(session.path / "data")
    again = resume(session.path)
    parallel = gold_of(again.dataset, Parallel)
    assert parallel.vocabulary.tokens == kept.vocabulary.tokens
    assert parallel.pairs == kept.pairs
    assert finished(again).reason == "complete"


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_cross_entropy_of_real_targets(smoothing: float, tmp_path: Path) -> None:
    session = new_run(tmp_path)
    session.lock.release()
    model: Any = session.trainer.model
    dataset = session.dataset
    batch = pair_batch(dataset.train, gold_of(dataset, Parallel).texts["train"], np.arange(7))
    exact = TranslateLoss(precision=Precision(name="fp32", reason=""), smoothing=smoothing)
    loss, nats, state = exact(model, batch, None, torch.Generator())
    loss, nats = loss / batch.tokens, nats / batch.tokens
    arrays = (batch.inputs, batch.lengths, batch.target_inputs)
    logits = model(*map(torch.from_numpy, arrays)).flatten(0, 1)
    targets = torch.from_numpy(batch.targets).flatten()
    expected = [
        F.cross_entropy(logits, targets, ignore_index=PADDING, label_smoothing=s)
        for s in (smoothing, 0.0)
    ]
    assert state == ()
    torch.testing.assert_close(torch.stack([loss, nats]), torch.stack(expected))


def test_both_sides_start_from_a_language_model(tmp_path: Path) -> None:
    """The encoders are its halves, to the bit; its vocabulary is that of the sources."""
    text = "".join(f"{word}\n" for word, _ in toys("copy", 60))
    flags = nested(**TINY, direction="both", bptt=4, ngram=0, calibrate=False, num_layers=1)
    found = Review(train={}, advice=[])
    request = Request(flags=flags, name="letters", checkpoints=tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("charlm.training.language.review", lambda *_: found)
        for half in halves(start_run(request, corpus=Corpus.from_text(text, "line"))):
            list(half.records())
    session = new_run(
        tmp_path, start_from=str(tmp_path / "letters"), hidden_size=None, embedding_size=None
    )
    session.lock.release()
    model: Any = session.trainer.model
    ids = torch.tensor([[1, 1], [4, 2], [5, 3]])
    for path, own in (("", model), ("backward", model.backward)):
        hidden, _ = Encoder.forward(own, ids)
        assert torch.equal(hidden, torch_model(tmp_path / "letters" / path).read(ids)[0])
    kept = load_vocabulary(tmp_path / "letters" / "tokenizer.json")
    assert session.dataset.vocabulary.tokens == kept.tokens


# ------------------------------------------------------------------ plans


def planned(folder: Path, pairs: list[tuple[str, str]], **options: Any) -> dict[str, Any]:
    """Return the record of a planned run on a table of these pairs."""
    path = folder / "pairs.tsv"
    rows = "".join(f"{a}\t{b}\n" for a, b in pairs)
    path.write_text(f"en\tde\n{rows}", encoding="utf-8")
    flags = nested(task="translate", sources=[str(path)], threads=1, **options)
    plan = plan_run(Request(flags=flags, checkpoints=folder))
    assert plan.problem is None
    return plan.record


def test_sizes_follow_from_the_unit(tmp_path: Path) -> None:
    short = planned(tmp_path, toys("copy", 60))
    assert short["settings"]["vocabulary"]["unit"] == "char"
    model = short["settings"]["model"]
    assert [model[n] for n in ("hidden_size", "embedding_size", "output_dropout")] == [64, 64, 0.1]
    assert "20,000" in short["origins"]["model.hidden_size"]
    long = [(a * 9, f"{b} " * 9) for a, b in toys("copy", 60)]
    record = planned(tmp_path, long, max_size=300)
    model = record["settings"]["model"]
    assert record["settings"]["vocabulary"]["unit"] == "bpe"
    assert [model[n] for n in ("hidden_size", "embedding_size", "dropout")] == [256, 256, 0.3]
    assert record["planned"]["memory_bytes"] > short["planned"]["memory_bytes"]
    chosen = planned(tmp_path, long, unit="word", hidden_size=5, dropout=0.2)["settings"]["model"]
    assert (chosen["hidden_size"], chosen["dropout"]) == (5, 0.2)


def test_a_pass_is_counted_in_target_tokens(tmp_path: Path) -> None:
    session = new_run(tmp_path)
    list(session.records())
    parts = read_record(session.path)["corpus"]["parts"]
    targets = gold_of(session.dataset, Parallel)
    assert parts["train"]["targets"] == targets.total("train") == session.trainer.task.batches.total
    assert 0 < session.trainer.counters.tokens <= 48 * 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"freeze": True}, "freeze"),
        ({"pooling": "last"}, "pooling=last has no effect with .*task translate"),
        ({"bptt": 5}, "bptt .*task translate"),
        ({"balance": True}, "balance=true has no effect with .*task translate"),
    ],
)
def test_settings_of_other_tasks_are_refused(options: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        new_run(tmp_path, **options)


def test_without_texts_the_way_to_them_is_named(tmp_path: Path) -> None:
    with pytest.raises(CharlmError, match="such as a table with --column en --target de, or two"):
        start_run(Request(flags=nested(task="translate"), checkpoints=tmp_path))
