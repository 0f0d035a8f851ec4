"""Fine-tuning: weights and vocabulary of another run, what is decided by it, and forgetting."""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import STRUCTURES, Call, nested, seeded, tiny_model
from task_sessions import trained

import charlm
from charlm.api.loading import load
from charlm.api.sessions import Request, plan_run, start_or_resume, start_run
from charlm.config.cells import CELLS
from charlm.errors import RunError, UsageError
from charlm.inference.likelihood import evaluate
from charlm.nn.encoder import saved_tensors
from charlm.nn.model import RecurrentLanguageModel
from charlm.report.repeating import repeat_command
from charlm.runs.layout import LOGIT_SCALE, read_config, read_record, write_record
from charlm.runs.model_files import write_logit_scale
from charlm.runs.public import public_record
from charlm.runs.run import torch_model
from charlm.runs.tensors import put_weights
from charlm.runs.verify import verify_run
from charlm.text.corpus import Corpus
from charlm.training.fine_tuning import add_rows, fold_scale, share
from charlm.training.records import EvaluationRecord, Review
from charlm.training.resume import resume
from charlm.training.session import Session

OLD = "the cat sat on the mat\nthe dog sat on a log\n" * 8
NEW = "the cow sat in the barn\na hen sat in the barn\n" * 8
TINY: dict[str, Any] = {
    "batch_size": 2, "bptt": 4, "seed": 1, "threads": 1, "precision": "fp32", "ngram": 0,
    "calibrate": False,
}  # fmt: skip
SIZES: dict[str, Any] = {"hidden_size": 4, "embedding_size": 4, "num_layers": 2}
UNK, EOS = 0, 1


def new_run(folder: Path, text: str, document: str = "", **options: Any) -> Session:
    """Start a run on a text in memory; `parent` and `mode` are those of fine-tuning."""
    parent, mode = options.pop("parent", None), options.pop("mode", None)
    name = options.pop("name", None)
    size = {} if parent else SIZES
    values = nested(**({"steps": 4} | TINY | size | options))
    request = Request(
        flags=values, name=name, checkpoints=folder, start_from=parent, vocabulary=mode
    )
    return start_run(request, corpus=Corpus.from_text(text, document or "stream"))


@pytest.fixture(autouse=True)
def no_review(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the samples at the end of each training, which take most of the time."""
    found = Review(train={}, advice=[])
    monkeypatch.setattr("charlm.training.language.review", lambda *_: found)


@pytest.fixture(scope="module")
def parents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with parents: a char run, and word runs with tied and untied weights."""
    folder = tmp_path_factory.mktemp("parents")
    words: dict[str, Any] = {"unit": "word", "min_count": 9, "frequency_bias": True}
    trained(new_run(folder, OLD, name="char", dropout=0.3, zoneout=0.1, learning_rate=0.01))
    trained(new_run(folder, OLD, name="learned", learning_rate=0.05, steps=60))
    trained(new_run(folder, OLD, name="tied", tie_weights=True, **words))
    trained(new_run(folder, OLD, name="untied", tie_weights=False, **words))
    return folder


@pytest.fixture
def folder(parents: Path, tmp_path: Path) -> Iterator[Path]:
    """Return a folder of its own with links to the parents."""
    for parent in parents.iterdir():
        (tmp_path / parent.name).symlink_to(parent)
    yield tmp_path


def probabilities(model: RecurrentLanguageModel, ids: torch.Tensor) -> torch.Tensor:
    logits, _ = model(ids, None)
    return logits.double().softmax(-1)


# ------------------------------------------------------------------ weights to start from


@pytest.mark.parametrize("tied", [False, True])
def test_entries_share_the_probability_of_unk(tied: bool) -> None:
    """No other probability changes, and the new ones are in proportion to their counts."""
    before = tiny_model(vocab_size=5, tie_weights=tied, embedding_size=3, scale=3.0)
    counts = np.array([3.0, 0, 9, 9, 9, 6, 1])
    tensors = {name: tensor.detach().clone() for name, tensor in saved_tensors(before).items()}
    add_rows(tensors, 2)
    share(tensors, UNK, [5, 6], counts)
    after = RecurrentLanguageModel(before.settings, 7)
    put_weights(after, tensors)
    ids = torch.randint(0, 5, (6, 3), generator=seeded(1))
    old, new = probabilities(before, ids), probabilities(after, ids)
    assert torch.allclose(old[..., 1:], new[..., 1:5], atol=2e-6)
    assert torch.allclose(old[..., UNK], new[..., [UNK, 5, 6]].sum(-1), atol=2e-6)
    assert torch.allclose(new[..., 5], 6.0 * new[..., 6], rtol=1e-5)
    assert torch.allclose(new[..., 5], 2.0 * new[..., UNK], rtol=1e-5)


@pytest.mark.parametrize("name", ["tied", "untied"])
def test_a_grown_run_begins_with_the_probabilities_of_its_parent(name: str, folder: Path) -> None:
    """The law holds for the files of a run; its calibration is folded in."""
    shutil.copytree(folder / name, folder / "scaled")
    write_logit_scale(folder / "scaled", 0.8)
    session = new_run(folder, NEW, parent="scaled", min_count=5)
    session.lock.release()
    parent, model = torch_model(folder / "scaled"), torch_model(session.path)
    vocabulary, size = session.dataset.vocabulary, parent.vocab_size
    assert vocabulary.tokens[:size] == load(folder / name).vocabulary.tokens
    assert set(vocabulary.tokens[size:]) == {"in", "barn", "a", "cow", "hen"}
    ids = torch.from_numpy(vocabulary.encode("the cat sat on the log").astype(np.int64))[:, None]
    logits, _ = parent(ids.where(ids < size, UNK), None)
    old, new = (0.8 * logits.double()).softmax(-1), probabilities(model, ids)
    assert (ids < size).all()
    assert torch.allclose(old[..., 1:], new[..., 1:size], atol=2e-6)
    added = new[..., [UNK, *range(size, len(vocabulary))]].sum(-1)
    assert torch.allclose(old[..., UNK], added, atol=2e-6)
    assert LOGIT_SCALE not in read_config(session.path)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("cell", [*CELLS, *STRUCTURES])
def test_the_scale_of_a_parent_is_folded_into_its_weights(cell: str, tied: bool) -> None:
    """The embedding of a tied model is scaled too, and what reads it makes up for that."""
    can_tie = CELLS.get(cell, CELLS["lstm"]).learns_input and cell not in ("one-hot", "esn")
    if tied and not can_tie:
        return
    hidden = STRUCTURES.get(cell, {}).get("last_hidden_size", 3)
    model = tiny_model(cell, **({"tie_weights": True, "embedding_size": hidden} if tied else {}))
    ids = torch.randint(0, 5, (6, 3), generator=seeded(1))
    before, _ = model(ids, None)
    fold_scale(model, 0.7)
    after, _ = model(ids, None)
    factor = 1.0 if model.settings.mixture > 1 else 0.7
    assert torch.allclose((factor * before).softmax(-1), after.softmax(-1), atol=2e-6)


def test_the_scale_is_folded_into_a_learned_first_input() -> None:
    """The state of a QRNN holds its previous input, which the embedding's scale changes too."""
    model = tiny_model("qrnn", learned_state=True, tie_weights=True, embedding_size=3)
    ids = torch.randint(0, 5, (6, 3), generator=seeded(1))
    before, _ = model(ids, None)
    fold_scale(model, 0.7)
    assert torch.allclose((0.7 * before).softmax(-1), model(ids, None)[0].softmax(-1), atol=2e-6)


def test_unk_that_was_never_learned_gives_nothing_away(folder: Path) -> None:
    """New characters are the mean of the known ones, with their frequency in the new text."""
    session = new_run(folder, NEW, parent="char")
    session.lock.release()
    parent, model = torch_model(folder / "char"), session.trainer.model
    vocabulary, size = session.dataset.vocabulary, parent.vocab_size
    assert vocabulary.tokens[size:] == ["b", "i", "r", "w"]
    for layer in ("embedding", "output"):
        old, new = (getattr(each, layer).weight for each in (parent, model))
        assert torch.equal(old, new[:size])
        assert torch.allclose(new[size:], old[2:].mean(0))
    train = session.dataset.train.ids
    frequency = np.bincount(train, minlength=len(vocabulary)) / len(train)
    known = torch.from_numpy(np.where(train < size, train, UNK).astype(np.int64))
    steps = len(known) // 128 * 128
    logits, _ = model(known[:steps].view(-1, 128).T, None)
    odds = (logits[..., size:] - logits[..., :size].logsumexp(-1, keepdim=True)).exp()
    assert np.allclose(odds.detach().mean((0, 1)), frequency[size:], rtol=1e-4)


def test_ends_that_were_never_learned_are_taken_from_line_ends(folder: Path) -> None:
    """A model of a stream knows where lines end, though not as EOS."""
    session = new_run(folder, OLD, "line", parent="char")
    session.lock.release()
    parent, model = torch_model(folder / "char"), session.trainer.model
    end = session.dataset.vocabulary.line_end
    assert torch.equal(model.output.weight[EOS], parent.output.weight[end])
    assert torch.equal(model.embedding.weight[EOS], parent.embedding.weight[end])
    ids = torch.randint(2, 5, (6, 1), generator=seeded(1))
    old, new = (each(ids, None)[0].exp() for each in (parent, model))
    assert torch.allclose(new[..., EOS] + new[..., end], old[..., end], rtol=1e-5)
    assert (new[..., EOS] > 20 * new[..., end]).all()


# ------------------------------------------------------------------ the run


def test_a_run_decides_what_its_weights_mean(folder: Path) -> None:
    """Rates, passes and dropout are planned again; other dropout is that of the run."""
    session = new_run(folder, NEW, parent="char", steps=None)
    session.lock.release()
    record = session.record
    origins, model = record["origins"], record["settings"]["model"]
    assert origins["model.hidden_size"] == origins["vocabulary.unit"] == "run char"
    assert origins["corpus.document"] == "run char"
    assert (model["hidden_size"], model["num_layers"], model["zoneout"]) == (4, 2, 0.1)
    assert origins["model.dropout"].startswith("rule")
    assert record["settings"]["training"]["learning_rate"] == 0.01
    assert origins["training.learning_rate"] == "rule: a foreign text, the rate of run char"
    changed = new_run(folder, NEW, parent="char", optimizer="sgd")
    changed.lock.release()
    assert changed.trainer.settings.learning_rate != 0.01


def test_a_short_text_is_read_fewer_times_than_from_nothing(folder: Path) -> None:
    """The size is that of the run, so a long time would otherwise only over-fit."""
    (folder / "new.txt").write_text(NEW * 12)
    flags = nested(sources=(str(folder / "new.txt"),), **{k: TINY[k] for k in ("threads", "seed")})
    plans = {}
    for minutes in (None, 9.0):
        training = {**flags["training"], "minutes": minutes}
        request = Request(
            flags={**flags, "training": training}, checkpoints=folder, start_from="char"
        )
        plans[minutes] = plan_run(request).record
    settings = plans[None]["settings"]
    assert (settings["training"]["epochs"], settings["model"]["dropout"]) == (24.0, 0.25)
    assert plans[9.0]["settings"]["training"]["minutes"] < 0.1
    assert "gain nothing" in plans[9.0]["planned"]["length"]


def test_figures_before_and_after_are_kept_for_both_texts(folder: Path) -> None:
    """Forgetting shows on the validation text of the parent."""
    path = trained(new_run(folder, NEW, parent="char", learning_rate=0.1, steps=40))
    record = read_record(path)
    before, after = record["from"], record["results"]
    parent = read_record(folder / "char")
    assert (before["run"], before["id"]) == ("char", parent["id"])
    assert before["old_valid"]["nats"] == pytest.approx(parent["results"]["valid"]["nats"], rel=0.2)
    assert after["valid"]["nats"] < before["valid"]["nats"]
    assert after["old_valid"]["nats"] > before["old_valid"]["nats"]
    kept = load(path).run.kept("from")
    assert kept is not None
    tally = evaluate(load(path).run.backend, kept)
    assert after["old_valid"]["nats"] == pytest.approx(tally.nats, rel=1e-5)
    assert not any(check.problems for check in verify_run(path))
    first = json.loads((path / "metrics.jsonl").read_text().splitlines()[0])
    assert (first["kind"], first["step"]) == ("evaluation", 0)
    assert first["valid_nats"] == before["valid"]["nats"]


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_a_foreign_text_is_reported_and_gets_the_full_rate(direction: str, folder: Path) -> None:
    """A run that knows less of a text than its frequencies is no help, and has much to learn."""
    if direction == "backward":
        trained(
            new_run(folder, OLD, name="back", direction=direction, learning_rate=0.05, steps=60)
        )
    parent = {"forward": "learned", "backward": "back"}[direction]
    rates = {}
    for text in ("xyzzyx" * 20, OLD):
        session = new_run(folder, text, parent=parent)
        session.lock.release()
        foreign = any("predicts the new text worse" in note for note in session.warnings)
        assert foreign == (text != OLD)
        rates[text] = session.trainer.settings.learning_rate
        reason = session.record["origins"]["training.learning_rate"]
        assert reason.startswith("rule: a foreign text" if foreign else "rule: 0.3 of the rate")
    assert list(rates.values()) == [0.05, 0.015]


def test_the_rate_is_reduced_once(folder: Path) -> None:
    """A run that fine-tuning made has a reduced rate already."""
    first = new_run(folder, OLD, parent="learned", name="first", steps=2)
    trained(first)
    second = new_run(folder, OLD, parent="first", steps=2)
    second.lock.release()
    assert first.trainer.settings.learning_rate == 0.015
    assert second.trainer.settings.learning_rate == 0.015
    reason = second.record["origins"]["training.learning_rate"]
    assert reason == "rule: the rate of run first, which was fine-tuned"


def test_weights_that_training_makes_worse_are_not_kept(folder: Path) -> None:
    path = trained(new_run(folder, OLD, parent="char", learning_rate=3.0, calibrate=False))
    assert read_record(path)["results"]["best_step"] == 0
    name = "model.safetensors"
    assert (path / name).read_bytes() == (folder / "char" / name).read_bytes()


def test_a_resumed_run_needs_no_parent_and_gives_the_same_bits(folder: Path) -> None:
    """It resumes from a checkpoint before the first step too."""
    whole = trained(new_run(folder, NEW, parent="char", name="whole"))
    shutil.copytree(folder / "char", folder / "copy")
    for name, stop in (("at-once", 0), ("later", 2)):
        session = new_run(folder, NEW, parent="copy", name=name, save_minutes=1e-9)
        for record in session.records() if stop else ():
            if record.step == stop:
                session.trainer.stop("interrupted")
        session.lock.release(force=True)
    shutil.rmtree(folder / "copy")
    for name in ("at-once", "later"):
        trained(resume(folder / name))
        for file in ("model.safetensors", "states/step-4/state.safetensors"):
            assert (folder / name / file).read_bytes() == (whole / file).read_bytes()
        before, after = (read_record(path) for path in (whole, folder / name))
        assert before["from"]["valid"] == after["from"]["valid"]
        assert before["results"]["old_valid"] == after["results"]["old_valid"]


def test_a_run_without_checkpoints_cannot_begin_again(folder: Path) -> None:
    """Its starting weights were in the first one; fresh ones would be another run."""
    session = new_run(folder, NEW, parent="char")
    session.lock.release()
    shutil.rmtree(session.path / "states")
    with pytest.raises(RunError, match="has no checkpoints, which hold the weights"):
        resume(session.path)


@pytest.mark.parametrize(("parent", "grown"), [("char", False), ("char", True), ("tied", False)])
def test_frozen_layers_stay_as_they_are(parent: str, grown: bool, folder: Path) -> None:
    """The embedding is trained if it has new entries, or is also the output."""
    mode = None if grown else "keep"
    session = new_run(folder, NEW, parent=parent, mode=mode, freeze_layers=1, learning_rate=0.1)
    before = {n: w.detach().clone() for n, w in session.trainer.model.named_parameters()}
    list(session.records())
    resumed = resume(session.path)
    resumed.lock.release()
    for number, model in enumerate((session.trainer.model, resumed.trainer.model)):
        same = {n for n, w in model.named_parameters() if torch.equal(w, before[n])}
        expected = {n for n in before if n.startswith("layers.0.")}
        assert same == expected | (set() if grown or parent == "tied" else {"embedding.weight"})
        assert {n for n, w in model.named_parameters() if not w.requires_grad} == same, number


def test_a_backward_run_and_a_half_of_a_pair_can_be_tuned(folder: Path) -> None:
    trained(new_run(folder, OLD, direction="both", name="pair"))
    with pytest.raises(UsageError, match="reads in both directions; expected a run of one"):
        new_run(folder, NEW, parent="pair")
    forward = new_run(folder, NEW, parent="pair", direction="forward")
    forward.lock.release()
    trained(new_run(folder, OLD, direction="backward", name="back"))
    path = trained(new_run(folder, NEW, parent="back", steps=20, learning_rate=0.05))
    record = read_record(path)
    assert record["settings"]["model"]["direction"] == "backward"
    old = read_record(folder / "back")["results"]["valid"]["nats"]
    assert record["from"]["old_valid"]["nats"] == pytest.approx(old, rel=0.2)


# ------------------------------------------------------------------ requests


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--unit", "word"], "--unit word differs from char of run char"),
        (
            ["--cell", "gru", "--hidden", "9"],
            "--cell gru differs from lstm of run char; --hidden 9",
        ),
        (["--layers", "3"], "--layers 3 differs from 2 of run char"),
        (["--set", "forget_bias=2"], "forget_bias 2 differs from 1.0 of run char"),
        (["--normalize", "nfc"], "--normalize nfc differs from none"),
        (["--tie"], "--tie is on, unlike in run char. Leave it out"),
        (["--params", "200k"], "--params 200000 has no place in run char"),
        (["--preset", "awd-ptb"], "Leave out preset awd-ptb, or train without --from"),
        (["--set", "frequency_bias=false"], "frequency_bias has no effect, since the weights"),
        (["--max-size", "5"], "--max-size is 5; expected at least 16, the entries of run char"),
        (["--vectors", "x"], "--vectors has no effect, since the weights are those of run char"),
        (["--vocab", "x.json"], "--vocab with --from"),
        (["--vocabulary", "shrink"], "--vocabulary is 'shrink'; expected one of keep, grow"),
        (["--vocabulary", "keep", "--min-count", "2"], "--min-count has no effect, since"),
        (["--resume"], "--from with --resume"),
        (["--freeze-layers", "3"], "--freeze-layers is 3; expected at most 2"),
    ],
)
def test_what_does_not_fit_the_run_is_refused(
    flags: list[str], message: str, folder: Path, call: Call
) -> None:
    text = [] if "--resume" in flags else [str(folder / "new.txt")]
    (folder / "new.txt").write_text(NEW)
    status, out, err = call(
        "train", *text, "--from", "char", *flags, "--checkpoints", str(folder), "--steps", "2"
    )
    assert (status, out) == (2, "")
    assert message in err.replace("\n", " ")


@pytest.mark.parametrize("more", [[], ["--task", "classify"]])
def test_a_run_without_its_record_is_no_parent(
    more: list[str], folder: Path, tmp_path: Path, call: Call
) -> None:
    """The message names the flag that asked for the run."""
    shutil.copytree(folder / "char", tmp_path / "bare", ignore=shutil.ignore_patterns("run.json"))
    (tmp_path / "new.txt").write_text(NEW)
    words = ("train", str(tmp_path / "new.txt"), "--from", str(tmp_path / "bare"), *more)
    status, out, err = call(*words)
    assert (status, out, err.count("\n")) == (4, "", 1)
    assert "bare has no run.json" in err and "leave out --from" in err


def test_flags_of_fine_tuning_need_a_run(here: Path, call: Call) -> None:
    (here / "new.txt").write_text(NEW)
    for flags in (["--freeze-layers", "1"], ["--vocabulary", "grow"]):
        status, _, err = call("train", "new.txt", *flags, "--steps", "2")
        assert status == 2
        assert f"{' '.join(flags)} has no effect without" in err


def test_vocabularies_that_cannot_grow_are_kept(folder: Path) -> None:
    trained(new_run(folder, OLD, unit="byte", name="bytes"))
    trained(new_run(folder, OLD, mixture=2, name="mixed"))
    write_logit_scale(folder / "mixed", 0.9)
    for name in ("bytes", "mixed"):
        session = new_run(folder, NEW, parent=name)
        session.lock.release()
        lost = any("the calibration of run mixed (logits" in note for note in session.warnings)
        assert lost == (name == "mixed")
        size = read_config(folder / name)["vocab_size"]
        assert len(session.dataset.vocabulary) == size
        with pytest.raises(UsageError, match=r"vocabulary grow with .*; expected keep for run"):
            new_run(folder, NEW, parent=name, mode="grow")


def test_an_ngram_run_and_a_run_without_weights_are_refused(folder: Path) -> None:
    charlm.ngram(text=OLD, order=2, name="kn", checkpoints=folder)
    with pytest.raises(UsageError, match="kn is an n-gram run, and start_from needs a network"):
        new_run(folder, NEW, parent="kn")
    with pytest.raises(RunError, match="no run 'chr'"):
        new_run(folder, NEW, parent="chr")


def test_the_library_starts_from_a_run_that_ships(tmp_path: Path) -> None:
    """The text of `prose` does not ship, so forgetting is not measured."""
    options = {"checkpoints": tmp_path, "steps": 1, "batch": 2, "bptt": 8, "threads": 1}
    training = charlm.train(text=NEW, start_from="prose", ngram=0, **options)
    records = list(training)
    record = read_record(training.path)
    assert record["from"]["run"] == "prose"
    assert record["from"]["old_valid"] is None
    start = next(record for record in records if isinstance(record, EvaluationRecord))
    assert start.tally.nats_per_token < 3.0
    lines = summary(record, records[-1])
    assert "run prose keeps no validation text, so forgetting is not measured" in lines
    assert re.search(r"new text \d\.\d{3} before, \d\.\d{3} after, in bits/char", lines)


def summary(record: dict[str, Any], finished: Any) -> str:
    from charlm.cli.output import rendered
    from charlm.report.progress import summary_table

    return " ".join(rendered(summary_table(record, finished)).split())


def test_a_run_is_continued_only_with_its_own_parent(folder: Path) -> None:
    (folder / "new.txt").write_text(NEW)
    flags = nested(**TINY, steps=2, sources=(str(folder / "new.txt"),))
    request = Request(flags=flags, name="x", checkpoints=folder, start_from="char")
    path = trained(start_or_resume(request))
    assert start_or_resume(request).complete
    words = repeat_command(path, read_record(path)) or ""
    assert f" --from {folder / 'char'}" in words
    assert str(folder) not in json.dumps(public_record(read_record(path))["from"])
    assert not {"--hidden", "--unit", "--document", "--vocabulary"} & set(words.split())
    trained(start_or_resume(replace(request, name="plain", start_from=None)))
    for changes, message in (
        ({"start_from": "tied"}, "made from weights of run char"),
        ({"start_from": None}, "made from weights of run char"),
        ({"vocabulary": "keep"}, "made with vocabulary grow, not keep"),
        ({"name": "plain"}, "made without start_from"),
    ):
        with pytest.raises(UsageError, match=message):
            start_or_resume(replace(request, **changes))


def test_a_parent_without_an_id_is_known_by_its_weights(folder: Path) -> None:
    """Runs of old versions, such as the built-in `tales`, have none."""
    shutil.copytree(folder / "char", folder / "old")
    record = read_record(folder / "old")
    del record["id"]
    write_record(folder / "old", record)
    (folder / "new.txt").write_text(NEW)
    flags = nested(**TINY, steps=2, sources=(str(folder / "new.txt"),))
    request = Request(flags=flags, name="x", checkpoints=folder, start_from="old")
    trained(start_or_resume(request))
    assert start_or_resume(request).complete
    with pytest.raises(UsageError, match="from weights of run old"):
        start_or_resume(replace(request, start_from=None))


@pytest.mark.parametrize("parent", ["pair", "pair/backward"])
def test_a_run_is_not_replaced_while_training_starts_from_it(parent: str, folder: Path) -> None:
    """The weights would be gone before they are read."""
    shutil.copytree(folder / "char", folder / "pair")
    shutil.copytree(folder / "char", folder / "pair" / "backward")
    (folder / "new.txt").write_text(NEW)
    flags = nested(**TINY, steps=2, sources=(str(folder / "new.txt"),))
    request = Request(flags=flags, name="pair", checkpoints=folder, start_from=parent)
    with pytest.raises(UsageError, match=f"overwrite would remove run {parent}, which training"):
        start_run(request, overwrite=True)
    assert (folder / "pair" / "model.safetensors").exists()


def test_a_plan_shows_the_run_to_start_from(folder: Path, call: Call) -> None:
    (folder / "new.txt").write_text(NEW)
    status, out, _ = call(
        "train", str(folder / "new.txt"), "--from", "char", "--plan", "--checkpoints", str(folder)
    )
    assert status == 0
    assert "from   run char, with its 16 entries and 4 new" in out
    assert re.search(r"model.hidden_size +4 +run char", out)
    assert "model.skip" not in out
