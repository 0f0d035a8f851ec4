"""Training of classifiers: settings of the task, runs, and laws of the loss."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import nested
from task_sessions import TINY, check_frozen, check_resumed, finished, parent_runs, trained, weights

from charlm.api.label_evaluation import evaluate_labels
from charlm.api.sessions import Request, plan_run, start_or_resume, start_run
from charlm.config.presets import combined, layered
from charlm.config.settings import Settings, find_setting, merge, settings_from
from charlm.config.task import TaskSettings
from charlm.config.tasks import CLASSIFY, TASKS, task_name
from charlm.config.unused import drop_unused, origins_of_arguments
from charlm.errors import RunError, UsageError
from charlm.inference.counts import LabelCounts
from charlm.nn.encoder import Encoder
from charlm.runs.label_run import load_label_run
from charlm.runs.layout import BAG, read_config, read_record, write_record
from charlm.runs.run import torch_model
from charlm.runs.task_run import load_task_run
from charlm.runs.verify import run_problems
from charlm.tasks.classify import class_weights
from charlm.text.bag_of_words import BagOfWords
from charlm.text.batches import Position
from charlm.text.corpus import Corpus
from charlm.text.labels import Labelled
from charlm.text.task_text import gold_of
from charlm.text.tokenizers.tokenizer_json import UNK
from charlm.text.tokenizers.vocabulary import load_vocabulary
from charlm.training.labels import LabelTraining, _helps
from charlm.training.resume import resume
from charlm.training.session import Session
from charlm.training.task_training import Start

ROW = TASKS[CLASSIFY]


def test_defaults_of_a_task_are_the_lowest_layer() -> None:
    """The user, a preset and a file win; a task without defaults has no layer."""
    values, origins = combined(nested(task="classify", hidden_size=7), "flag")
    assert values["model"]["hidden_size"] == 7 and origins["model.hidden_size"] == "flag"
    for section, defaults in ROW.defaults.items():
        for key, value in defaults.items():
            if key != "hidden_size":
                assert values[section][key] == value
                assert origins[f"{section}.{key}"] == "task classify"
    values, origins = combined(nested(task="classify"), "flag", preset="zaremba-small")
    assert values["model"]["hidden_size"] == 200
    assert origins["model.hidden_size"] == "preset zaremba-small"
    assert combined(nested(hidden_size=7), "flag")[0] == nested(hidden_size=7)


@pytest.mark.parametrize("name", ROW.settings)
def test_settings_of_labelled_texts_are_refused_without_a_task(name: str) -> None:
    others: dict[str, Any] = {"target": "x", "pooling": "last", "max_tokens": 5, "kept_part": "end"}
    default = find_setting(name).default
    settings = settings_from(nested(**{name: others.get(name, not default)}))
    if settings.task.both_ways and settings.task.bag_of_words:  # off is accepted
        with pytest.raises(UsageError, match=f"{name} .*task language-model; expected task class"):
            drop_unused(settings, origins_of_arguments(settings))


@pytest.mark.parametrize("values", [{"stateless": True}, {"mixture": 2}, {"direction": "backward"}])
def test_settings_of_language_models_are_refused_with_a_task(values: dict[str, Any]) -> None:
    """With both names; values of a preset return to their defaults."""
    values = nested(task="classify", **values)
    settings = settings_from(values)
    with pytest.raises(UsageError, match="task classify; expected task language-model"):
        drop_unused(settings, origins_of_arguments(settings))
    kept, origins = layered([("preset x", values)])
    assert drop_unused(settings_from(kept), origins) == Settings(task=TaskSettings(task=CLASSIFY))


def test_no_default_of_a_task_belongs_to_another_task() -> None:
    """It would return to the default of the setting as soon as it is checked."""
    own = {name for row in TASKS.values() for name in row.settings}
    assert not own & {key for values in ROW.defaults.values() for key in values}


def test_plain_settings_name_the_task_only_if_it_has_labels() -> None:
    """Records of language models stay as they were, and are read as such."""
    assert "task" not in Settings().to_dict() and task_name(Settings().to_dict()) != CLASSIFY
    settings = settings_from(nested(task="classify", target="stars"))
    plain = settings.to_dict()
    assert task_name(plain) == CLASSIFY and settings_from(plain) == settings


# ------------------------------------------------------------------ runs

WORDS = ["good", "bad", "film", "story", "the", "a", "was", "it", "all", "so"]


def toys(number: int, seed: int = 7) -> list[tuple[str, str]]:
    """Return random texts whose label is their first word, one of two that are equally frequent."""
    random = np.random.default_rng(seed)
    firsts = [WORDS[at % 2] for at in range(number)]
    others = [" ".join(random.choice(WORDS, random.integers(2, 7))) for _ in firsts]
    return [(f"{first} {more}", first) for first, more in zip(firsts, others, strict=True)]


def table(folder: Path) -> str:
    """Write labelled texts, and return the name of their file."""
    path = folder / "texts.tsv"
    rows = "".join(f"{label}\t{text}\n" for text, label in toys(40))
    path.write_text(f"label\ttext\n{rows}", encoding="utf-8")
    return str(path)


def new_run(folder: Path, examples: list[tuple[str, str]] | None = None, **options: Any) -> Session:
    """Start a run on labelled texts in memory."""
    about = {name: options.pop(name, None) for name in ("name", "start_from", "vocabulary")}
    flags = nested(**({"task": "classify", "min_count": 1} | TINY | options))
    if about["start_from"]:
        del flags["vocabulary"]
    request = Request(flags=flags, checkpoints=folder, **about)
    return start_run(request, examples=examples or toys(40))


@pytest.fixture(scope="module")
def parents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of language models: `one` reads forward, `both` both ways."""
    folder = tmp_path_factory.mktemp("parents")
    text = "".join(f"{text}\n" for text, _ in toys(30))
    values: dict[str, Any] = TINY | {
        "unit": "word", "words": "bare", "bptt": 4, "ngram": 0, "calibrate": False,
        "learned_state": True, "steps": 3,
    }  # fmt: skip
    return parent_runs(
        folder, text, {"one": "forward", "both": "both", "back": "backward"}, **values
    )


@pytest.mark.parametrize("case", ["plain", "from", "freeze"])
def test_a_resumed_run_equals_one_that_never_stopped(
    case: str, parents: Path, tmp_path: Path
) -> None:
    """Weights, figures and log, but for the time; with `freeze` the encoder is its parent's."""
    more: dict[str, Any] = {} if case == "plain" else {"start_from": str(parents / "both")}
    more |= {"freeze": True} if case == "freeze" else {}
    log, own = check_resumed(lambda name: new_run(tmp_path, name=name, **more))
    named = [key for each in log if each["kind"] == "evaluation" for key in each]
    assert "valid_accuracy" in named and "valid_confusion" not in named
    if case == "freeze":
        check_frozen(own, parents)


def test_a_record_of_another_task_is_not_resumed(tmp_path: Path) -> None:
    """Pooling and labels of config.json and run.json must agree."""
    path = trained(new_run(tmp_path, steps=2))
    record = read_record(path)
    record["settings"]["task"]["kept_part"] = "end"
    write_record(path, record)
    with pytest.raises(RunError, match="describes another model than config"):
        resume(path)


def test_figures_of_a_stopped_run_are_those_of_its_files(tmp_path: Path) -> None:
    """Its best weights were chosen under a factor on all logits that it does not keep."""
    session = new_run(tmp_path, steps=30, evals=3, learning_rate=0.05)
    for record in session.records():
        if record.kind == "evaluation":
            session.trainer.stop("interrupted")
    best = session.trainer.counters.best
    assert isinstance(best, LabelCounts) and best.scale != 1.0
    recorded = read_record(session.path)["results"]["valid"]
    found = evaluate_labels(load_label_run(session.path)).counts["valid"].summary()
    assert recorded.pop("confusion") == found.pop("confusion")
    assert recorded == pytest.approx(found, rel=1e-5)
    assert recorded["nats"] != pytest.approx(best.nats, rel=1e-3)


@pytest.mark.parametrize("name", ["one", "both"])
def test_states_of_a_run_that_starts_from_another_are_those_of_the_other(
    name: str, parents: Path, tmp_path: Path
) -> None:
    """To the bit, in one or both directions; its vocabulary is kept."""
    session = new_run(tmp_path, start_from=str(parents / name))
    model: Any = session.trainer.model
    ids = torch.tensor([[1, 1], [4, 2], [5, 3], [0, 6]])
    assert bool(session.record["settings"]["task"]["both_ways"]) is (name == "both")
    halves_read = {parents / name: model}
    if name == "both":
        halves_read[parents / name / "backward"] = model.backward
    for path, half in halves_read.items():
        hidden, _ = Encoder.forward(half, ids)
        assert torch.equal(hidden, torch_model(path).read(ids)[0])
    session.lock.release()


@pytest.mark.parametrize("name", ["one", "both"])
def test_new_words_begin_as_the_unknown_word_and_are_learned(
    name: str, parents: Path, tmp_path: Path
) -> None:
    """A vocabulary that grows changes no state at first, and no entry of the parent."""
    examples = [(f"{text} wonderful plot", label) for text, label in toys(40)]
    session = new_run(
        tmp_path, examples, name="grown", start_from=str(parents / name), vocabulary="grow"
    )
    about, vocabulary = session.record["from"], session.dataset.vocabulary
    old = load_vocabulary(parents / name / "tokenizer.json")
    new = ["plot", "wonderful"]
    assert about["vocabulary"] == "grow" and vocabulary.tokens == [*old.tokens, *new]
    model: Any = session.trainer.model
    for half in (model, model.backward) if name == "both" else (model,):
        rows = half.embedding.weight.detach()
        assert torch.equal(rows[len(old) :], rows[[UNK]].expand(len(new), -1))
        read = [Encoder.forward(half, torch.tensor([[4], [last]]))[0] for last in (UNK, len(old))]
        assert torch.equal(*read)
    path = trained(session)
    kept = weights(path)["embedding.weight"]
    assert not torch.equal(kept[-1], kept[-2]) and not torch.equal(kept[-1], kept[UNK])
    assert load_label_run(path).encode(["a wonderful plot"]).ids.tolist()[1:3] == [
        vocabulary.ids["wonderful"], vocabulary.ids["plot"],
    ]  # fmt: skip
    assert not run_problems(path)


@pytest.mark.parametrize("name", ["embedding.weight", "backward.embedding.weight"])
def test_weights_to_start_from_are_complete(
    name: str, parents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tensor that is not given would be trained from random values, in silence."""
    start = LabelTraining.start

    def incomplete(*args: Any) -> Start:
        found = start(*args)
        return found._replace(weights={k: w for k, w in found.weights.items() if k != name})

    monkeypatch.setattr(LabelTraining, "start", incomplete)
    with pytest.raises(RuntimeError, match=f'Missing.*"{name}"'):
        new_run(tmp_path, start_from=str(parents / "both"))


def test_balance_of_equally_frequent_labels_changes_nothing(tmp_path: Path) -> None:
    """All weights of labels are 1; those of rarer labels are larger."""
    runs = [new_run(tmp_path, name=f"b{on}", balance=on) for on in (False, True)]
    first, second = (weights(trained(session)) for session in runs)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert class_weights(np.array([0, 0, 0, 1], np.int32)).tolist() == pytest.approx([2 / 3, 2.0])


def test_batches_of_short_texts_are_not_scaled_down(tmp_path: Path) -> None:
    """Texts count, not tokens: only a batch with less than half of the texts has a smaller step."""
    session = new_run(tmp_path, batch_size=5)
    schedule, batches = session.trainer.schedule, session.trainer.task.batches
    epoch = batches.epoch(Position())
    fractions = {(batch.tokens, schedule.token_fraction(batch)) for batch in epoch}
    assert batches.total == 36 and fractions == {(5, 1.0), (1, 2 / 5)}
    session.lock.release()


def test_a_rule_is_learned_and_chance_is_not(tmp_path: Path) -> None:
    """The first word reaches every text; random labels stay near ln 2 and are calibrated."""
    last = finished(new_run(tmp_path, toys(160), steps=60, learning_rate=0.05))
    assert isinstance(last.valid, LabelCounts) and last.valid.accuracy == 1.0
    assert last.review and last.review.train["accuracy"] > 0.98
    assert last.review.advice[-2].startswith("learned: ")
    labels = np.random.default_rng(1).choice(["x", "y"], 240).tolist()
    chance = [(text, label) for (text, _), label in zip(toys(240), labels, strict=True)]
    last = finished(new_run(tmp_path, chance, steps=30, valid_frac=0.5))
    assert last.valid and abs(last.valid.nats_per_token - math.log(2)) < 0.05
    first, *_ = last.review.advice if last.review else [""]
    assert first.startswith(
        "not learned: not shown to be better than the most frequent label (accuracy 0."
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "clasify"}, "task is 'clasify'; expected one of"),
        ({"freeze": True}, "freeze .*without .*from"),
        ({"start_from": "back"}, "reads backward; expected a run that reads forward or both"),
        ({"start_from": "one", "hidden_size": 5}, "hidden_size 5 differs from 4 of run one"),
        ({"start_from": "one", "both_ways": True}, "both_ways is on, unlike in run one"),
        ({"vocabulary": "keep"}, "has no effect without start_from"),
        (
            {"start_from": "one", "vocabulary": "grow", "freeze": True, "bag_of_words": False},
            "grow with freeze, which leaves new entries as the unknown one; expected keep",
        ),
    ],
)
def test_misuse_is_refused(
    options: dict[str, Any], message: str, parents: Path, tmp_path: Path
) -> None:
    if "start_from" in options:
        options = options | {"start_from": str(parents / options["start_from"])}
    with pytest.raises(UsageError, match=message):
        new_run(tmp_path, **options)
    assert not list(tmp_path.iterdir())


def test_limits_of_a_kept_vocabulary_are_refused_with_the_mode_that_needs_them(
    parents: Path, tmp_path: Path
) -> None:
    request = Request(
        flags=nested(task="classify", min_count=2), start_from=str(parents / "one"),
        checkpoints=tmp_path,
    )  # fmt: skip
    with pytest.raises(UsageError, match=r"min_count has no effect.*, or add vocabulary grow$"):
        start_run(request, examples=toys(40))


def test_a_run_with_labels_is_no_parent(tmp_path: Path) -> None:
    trained(new_run(tmp_path, name="labels"))
    with pytest.raises(UsageError, match="labels gives labels, not text"):
        new_run(tmp_path, start_from="labels")
    request = Request(flags=nested(task="classify"), checkpoints=tmp_path)
    with pytest.raises(UsageError, match="without a text; expected texts with labels"):
        plan_run(request)
    with pytest.raises(UsageError, match="with a text that has no labels; expected texts with"):
        start_run(request, corpus=Corpus.from_text("good film\nbad film\n", "line"))


def test_floors_are_reported_beside_the_figures(parents: Path, tmp_path: Path) -> None:
    """Accuracies at the start, the difference at the end, one unit of a frozen encoder."""
    names = tmp_path / "test.tsv"
    names.write_text("label\ttext\ngood\tgood film\nbad\tbad film\nugly\tall\n", encoding="utf-8")
    session = new_run(
        tmp_path, start_from=str(parents / "one"), freeze=True, test=(str(names),), steps=2
    )
    floors = session.record["floors"]
    assert floors["majority"]["label"] in WORDS[:2] and floors["majority"]["test"] == 1 / 3
    assert floors["bag_of_words"]["test"] == 2 / 3  # one label is not known
    last = finished(session)
    assert last.floors and last.test and isinstance(last.test, LabelCounts)
    difference, low, high = last.floors["difference"]
    assert difference == pytest.approx(last.test.accuracy - 2 / 3) and low <= difference <= high
    assert 0 <= last.floors["unit"]["accuracy"] <= 1 and last.floors["unit"]["of"] == 3 * 4


def test_what_the_defaults_leave_open_is_planned(tmp_path: Path) -> None:
    """Length and seed; the window is the longest text, and vectors decide the width."""
    file = tmp_path / "vectors.txt"
    file.write_text("good 1 0 1\nbad 0 1 1\n", encoding="utf-8")
    flags = nested(task="classify", sources=[table(tmp_path)], vectors=str(file), min_count=1)
    planned = plan_run(Request(flags=flags, checkpoints=tmp_path))
    settings, origins = planned.record["settings"], planned.record["origins"]
    assert settings["model"]["embedding_size"] == 3
    assert settings["training"]["epochs"] >= 4 and settings["training"]["seed"] is not None
    assert settings["training"]["bptt"] == max(len(text.split()) for text, _ in toys(40)) + 1
    assert origins["model.hidden_size"] == "task classify"
    assert origins["training.epochs"].startswith("rule: ")
    assert planned.record["planned"]["memory_bytes"] > 1e8 and planned.problem is None
    for given, evals in (({}, 20), ({"evals": 8}, 8)):  # one for each pass, unless 8 are wanted
        flags |= nested(epochs=20.0, **given)
        planned = plan_run(Request(flags=flags, checkpoints=tmp_path))
        assert planned.record["settings"]["training"]["evals"] == evals


def test_dropout_that_is_given_reaches_a_model_of_one_layer(tmp_path: Path) -> None:
    """It has none between layers, so the dropout before and after them follows."""
    found = []
    for given in ({}, {"dropout": 0.6}, {"dropout": 0.6, "output_dropout": 0.1}):
        flags = nested(task="classify", sources=[table(tmp_path)], steps=2, **given)
        model = plan_run(Request(flags=flags, checkpoints=tmp_path)).record["settings"]["model"]
        found.append((model["input_dropout"], model["output_dropout"]))
    assert found == [(0.2, 0.4), (0.3, 0.6), (0.3, 0.1)]


@pytest.mark.parametrize("given", [{}, {"learning_rate": 0.003}])
def test_a_run_that_starts_from_another_has_defaults_of_its_own(
    given: dict[str, Any], parents: Path, tmp_path: Path
) -> None:
    """A given value wins; without a parent they are those of the task."""
    rates = []
    for start in (None, str(parents / "one")):
        flags = nested(task="classify", sources=[table(tmp_path)], steps=2, **given)
        planned = plan_run(Request(flags=flags, checkpoints=tmp_path, start_from=start))
        rates.append(planned.record["settings"]["training"]["learning_rate"])
    own = [row["training"]["learning_rate"] for row in (ROW.defaults, ROW.fine_tuning)]
    assert rates == ([0.003, 0.003] if given else own) and own[0] != own[1]


@pytest.mark.parametrize("sure", [1.0, math.inf])
def test_a_run_that_starts_from_another_is_not_longer_than_usual(
    sure: float, parents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More passes gain nothing, unless its encoder is frozen; passes end it if time is ample."""
    monkeypatch.setattr("charlm.training.plan.labelled.SURE", sure)
    cases = ((None, False), (str(parents / "one"), False), (str(parents / "one"), True))
    lengths = []
    for start, freeze in cases:
        flags = nested(task="classify", sources=[table(tmp_path)], minutes=90.0, freeze=freeze)
        record = plan_run(Request(flags=flags, checkpoints=tmp_path, start_from=start)).record
        training = record["settings"]["training"]
        lengths.append((training["minutes"], training["epochs"], record["planned"]["length"]))
    assert lengths[0] == lengths[2] == (90.0, None, None)
    minutes, epochs, reason = lengths[1]
    assert "gain nothing" in reason
    assert (epochs >= 4 and minutes is None) if sure == 1.0 else (minutes < 9 and not epochs)


def test_features_of_a_frozen_encoder_are_planned(parents: Path, tmp_path: Path) -> None:
    """They are kept for 40 texts: the last, mean and greatest vectors of 4 numbers."""
    needed = []
    for freeze in (False, True):
        sizes = {key: TINY[key] for key in ("batch_size", "steps")}
        flags = nested(task="classify", sources=[table(tmp_path)], freeze=freeze, **sizes)
        start = str(parents / "one")
        record = plan_run(Request(flags=flags, checkpoints=tmp_path, start_from=start)).record
        needed.append(record["planned"]["memory_bytes"])
    assert needed[1] - needed[0] == 4 * 40 * 3 * 4


def test_a_bag_of_words_is_mixed_in_where_it_helps(tmp_path: Path, parents: Path) -> None:
    """A network that has learned nothing yet; all engines read the bag, and resuming drops it."""
    session = new_run(tmp_path, toys(100), steps=2)
    path, dataset = trained(session), session.dataset
    config, results = read_config(path), read_record(path)["results"]
    labelled = gold_of(dataset, Labelled)
    shared, every = (
        BagOfWords.naive_bayes(
            dataset.train, labelled.targets["train"], len(labelled.labels),
            len(dataset.vocabulary), least=least,
        )
        for least in (2, 1)
    )  # fmt: skip
    assert 0 < config["bag"] == len(shared.features) < len(every.features)
    assert results["floors"]["network"]["valid"] < results["valid"]["accuracy"] - 0.1
    for engine in ("numpy", "torch"):
        found = evaluate_labels(load_label_run(path, engine=engine)).counts["valid"]
        assert found.nats == pytest.approx(results["valid"]["nats"], rel=1e-4)
        assert found.accuracy == results["valid"]["accuracy"]
    assert not run_problems(path)
    for name, off in (("alone", {"bag_of_words": False}), ("even", {"balance": True})):
        alone = trained(new_run(tmp_path, toys(100), steps=2, **off, name=name))
        assert "bag" not in read_config(alone) and not (alone / BAG).exists()
    data = (path / BAG).read_bytes()
    (path / BAG).write_bytes(data[:-1] + b"\xff")
    with pytest.raises(RunError, match=BAG):
        load_task_run(path)
    (path / BAG).write_bytes(data[:-4])
    with pytest.raises(RunError, match="by its header"):
        load_task_run(path)
    (path / BAG).write_bytes(data)
    session = resume(path, more={"steps": 1})
    assert "bag" not in read_config(path)
    session.lock.release()


def test_one_hot_input_and_steps_of_several_batches_are_planned(tmp_path: Path) -> None:
    """The width is that of the vocabulary, and a step reads `accumulate` batches."""
    sizes = {"batch_size": 3, "accumulate": 2, "steps": 9, "one_hot": True, "min_count": 1}
    flags = nested(task="classify", sources=[table(tmp_path)], **sizes)
    record = plan_run(Request(flags=flags, checkpoints=tmp_path)).record
    corpus, texts = record["corpus"], record["corpus"]["parts"]["train"]["documents"]
    assert record["settings"]["model"]["embedding_size"] == corpus["vocabulary"]
    assert record["planned"]["passes"] == pytest.approx(9 * 3 * 2 / texts)


def test_a_run_is_continued_under_the_defaults_of_its_task(parents: Path, tmp_path: Path) -> None:
    """Values that its parent decided are no other settings."""
    values = {key: TINY[key] for key in ("batch_size", "seed", "threads", "precision", "steps")}
    request = Request(
        flags=nested(task="classify", sources=[table(tmp_path)], **values),
        name="again", checkpoints=tmp_path, start_from=str(parents / "one"),
    )  # fmt: skip
    first = trained(start_or_resume(request))
    session = start_or_resume(request)
    assert session.complete and session.path == first
    session.lock.release()
    other = replace(request, flags=merge(request.flags, nested(task="language-model")))
    with pytest.raises(UsageError, match="was made with task classify, not language-model"):
        start_or_resume(other)


def test_a_bag_of_words_that_gives_up_a_rare_label_is_left_out() -> None:
    """The story: on tweets the nats fell, and with them the recall of the negative ones."""
    network = LabelCounts(confusion=((80, 10), (2, 8)), nats=100.0)
    fewer = LabelCounts(confusion=((90, 0), (5, 5)), nats=50.0)
    assert fewer.accuracy > network.accuracy
    assert not _helps(fewer, network)
    one = replace(fewer, confusion=((81, 9), (3, 7)))  # one text of ten is chance
    assert one.macro_recall < network.macro_recall and _helps(one, network)
    assert _helps(replace(network, nats=97.9), network)
    assert not _helps(replace(network, nats=98.1), network)
    many = replace(network, nats=1000.0)
    assert not _helps(replace(network, nats=996.0), many)
    assert _helps(replace(network, nats=994.0), many)
