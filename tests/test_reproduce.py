"""Recipes: valid settings, our figures beside the published ones, stopped and resumed."""

import gzip
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import Call

from charlm.api.recipe_texts import MAKERS, made_texts, makemore_split
from charlm.config import recipes
from charlm.config.presets import combined
from charlm.config.recipes import RECIPES, recipe
from charlm.config.settings import merge, settings_from
from charlm.config.tasks import LANGUAGE_MODEL, task_name
from charlm.errors import UsageError
from charlm.nn import heap
from charlm.nn.devices import Precision
from charlm.text.corpus import Corpus
from charlm.text.dataset import load_dataset
from charlm.training.plan.planner import plan
from charlm.training.plan.speed import PlanInputs
from charlm.units import Tally

TEXT = "no it was n't black monday\nbut while the new york stock exchange did n't fall apart\n"
SMALL = {
    "model": {"hidden_size": 8, "embedding_size": 8, "num_layers": 1},
    "training": {"steps": 30, "minutes": None, "epochs": None, "threads": 1, "evals": 2},
}


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_complete(name: str) -> None:
    """Its settings are settings, its figure is one of a tally, its part has a text."""
    chosen = RECIPES[name]
    settings = settings_from(combined(chosen.settings, "recipe")[0])
    if settings.task.task == LANGUAGE_MODEL:
        assert settings == settings_from(chosen.settings)
        assert chosen.figure in Tally().summary()
    assert chosen.figure in recipes.FIGURES
    assert chosen.part == "valid" or chosen.maker or getattr(chosen, chosen.part)
    assert chosen.maker in {"", *MAKERS}
    assert chosen.published or chosen.measured


def test_an_unknown_recipe_is_refused() -> None:
    with pytest.raises(UsageError, match="'ptb'; expected one of shakespeare"):
        recipe("ptb")


@pytest.fixture(autouse=True)
def usual_memory(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the process's memory rules as they are."""
    monkeypatch.setattr(heap, "keep_freed_memory", lambda: True)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The recipe of words on a text of two lines, with a tiny model, in a folder of its own."""
    plain = RECIPES["ptb-word"]
    settings = merge(plain.settings, SMALL)
    monkeypatch.setitem(RECIPES, "ptb-word", replace(plain, settings=settings))
    (tmp_path / "ptb").mkdir()
    for part in ("train", "valid", "test"):
        (tmp_path / "ptb" / f"ptb.{part}.txt").write_text(TEXT * 20, encoding="utf-8")
    monkeypatch.setenv("CHARLM_CHECKPOINTS", str(tmp_path / "runs"))
    return tmp_path


def test_our_figures_are_shown_beside_the_published_ones(call: Call, small: Path) -> None:
    """Plain and with the cache; the second call reads what the first one made."""
    status, out, err = call("reproduce", "ptb-word", "--data", str(small))
    assert status == 0
    assert "published            115.0  Zaremba et al. small (README)" in out
    assert out.count("ours") == 2
    assert "cache" in out
    assert "protocol: 82,430 tokens with line ends" in err
    status, again, err = call("reproduce", "ptb-word", "--data", "elsewhere")
    assert (status, again) == (0, out)
    assert "resuming" not in err
    content = json.loads(call("reproduce", "ptb-word", "--json")[1])
    assert content["complete"] is True
    assert list(content["ours"]) == ["test", "test, cache"]
    assert content["published"][0]["figure"] == 115.0


def test_a_budget_ends_the_session_and_the_next_one_resumes(
    call: Call, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is saved, reported as not complete, and resumed."""
    long = merge(RECIPES["ptb-word"].settings, {"training": {"steps": 3000}})
    monkeypatch.setitem(RECIPES, "ptb-word", replace(RECIPES["ptb-word"], settings=long))
    status, out, err = call("reproduce", "ptb-word", "--data", str(small), "--budget", "0.02")
    assert status == 0
    assert "not complete yet; continue with: charlm " in err
    assert out.count("ours") == 1
    _, _, err = call("reproduce", "ptb-word", "--data", str(small), "--budget", "0.01")
    assert "resuming recipe-ptb-word from step" in err


def test_a_run_of_another_seed_or_recipe_is_refused(
    call: Call, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the way out; the bug: a run of ten minutes was shown as the recipe of three."""
    command = ["reproduce", "ptb-word", "--data", str(small)]
    assert call(*command, "--seed", "3")[0] == 0
    status, _, err = call(*command, "--seed", "2")
    assert status == 4
    assert "was started with seed 3; expected --seed 3, or none" in err
    for seed in ([], ["--seed", "3"]):
        assert call(*command, *seed)[0] == 0
    other = merge(RECIPES["ptb-word"].settings, {"training": {"steps": 31}})
    monkeypatch.setitem(RECIPES, "ptb-word", replace(RECIPES["ptb-word"], settings=other))
    status, _, err = call(*command)
    assert status == 4
    assert "was made by another recipe of this name" in err


@pytest.mark.parametrize(
    "name", [name for name in RECIPES if task_name(RECIPES[name].settings) == LANGUAGE_MODEL]
)
def test_every_recipe_can_be_planned_as_it_is(name: str) -> None:
    """With its own minutes; the story: tied weights of a given width broke the measuring."""
    chosen = settings_from(merge(RECIPES[name].settings, {"training": {"seed": 1}}))
    unit = "word" if chosen.vocabulary.unit == "word" else "char"
    words = " ".join(f"w{number}" for number in range(300)) + "\n"
    text = Corpus.from_text(words * 20 if unit == "word" else TEXT * 40, "stream")
    data = load_dataset(replace(chosen.corpus, valid_frac=0.1), chosen.vocabulary, corpus=text)
    fp32 = Precision(name="fp32", reason="test")
    cpu = torch.device("cpu")
    inputs = PlanInputs(device=cpu, choose_precision=lambda *_: fp32, measure=lambda: 1e11)
    planned = plan(chosen, data, inputs)
    assert planned.settings.model.hidden_size


def test_missing_corpora_are_named(call: Call) -> None:
    status, _, err = call("reproduce", "awd-wt2", "--data", "nowhere")
    assert status == 3
    assert "nowhere/wikitext2/train.txt does not exist; expected the corpora below nowhere" in err


def test_without_a_name_the_recipes_are_listed(call: Call) -> None:
    status, out, _ = call("reproduce")
    assert status == 0
    assert all(name in out for name in RECIPES)


def test_names_are_held_out_as_makemore_does() -> None:
    """By the lines of its program: a thousand of a permutation with torch's seed 3407."""
    lines = [f"n{number}" for number in range(2500)]
    torch.manual_seed(3407)
    order = torch.randperm(len(lines)).tolist()
    parts = makemore_split("\n".join(f" {line} " for line in lines) + "\n\n")
    assert parts["test.txt"] == [lines[at] for at in order[-1000:]]
    assert sorted(line for part in parts.values() for line in part) == sorted(lines)
    assert [len(part) for part in parts.values()] == [500, 1000, 1000]


def test_the_splits_of_a_list_are_kept_beside_its_run(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run's test text is the held-out one; a list that is too short is refused."""
    plain = RECIPES["names"]
    monkeypatch.setitem(RECIPES, "names", replace(plain, settings=merge(plain.settings, SMALL)))
    (tmp_path / "names").mkdir()
    path = tmp_path / "names" / "names.txt"
    path.write_text("anna\n" * 2000, encoding="utf-8")
    status, _, err = call("reproduce", "names", "--data", str(tmp_path))
    assert status == 3
    assert "has 2,000 lines; expected more than 2,000" in err
    path.write_bytes(b"anna\xff\n" * 2500)
    status, _, err = call("reproduce", "names", "--data", str(tmp_path))
    assert status == 3
    assert "not valid UTF-8" in err
    path.write_text("\n".join(["anna", "bob"] * 1250), encoding="utf-8")
    (tmp_path / "checkpoints").write_text("in the way")
    status, _, err = call("reproduce", "names", "--data", str(tmp_path))
    assert status == 5
    assert "cannot write" in err
    (tmp_path / "checkpoints").unlink()
    status, out, _ = call("reproduce", "names", "--data", str(tmp_path))
    assert status == 0
    assert "1.9200  makemore" in out
    record = json.loads((tmp_path / "checkpoints/recipe-names/run.json").read_text())
    assert record["results"]["test"]["documents"] == 1000
    assert [
        len(Path(source).read_text().split()) for source in record["settings"]["corpus"]["test"]
    ] == [1000]


def test_a_recipe_of_another_task_shows_its_floors_and_its_aim(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the figures that training measured; a label that follows from one word reaches it."""
    plain = RECIPES["imdb-lstm"]
    small = merge(plain.settings, {**SMALL, "training": {"steps": 60, "epochs": None, "seed": 1}})
    monkeypatch.setitem(RECIPES, "imdb-lstm", replace(plain, settings=small))
    folder = tmp_path / "tasks" / "imdb"
    folder.mkdir(parents=True)
    rows = "".join(f"{label}\tsome {word} film {n}\n" for n in range(60)
                   for label, word in (("pos", "good"), ("neg", "bad")))  # fmt: skip
    for part in ("train", "test"):
        with gzip.open(folder / f"{part}.tsv.gz", "wt", encoding="utf-8") as file:
            file.write("label\ttext\n" + rows)
    status, out, err = call("reproduce", "imdb-lstm", "--data", str(tmp_path))
    assert status == 0, err
    lines = [line.split(maxsplit=2) for line in out.splitlines()]
    assert lines[1][0] == "ours"
    assert float(lines[1][1]) > 0.9
    assert ["floor", "1.000", "bag of words"] in lines
    assert ["published", "0.844", "the textbook"] in lines
    assert ["measured", "0.843", "the same network in plain torch"] in lines
    assert ["aim", "0.855", "reached"] in lines
    content = json.loads(call("reproduce", "imdb-lstm", "--json")[1])
    assert content["ours"]["test"]["accuracy"] > 0.9
    assert content["floors"] == {"bag of words": 1.0, "majority": 0.5}
    assert content["aim"] == 0.855


def test_the_aim_of_an_error_is_its_greatest_value() -> None:
    low = replace(RECIPES["imdb-rnn"], figure="mse", aim=1e-5)
    assert low.reached(1e-6)
    assert not low.reached(1e-4)
    assert not RECIPES["imdb-rnn"].reached(0.8)


def test_the_cosine_obeys_its_linear_recurrence(tmp_path: Path) -> None:
    """Each value follows from the two before it, to rounding; two calls write equal bytes."""
    path = made_texts("cosine", None, tmp_path)["train"]
    name, *lines = path.read_text().splitlines()
    values = [float(line) for line in lines]
    assert (name, len(values), values[0]) == ("value", 50_000, 100.0)
    decay, angle = math.exp(-1e-4), 2 * math.pi / 1000
    for one, two, three in zip(values, values[1:], values[2:], strict=False):
        assert abs(three - (2 * decay * math.cos(angle) * two - decay**2 * one)) < 1e-10
    before = path.read_bytes()
    assert made_texts("cosine", None, tmp_path)["train"].read_bytes() == before


def test_sums_are_right_and_none_is_asked_twice(tmp_path: Path) -> None:
    """Neither within a part nor in two parts, in either order of the numbers."""
    parts = made_texts("addition", None, tmp_path)
    rows = [line for part in ("train", "valid", "test")
            for line in parts[part].read_text().splitlines()[1:]]  # fmt: skip
    pairs = set()
    for row in rows:
        question, result = row.split("\t")
        a, b = map(int, question.split("+"))
        assert a + b == int(result)
        pairs.add(frozenset((a, b)))
    assert len(rows) == len(pairs) == 50_000
    assert max(len(row.split("\t")[0]) for row in rows) == 7
