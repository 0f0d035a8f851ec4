"""The n-gram companion that training fits: figures, files, and when there is none."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import Call, started

import charlm
from charlm.backends.mixed import mixed_nats
from charlm.backends.softmax import log_softmax
from charlm.errors import EnvironmentFailure
from charlm.files.atomic import json_bytes
from charlm.inference.adapt.calibration import text_logits
from charlm.inference.adapt.mixture import fit_to_ngrams
from charlm.inference.likelihood import text_nats
from charlm.ngrams.kneser_ney import fit
from charlm.runs.layout import COMPANION, read_config, read_record, write_record
from charlm.runs.mixtures import scaled
from charlm.runs.run import load_run
from charlm.runs.verify import verify_run
from charlm.text.tokenizers.tokenizer_json import EOS
from charlm.training import calibrating, companion
from charlm.training.plan import constants
from charlm.training.records import FinishedRecord
from charlm.training.resume import resume

TEXT = "abc abd\nab ca\n" * 40
TINY = {
    "embedding": 3, "layers": 1, "steps": 12, "batch": 2, "bptt": 4, "seed": 1, "hidden": 4,
    "precision": "fp32", "threads": 1, "learning_rate": 0.05, "cell": "gru",
}  # fmt: skip


def finished(path: Path, **changes) -> FinishedRecord:
    return list(charlm.train(text=TEXT, checkpoints=path, name="x", **(TINY | changes)))[-1]


def files_of(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_its_figures_are_those_of_the_validation_text(tmp_path: Path) -> None:
    record = finished(tmp_path, ngram=3)
    mixed, run = charlm.load(str(tmp_path / "x"), with_="ngram"), load_run(tmp_path / "x")
    valid, found = run.kept("valid"), record.companion
    model, _ = fit(np.asarray(run.kept("train").ids), len(run.vocabulary), 3)
    nats = [text_nats(run.backend, valid), model.text_nats(valid.ids)]
    assert found.order == 3
    assert found.network_nats_per_token == pytest.approx(record.valid.nats_per_token, rel=1e-6)
    assert found.ngram_nats_per_token == pytest.approx(nats[1].mean(), rel=1e-6)
    config = read_config(tmp_path / "x" / COMPANION)
    by_length = np.array(config["mixture_by_length"])
    assert found.weight == pytest.approx(by_length[model.text_figures(valid.ids)[1]].mean())
    assert mixed.mixture.weights == pytest.approx((1 - found.weight, found.weight), abs=1e-12)
    both = text_nats(mixed.run.backend, valid).mean()
    assert found.mixture_nats_per_token == pytest.approx(both, rel=1e-6)
    logits = scaled(run, config["mixture_scale"]).backend
    lengths = by_length[model.text_figures(valid.ids)[1]]
    by_hand = mixed_nats(
        [text_nats(logits, valid), model.text_nats(valid.ids)], np.stack([1 - lengths, lengths])
    )
    assert both == pytest.approx(by_hand.mean(), rel=1e-6)
    assert both <= min(found.network_nats_per_token, found.ngram_nats_per_token) + 1e-6
    assert found.bytes == (tmp_path / "x" / "ngram" / "ngrams.safetensors").stat().st_size


@pytest.mark.parametrize("calibrate", [True, False])
def test_its_factor_is_fitted_on_logits_that_are_computed_once(
    calibrate: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those on which the network was calibrated; the factor is one beyond its calibration."""
    read = []
    monkeypatch.setattr(
        calibrating, "text_logits", lambda *given: (read.append(given), text_logits(*given))[1]
    )
    record = finished(tmp_path, ngram=3, calibrate=calibrate, average=0)
    assert len(read) == 1
    assert (record.logit_scale == 1.0) == (not calibrate)
    run = load_run(tmp_path / "x")
    valid, ngrams = run.kept("valid"), load_run(tmp_path / "x" / COMPANION).backend.model
    sample = text_logits(run.backend, valid)
    alone, *_ = fit_to_ngrams(lambda factor: scaled(run, factor).backend, ngrams, valid, sample)
    config = read_config(tmp_path / "x" / COMPANION)
    assert config["mixture_scale"] == pytest.approx(alone.scale, rel=1e-4)
    assert config["mixture_by_length"] == pytest.approx(alone.by_length, abs=1e-3)


@pytest.mark.parametrize(("unit", "order"), [("char", 7), ("word", 5)])
def test_it_is_fitted_by_default_and_reported_everywhere(
    call: Call, here: Path, unit: str, order: int
) -> None:
    Path("t.txt").write_text(TEXT)
    flags = ["--steps", "3", "--hidden", "4", "--seed", "1", "--precision", "fp32"]
    status, _, err = call("train", "t.txt", "--unit", unit, "--name", "x", *flags)
    assert status == 0, err
    figures = read_record(Path("checkpoints/x"))["results"]["companion"]
    shown = f"{order}-gram {figures['ngram_nats_per_token']:.4f}, both "
    card = Path("checkpoints/x/README.md").read_text()
    for text in (err, call("info", "--run", "x")[1], card):
        assert shown in " ".join(text.split())
    valid = read_record(Path("checkpoints/x"))["results"]["valid"]
    assert figures["network_nats_per_token"] == pytest.approx(valid["nats_per_token"], rel=1e-6)
    assert call("verify", "--run", "x")[0] == 0
    for verb in (["score", "abc"], ["sample", "--seed", "1"], ["next", "ab"]):
        status, _, err = call(*verb, "--run", "x", "--with", "ngram")
        assert (status, "ngram (weights recorded in training; means" in err) == (0, True), err


@pytest.mark.parametrize("changes", [{"ngram": 0}, {"valid_fraction": 0}])
def test_none_is_fitted_without_its_order_or_validation_text(tmp_path: Path, changes) -> None:
    assert finished(tmp_path, **changes).companion is None
    assert not (tmp_path / "x" / COMPANION).exists()
    assert read_record(tmp_path / "x")["results"]["companion"] is None


def test_a_long_text_has_none_unless_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "MAX_TOKENS_OF_NGRAMS", 100)
    assert finished(tmp_path).companion is None
    assert finished(tmp_path, ngram=2, overwrite=True).companion.order == 2


def test_orders_with_too_many_n_grams_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are those of a lower order from the start."""
    monkeypatch.setattr(companion, "MAX_NGRAMS", 30)
    assert finished(tmp_path).companion.order == 2
    mixed, run = charlm.load(str(tmp_path / "x"), with_="ngram"), load_run(tmp_path / "x")
    model, _ = fit(np.asarray(run.kept("train").ids), len(run.vocabulary), 2)
    assert mixed.run.backend.backends[1].model.sizes == model.sizes
    assert sum(model.sizes) <= 30


def test_a_stopped_run_has_none_until_it_is_complete(tmp_path: Path) -> None:
    """Then it equals the companion of a run that never stopped."""
    session = started(tmp_path, "x", steps=12, valid_frac=0.2)
    for record in session.records():
        session.trainer.stop("interrupted")
        last = record
    assert last.companion is None
    assert not (tmp_path / "x" / COMPANION).exists()
    list(resume(tmp_path / "x").records())
    list(started(tmp_path, "y", steps=12, valid_frac=0.2).records())
    assert files_of(tmp_path / "x" / COMPANION) == files_of(tmp_path / "y" / COMPANION)


def test_a_run_that_is_made_longer_gets_another_weight(tmp_path: Path) -> None:
    """While it trains it has no companion, whose weight would be of the old network."""
    before = finished(tmp_path, ngram=1).companion
    session = resume(tmp_path / "x", {"training": {"steps": 40}})
    assert not (tmp_path / "x" / COMPANION).exists()
    after = list(session.records())[-1].companion
    assert after.weight != before.weight
    assert after.ngram_nats_per_token == before.ngram_nats_per_token


def test_a_run_of_an_older_version_gets_one_when_it_is_made_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless its text is too long."""
    finished(tmp_path)
    shutil.rmtree(tmp_path / "x" / COMPANION)
    record = read_record(tmp_path / "x")
    del record["settings"]["training"]["ngram"], record["results"]["companion"]
    write_record(tmp_path / "x", record)
    assert not [check for check in verify_run(tmp_path / "x") if check.problems]
    assert charlm.load(str(tmp_path / "x")).score("abc")
    last = list(resume(tmp_path / "x", {"training": {"steps": 20}}).records())[-1]
    assert last.companion.order == 7
    monkeypatch.setattr(constants, "MAX_TOKENS_OF_NGRAMS", 100)
    write_record(tmp_path / "x", record)
    last = list(resume(tmp_path / "x", {"training": {"steps": 30}}).records())[-1]
    assert last.companion is None


def test_a_full_disk_costs_the_companion_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise EnvironmentFailure("no space left")

    monkeypatch.setattr(companion, "commit_folder", full)
    record = finished(tmp_path)
    assert (record.complete, record.companion) == (True, None)
    assert any("no space left" in text for text in record.warnings)
    assert read_record(tmp_path / "x")["whole"]


def test_verify_names_a_damaged_companion(call: Call, tmp_path: Path) -> None:
    finished(tmp_path)
    file = tmp_path / "x" / COMPANION / "ngrams.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    status, out, _ = call("verify", "--run", str(tmp_path / "x"))
    assert status == 4
    assert "ngram/" in out


def test_it_has_the_text_of_the_run_around_it(call: Call, tmp_path: Path) -> None:
    """So it can be evaluated, compared and fitted again; the run around it describes both."""
    figures = finished(tmp_path, ngram=2).companion
    own, place = str(tmp_path / "x" / COMPANION), ["--checkpoints", str(tmp_path)]
    status, out, err = call("eval", "--run", own, "--json")
    assert status == 0, err
    assert json.loads(out)["nats_per_token"] == pytest.approx(figures.ngram_nats_per_token)
    status, out, err = call("compare", "x", "x/ngram", "--json", *place)
    assert [run["run"] for run in json.loads(out)["runs"]] == ["x", "x/ngram"], err
    status, _, err = call("ngram", "--like", own, *place)
    assert status == 0, err
    status, _, err = call("info", "--run", own)
    assert (status, "the companion of x" in err) == (2, True)


def test_each_half_of_a_pair_has_its_own(tmp_path: Path) -> None:
    """Backward n-grams read the text from its end, as their network does."""
    finished(tmp_path, direction="both", ngram=3)
    for path, direction in ((tmp_path / "x", "both"), (tmp_path / "x" / "backward", "backward")):
        mixed = charlm.load(str(path), with_="ngram")
        assert mixed.config["model"]["direction"] == direction
        weights = read_config(path / COMPANION)["mixture_weight"]
        assert mixed.mixture.weights[1] == weights
        assert mixed.score("abc abd")[0].tally.nats > 0
    same = [read_config(tmp_path / "x" / half / COMPANION) for half in ("", "backward")]
    assert same[0]["model"]["direction"] != "backward"
    assert same[1]["model"]["direction"] == "backward"


def test_weights_that_do_not_fit_the_n_grams_are_fitted_again(tmp_path: Path) -> None:
    """A companion of an older version has one weight, which is used as before."""
    finished(tmp_path, ngram=3)
    own = tmp_path / "x" / COMPANION
    config = read_config(own) | {"mixture_by_length": [0.9, 0.5, 0.25], "mixture_scale": 2.0}
    short = config | {"mixture_by_length": config["mixture_by_length"][:-1]}
    older = {k: v for k, v in config.items() if k not in ("mixture_by_length", "mixture_scale")}
    cases = {
        "recorded in training; means": config,
        "fitted on": short,
        "recorded in training)": older,
    }
    for origin, content in cases.items():
        (own / "config.json").write_bytes(json_bytes(content | {"mixture_weight": 0.25}))
        mixed = charlm.load(str(tmp_path / "x"), with_="ngram")
        assert origin in str(mixed.mixture)
        assert len(mixed.mixture.mixing.by_length) == (0 if content is older else 3)
        again = pickle.loads(pickle.dumps(mixed))
        assert again.mixture.mixing == mixed.mixture.mixing
        assert again.score("abc")[0].tally.nats == mixed.score("abc")[0].tally.nats
    (own / "config.json").write_bytes(json_bytes(config))
    mixed, run = charlm.load(str(tmp_path / "x"), with_="ngram"), load_run(tmp_path / "x")
    inputs, both = np.full((1, 1), EOS), mixed.run.backend
    rows = [
        log_softmax(factor * backend.logits(inputs, backend.initial_state(1))[0])
        for factor, backend in ((2.0, run.backend), (1.0, load_run(own).backend), (1.0, both))
    ]
    network, ngrams, mixture = np.exp(rows)  # one token is known
    assert mixture == pytest.approx(0.5 * network + 0.5 * ngrams, abs=1e-6)
    given = charlm.load(str(tmp_path / "x"), with_="ngram=0.3").mixture
    assert (given.weights, given.mixing.by_length) == ((0.7, 0.3), ())


# Evaluation


def test_eval_shows_network_n_grams_and_mixture(call: Call, tmp_path: Path) -> None:
    """The companion is used if it has the order, else n-grams are fitted; both are the same."""
    finished(tmp_path, ngram=3)
    place = ["--run", str(tmp_path / "x")]
    stored, half = call("eval", *place, "--ngram", "3", "--json"), "2nd half of valid"
    shutil.rmtree(tmp_path / "x" / COMPANION)
    fitted = call("eval", *place, "--ngram", "3", "--json")
    assert (stored[0], fitted[0]) == (0, 0)
    one, two = json.loads(stored[1]), json.loads(fitted[1])
    assert list(one) == ["valid", half, f"{half}, 3-gram", f"{half}, mixture"]
    for name in one:
        assert one[name]["nats"] == pytest.approx(two[name]["nats"], rel=1e-6)
    assert "(weights fitted on the first half of valid; means" in fitted[2]
    run = load_run(tmp_path / "x")
    valid = np.asarray(run.kept("valid").ids)
    model, _ = fit(np.asarray(run.kept("train").ids), len(run.vocabulary), 3)
    expected = model.text_nats(valid)[len(valid) // 2 :].sum()
    assert two[f"{half}, 3-gram"]["nats"] == pytest.approx(expected, rel=1e-6)
