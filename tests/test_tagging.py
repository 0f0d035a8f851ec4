"""Tags of words by a run: equal in every engine and in any company; spans lie in the text."""

from pathlib import Path

import numpy as np
import pytest
from tagged_runs import PARTS, SPANS, WORDS, tag_run
from test_labelling import NATIVE, PLAIN

from charlm.errors import RunError, UsageError
from charlm.runs.layout import LETTERS
from charlm.runs.run import load_run
from charlm.runs.tag_run import load_tag_run
from charlm.runs.task_run import load_task_run
from charlm.text.spans import legal

SENTENCES = [
    ["Anna", "lives"], [], ["unknown", "e\u0301te\u0301", "\U0001f600"], WORDS.split(), ["Bob"],
]  # fmt: skip


@pytest.mark.parametrize("engine", ["numpy", *NATIVE])
@pytest.mark.parametrize("letters", [True, False])
@pytest.mark.parametrize("cell", PLAIN)
def test_every_engine_gives_the_scores_of_torch(
    cell: str, letters: bool, engine: str, tmp_path: Path
) -> None:
    path = tag_run(tmp_path / "x", cell=cell, letters=letters, scale=1.5)
    run = load_tag_run(path, engine="torch")
    if letters and engine == "native":
        with pytest.raises(UsageError, match="engine='native' with run x, which reads the letters"):
            load_tag_run(path, engine=engine)
        return
    other = load_tag_run(path, engine=engine)
    assert other.engine.startswith("numpy" if letters else engine)
    sentences = run.encode(SENTENCES * 30)  # more than are read side by side
    own, found = run.reader.features(sentences), other.reader.features(sentences)
    assert np.abs(own - found).max() < 1e-6
    assert np.abs(run.reader.emissions(sentences) - other.reader.emissions(sentences)).max() < 1e-5


@pytest.mark.parametrize(("both_ways", "unit"), [(True, "word"), (False, "word"), (True, "char")])
@pytest.mark.parametrize("engine", ["numpy", "torch", *NATIVE])
def test_a_sentence_has_alone_the_tags_that_it_has_among_others(
    engine: str, both_ways: bool, unit: str, tmp_path: Path
) -> None:
    path = tag_run(
        tmp_path / "x",
        both_ways=both_ways,
        unit=unit,
        letters=unit == "word" and engine != "native",
    )
    run = load_tag_run(path, engine=engine)
    sentences = run.encode(SENTENCES)
    together, begin = run.answers(sentences), 0
    for words, end in zip(SENTENCES, sentences.ends.tolist(), strict=True):
        alone = run.answers(run.encode([words]))
        assert alone.tags.tolist() == together.tags[begin:end].tolist()
        difference = alone.log_probabilities - together.log_probabilities[begin:end]
        assert len(words) == len(alone.tags)
        assert np.abs(difference).max(initial=0.0) < 1e-5
        begin = end


def test_tags_of_spans_are_legal(tmp_path: Path) -> None:
    """Also in sentences of one word, which begin and end there."""
    run = load_tag_run(tag_run(tmp_path / "x"))
    steps = legal(SPANS)
    for words in SENTENCES:
        before = len(SPANS)
        for tag in run.answers(run.encode([words])).tags:
            assert steps[before, tag]
            before = int(tag)


def test_probabilities_are_calibrated_with_the_steps(tmp_path: Path) -> None:
    """The factor multiplies all scores: with a huge one the chosen path has all probability."""
    run = load_tag_run(tag_run(tmp_path / "x", scale=200.0))
    answers = run.answers(run.encode(SENTENCES))
    chosen = answers.log_probabilities[np.arange(len(answers.tags)), answers.tags]
    assert np.exp(chosen).min() > 0.99
    other = load_tag_run(tag_run(tmp_path / "y"))
    assert other.answers(other.encode(SENTENCES)).tags.tolist() == answers.tags.tolist()


def test_a_model_that_only_torch_computes_is_read_by_torch(tmp_path: Path) -> None:
    path = tag_run(tmp_path / "x", cell="lstm-peephole", labels=PARTS)
    run = load_tag_run(path)
    assert run.engine == "torch cpu" and run.steps is None
    assert run.answers(run.encode(SENTENCES)).log_probabilities.shape == (22, 3)


def test_damage_and_misuse_are_refused(tmp_path: Path) -> None:
    path = tag_run(tmp_path / "names")
    with pytest.raises(UsageError, match=r"gives tags, not text.*charlm predict --run .*names"):
        load_run(path)
    letters = path / LETTERS
    letters.write_text(letters.read_text("utf-8").replace('"A"', '"\u00e4"'), encoding="utf-8")
    with pytest.raises(RunError, match=r"letters.json: not as written"):
        load_task_run(path)
