"""Training of taggers: runs, laws of resuming and of starting from a run, toys."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import nested
from task_sessions import TINY, check_frozen, check_resumed, finished, parent_runs, trained

from charlm.api.sessions import Request, start_run
from charlm.api.tag_evaluation import evaluate_tags
from charlm.errors import UsageError
from charlm.inference.tag_counts import TagCounts
from charlm.nn.encoder import Encoder
from charlm.runs.layout import read_config, read_record
from charlm.runs.run import torch_model
from charlm.runs.tag_run import load_tag_run
from charlm.training.session import Session

Tagged = list[tuple[str, str]]
NAMES, OTHERS = ["Ann", "Bob", "Cy Lee"], ["sees", "the", "old", "cat", "and", "runs"]


def names(count: int = 40, seed: int = 7) -> list[Tagged]:
    """Return sentences with names of one or two words, in IOB2."""
    random = np.random.default_rng(seed)
    sentences = []
    for _ in range(count):
        words: Tagged = []
        for _ in range(int(random.integers(1, 5))):
            words.append((str(random.choice(OTHERS)), "O"))
            if random.random() < 0.5:
                first, *more = str(random.choice(NAMES)).split()
                words += [(first, "B-per"), *((word, "I-per") for word in more)]
        sentences.append(words)
    return sentences


def conll(path: Path, sentences: list[Tagged]) -> str:
    """Write sentences as CoNLL, and return the name of the file."""
    rows = ["".join(f"{word}\t{tag}\n" for word, tag in words) for words in sentences]
    path.write_text("\n".join(rows), encoding="utf-8")
    return str(path)


def new_run(folder: Path, sentences: list[Tagged] | None = None, **options: Any) -> Session:
    """Start a run on sentences, whose file is written beside it."""
    about = {name: options.pop(name, None) for name in ("name", "start_from", "vocabulary")}
    source = conll(folder / "train.conll", sentences or names())
    flags = nested(**({"task": "tag", "min_count": 1, "sources": (source,)} | TINY | options))
    if about["start_from"]:
        del flags["vocabulary"]
    return start_run(Request(flags=flags, checkpoints=folder / "runs", **about))


@pytest.fixture(scope="module")
def parents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of language models of characters: `one` reads forward, `both` both ways."""
    folder = tmp_path_factory.mktemp("parents")
    text = "".join(" ".join(word for word, _ in words) + "\n" for words in names(20))
    values: dict[str, Any] = TINY | {"bptt": 4, "ngram": 0, "calibrate": False, "steps": 3}
    return parent_runs(folder, text, {"one": "forward", "both": "both"}, **values)


@pytest.mark.parametrize("case", ["plain", "from", "freeze"])
def test_a_resumed_run_equals_one_that_never_stopped(
    case: str, parents: Path, tmp_path: Path
) -> None:
    """Weights, figures and log, but for the time; with `freeze` the encoder is its parent's."""
    more: dict[str, Any] = {} if case == "plain" else {"start_from": str(parents / "both")}
    more |= {"freeze": True} if case == "freeze" else {}
    log, own = check_resumed(lambda name: new_run(tmp_path, name=name, **more))
    assert log[0]["valid_nats_per_tag"] > 0.0
    if case == "freeze":
        check_frozen(own, parents)


def test_files_of_a_run_describe_it(tmp_path: Path) -> None:
    test = conll(tmp_path / "test.conll", [[("Ann", "B-per"), ("new", "B-org"), ("cat", "O")]])
    path = trained(new_run(tmp_path, test=(test,)))
    table, record = read_config(path)["task"], read_record(path)
    letters = len({letter for words in names() for word, _ in words for letter in word})
    assert letters <= table.pop("letters") <= letters + 2  # EOS and UNK; some are held out
    assert table == {
        "name": "tag", "labels": ["B-per", "I-per", "O"], "spans": True, "both_ways": True,
        "output": "crf", "letter_width": 2,
    }  # fmt: skip
    assert record["settings"]["task"]["characters"] is True
    counts = record["corpus"]["labels"]["train"]
    parts = record["corpus"]["parts"]
    assert sum(counts.values()) == parts["train"]["targets"] > counts["O"] > 0
    floor, results = record["floors"]["frequent_tag"], record["results"]
    assert floor["figure"] == "f1" and floor["valid"] == 1.0 and floor["test"] == 2 / 3
    assert results["test"]["unseen"] == 1 and results["test"]["tags"] == 3
    change, low, high = results["floors"]["difference"]
    assert low <= change <= high and change == pytest.approx(results["test"]["f1"] - 2 / 3)


def test_recorded_figures_are_those_of_the_calibrated_files(tmp_path: Path) -> None:
    path = trained(new_run(tmp_path, steps=30, evals=3, learning_rate=0.05))
    results = read_record(path)["results"]
    assert results["logit_scale"] == pytest.approx(read_config(path)["logit_scale"]) != 1.0
    assert results["valid"]["nats"] < results["valid_uncalibrated"]["nats"]
    found = evaluate_tags(load_tag_run(path)).counts["valid"].summary()
    for name in ("nats_per_tag", "raw_nats_per_tag", "ece", "f1", "accuracy"):
        assert results["valid"][name] == pytest.approx(found[name], rel=1e-4, abs=1e-6)


def test_a_small_text_fills_no_more_minutes_than_it_is_worth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three times the passes of a default run; the reason has the given minutes."""
    texts = names(300)

    def planned(name: str, **length: Any) -> tuple[Any, float, str]:
        """Return minutes, passes, and the reason of the length."""
        session = new_run(tmp_path, texts, name=name, steps=None, hidden_size=128, **length)
        session.lock.release()
        plan = session.record["planned"]
        minutes = session.record["settings"]["training"]["minutes"]
        return minutes, plan["passes"], plan.get("length", "")

    usual, (ample, passes, reason) = planned("a")[1], planned("b", minutes=100.0)
    assert ample is None and passes == 3 * usual and "instead of 100 minutes: more" in reason
    monkeypatch.setattr("charlm.training.plan.labelled.SURE", math.inf)
    minutes, passes, reason = planned("d", minutes=100.0)
    assert passes == pytest.approx(3 * usual, rel=0.02) and "of 100: more passes" in reason
    assert 0 < minutes < 100.0
    assert planned("c", minutes=minutes / 2)[:2] == (
        minutes / 2,
        pytest.approx(passes / 2, rel=0.1),
    )


@pytest.mark.parametrize("spans", [True, False])
def test_best_weights_have_the_best_figure(spans: bool, tmp_path: Path) -> None:
    """Most F1 if tags are spans, of equal ones the least nats; else the least nats."""
    random = np.random.default_rng(5)
    tags = ["O", "O", "O", "B-per", "I-per"] if spans else ["O", "O", "O", "N", "V"]
    sentences = [
        [(str(random.choice(OTHERS)), str(random.choice(tags))) for _ in range(5)]
        for _ in range(40)
    ]  # nothing to learn but by heart
    session = new_run(tmp_path, sentences, steps=60, evals=12, learning_rate=0.1)
    found = [record for record in session.records() if record.kind == "evaluation"]
    counts: list[Any] = [record.tally for record in found]
    ranks = [((1 - each.f1) if spans else 0, each.nats) for each in counts]
    best = [rank == min(ranks[: at + 1]) for at, rank in enumerate(ranks)]
    assert [record.best for record in found] == best
    nats = [each.nats for each in counts]
    assert (ranks.index(min(ranks)) == nats.index(min(nats))) is not spans


@pytest.mark.parametrize("unit", ["char", "bpe"])
def test_words_of_many_tokens_are_tagged_without_letters(unit: str, tmp_path: Path) -> None:
    last = finished(new_run(tmp_path, unit=unit, steps=2, max_size=300))
    assert isinstance(last.valid, TagCounts) and last.valid.tags > 0
    record, table = (read(Path(last.path)) for read in (read_record, read_config))
    assert record["settings"]["task"]["characters"] is False
    assert record["settings"]["vocabulary"]["lowercase"] is False  # no letters tell capitals
    assert table["task"]["letters"] == table["task"]["letter_width"] == 0
    assert not (Path(last.path) / "letters.json").exists()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "unit word"),
        ({"unit": "char"}, "unit char"),
        ({"one_hot": True, "embedding_size": None}, "one_hot"),
    ],
)
def test_a_run_says_why_it_reads_letters_or_does_not(
    options: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    """Before, every run without them said that words alone have letters."""
    session = new_run(tmp_path, **options)
    assert session.record["origins"]["task.characters"] == f"rule: with {reason}"
    session.lock.release()


@pytest.mark.parametrize("name", ["one", "both"])
def test_states_of_a_run_that_starts_from_another_are_those_of_the_other(
    name: str, parents: Path, tmp_path: Path
) -> None:
    """To the bit, in one or both directions; letters of words are off."""
    session = new_run(tmp_path, start_from=str(parents / name))
    model: Any = session.trainer.model
    ids = torch.tensor([[1, 1], [4, 2], [5, 3], [0, 6]])
    assert model.characters is None and (model.backward is not None) is (name == "both")
    read = {parents / name: model} | (
        {parents / name / "backward": model.backward} if name == "both" else {}
    )
    for path, half in read.items():
        hidden, _ = Encoder.forward(half, ids)
        assert torch.equal(hidden, torch_model(path).read(ids)[0])
    session.lock.release()


def vowels(count: int) -> list[Tagged]:
    """Return random words, most of them unknown, with a tag that their first letter decides."""
    random, letters = np.random.default_rng(3), list("aeiobcdf")
    words = ["".join(random.choice(letters, 6)) for _ in range(4 * count)]
    tagged = [(word, "vowel" if word[0] in "aeio" else "other") for word in words]
    return [tagged[at : at + 4] for at in range(0, len(tagged), 4)]


def depths(count: int) -> list[Tagged]:
    """Return brackets, each with the depth that is reached at it: what was read before decides."""
    random = np.random.default_rng(3)
    sentences = []
    for _ in range(count):
        words: Tagged = []
        depth = 0
        for _ in range(8):
            opens = depth == 0 or (depth < 3 and random.random() < 0.5)
            depth += 1 if opens else -1
            words.append(("(" if opens else ")", f"depth{depth}"))
        sentences.append(words)
    return sentences


@pytest.mark.parametrize(
    ("head", "sentences"), [("softmax", vowels(120)), ("crf", depths(60))], ids=["vowels", "depths"]
)
def test_rules_are_learned_whole(sentences: list[Tagged], head: str, tmp_path: Path) -> None:
    """Unknown words by their letters, and brackets by all that stands before them."""
    last = finished(
        new_run(
            tmp_path, sentences, head=head, min_count=2, steps=80, learning_rate=0.05, evals=6,
            hidden_size=8, embedding_size=16, dropout=0.0, input_dropout=0.0, output_dropout=0.0,
        )
    )  # fmt: skip
    assert isinstance(last.valid, TagCounts) and last.valid.accuracy == 1.0
    assert read_record(Path(last.path))["status"] == "finished"
    assert last.review and last.review.train == {"accuracy": 1.0}
    assert last.review.advice[-2].startswith("learned: ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_smoothing": 0.1}, "label_smoothing with a CRF.*head softmax"),
        ({"characters": True, "unit": "char"}, "characters with unit char; expected unit word"),
        ({"embedding_size": 5}, "embedding_size 5 with letters.*expected an even number"),
        ({"start_from": "both", "freeze": True, "characters": True}, "characters with"),
        ({"start_from": "both", "freeze": True, "vocabulary": "grow"}, "grow with freeze, which"),
        ({"pooling": "last"}, "pooling=last .*expected --task classify"),
    ],
)
def test_misuse_is_refused(
    options: dict[str, Any], message: str, parents: Path, tmp_path: Path
) -> None:
    if "start_from" in options:
        options = options | {"start_from": str(parents / options["start_from"])}
    with pytest.raises(UsageError, match=message):
        new_run(tmp_path, **options)
    assert not (tmp_path / "runs").exists()


def test_a_review_without_spans_to_find_is_of_accuracy(tmp_path: Path) -> None:
    """The F1 of held-out sentences without a span is not a number, and was reported as nan."""
    plain = [[(word, "O") for word, tag in words if tag == "O"] for words in names(seed=8)]
    last = finished(new_run(tmp_path, valid=(conll(tmp_path / "plain.conll", plain),)))
    assert isinstance(last.valid, TagCounts)
    assert last.review and last.review.train.keys() <= {"accuracy", "f1"}
    assert "nan" not in " ".join(last.review.advice).split()
    assert not any("(nan" in line for line in last.review.advice)
    if math.isnan(last.valid.f1):
        assert last.review.train.keys() == {"accuracy"}
