"""Series of numbers: reading them, batches of them, and the figures of forecasts."""

import json
import math
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import seeded

from charlm.backends.series_weights import series_shapes, series_weights
from charlm.config.corpus import CorpusSettings, ReadSettings
from charlm.config.model import ModelSettings
from charlm.config.settings import Settings
from charlm.config.task import TaskSettings
from charlm.errors import CorpusError, UsageError
from charlm.inference.figures import figures_from
from charlm.inference.series import ArraySeries, evaluate_series, forecast, forecasts
from charlm.nn.devices import Precision
from charlm.nn.series import SeriesModel, TorchSeries
from charlm.tasks.series import SeriesLoss
from charlm.text.batches import BatchSpec, Position
from charlm.text.dataset import Dataset
from charlm.text.encoded import EncodedText, write_encoded
from charlm.text.series import SERIES_TEXT, Scales, Series, read_numbers, read_values
from charlm.text.series_batches import SeriesBatches
from charlm.text.series_floors import Recurrence
from charlm.text.sources.text_lines import FileRules

SCALES = Scales(0.5, 2.0, 0.25)
WAVE = 5.0 * np.cos(np.arange(200) / 7.0) * np.exp(-np.arange(200) / 90.0) + 3.0
no_note = lambda sentence: None  # noqa: E731


def model_of(cell: str = "lstm", hidden: int = 5, **more) -> SeriesModel:
    """Return a model with random weights; initial ones of the head are zero."""
    settings = ModelSettings(
        cell=cell, hidden_size=hidden, embedding_size=3, num_layers=2, dropout=0.0, **more
    )
    model = SeriesModel(settings, 2)
    model.reset_parameters(seeded(1))
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.3 * torch.randn(weight.shape, generator=seeded(2)))
    return model.requires_grad_(False)


def arrays_of(model: SeriesModel) -> dict:
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def text_of(values) -> EncodedText:
    return EncodedText.stream(np.ones(len(values) - 1, np.uint8))


def load(**options) -> Dataset:
    return SERIES_TEXT.load(Settings(corpus=CorpusSettings(**options)))


# ------------------------------------------------------------------ reading


def written(name: str, content: str) -> str:
    Path(name).write_text(content)
    return name


def copies(values) -> list[str]:
    """Write one series in several formats; repr has all digits."""
    rows = [(f"2024-{number}", repr(float(value))) for number, value in enumerate(values)]
    return [
        written("a.csv", "time,value\n" + "".join(f"{t},{v}\n" for t, v in rows)),
        written("a.tsv", "time\tlevel\n" + "".join(f"{t}\t{v}\n" for t, v in rows)),
        written("a.jsonl", "".join(f'{{"time": "{t}", "value": {v}}}\n' for t, v in rows)),
        written("a.json", json.dumps([{"value": float(v), "n": i} for i, v in enumerate(values)])),
        written("a.txt", "".join(f" {v}\r\n" for _, v in rows) + "\n\n"),
    ]  # fmt: skip


def test_every_format_gives_equal_bytes(here) -> None:
    folders = []
    for number, name in enumerate(copies(WAVE)):
        dataset = load(sources=(name,))
        for split in ("train", "valid"):
            folder = Path(f"{number}", split)
            write_encoded(folder, dataset.split(split))
            dataset.labelled.write(folder, split)
        folders.append(sorted((p.name, p.read_bytes()) for p in Path(f"{number}").rglob("*.*")))
        assert np.array_equal(read_values(Path(f"{number}", "train"), 179), WAVE[:180])
        assert dataset.fingerprint == SERIES_TEXT.fingerprint(
            CorpusSettings(sources=(name,)), TaskSettings()
        )
    assert all(each == folders[0] for each in folders)


def test_a_lone_cr_ends_a_line_of_numbers_and_is_reported(here) -> None:
    """A file of an old Mac was refused as one line."""
    warnings: list[str] = []
    Path("mac.txt").write_bytes(b"1\r2.5\r-3\r")
    _, values = read_numbers(["mac.txt"], FileRules(warn=warnings.append))
    assert values.tolist() == [1.0, 2.5, -3.0]
    assert ["mac.txt ends lines with a lone CR" in warning for warning in warnings] == [True]


def test_a_file_in_another_encoding_is_named_with_it(here) -> None:
    Path("x.txt").write_bytes("1\n2\n20 °C, schön\n".encode("latin-1"))
    with pytest.raises(CorpusError, match=r"x\.txt: line 3, .*the file seems to be CP1252"):
        read_numbers(["x.txt"], FileRules())


def test_the_end_is_held_out_after_what_comes_before_it(here, monkeypatch) -> None:
    monkeypatch.setattr("charlm.text.series.CONTEXT", 30)
    dataset = load(sources=(copies(WAVE)[0],), valid_frac=0.25)
    series = dataset.labelled
    assert isinstance(series, Series) and series.steps == {"train": 149, "valid": 50}
    assert np.array_equal(series.values["valid"], WAVE[120:])
    assert len(dataset.train.ids) == 149 and len(dataset.valid.ids) == 50


def test_files_of_their_own_have_no_numbers_before_them(here) -> None:
    written("b.csv", "level,value,other\n" + "1,5,x\n2,7,y\n" * 3)
    dataset = load(sources=(copies(WAVE)[1],), valid=("b.csv",), test=("a.txt",))
    series = dataset.labelled
    assert series.column == "level"
    assert series.values["valid"].tolist() == [1.0, 2.0] * 3  # the column of training, not "value"
    assert series.steps == {"train": 199, "valid": 5, "test": 199}


def test_bare_numbers_of_json_are_refused_with_advice_for_numbers(here) -> None:
    """It was the advice for texts."""
    for name, content in (("x.json", "[1, 2, 3]"), ("x.jsonl", "1\n2\n3\n")):
        with pytest.raises(CorpusError) as caught:
            load(sources=(written(name, content),))
        assert str(caught.value) == (
            f'{name}: line 1 holds the number 1, expected an object such as {{"value": 1.5}}. '
            "Write the numbers so, or one on each line of a text file."
        )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("value\n1\n2\nn/a\n3\n", "line 4 holds 'n/a'; expected a number"),
        ("value\n1\n\n3\n", "line 3 has no number"),
        ("t,value\n1,1\n\n3,3\n", "line 3 has no number"),
        ("t,value\n1,1\n2,\n3,3\n", "line 3 has no number"),
        ("value\n1\nNaN\n3\n", "line 3 holds 'NaN'"),
        ("value\n1\ninf\n3\n", "line 3 holds 'inf'"),
        ("value\n1\n1e151\n3\n", "line 3 holds 1e151; expected at most 1e+150"),
        ("value\n1\n1_0\n3\n", "line 3 holds '1_0'"),
        ("value\nlow\n1\n", "line 2 holds 'low'; expected a number. Choose a column"),
        ('value\n"1,200"\n3\n', "line 2 holds '1,200'; expected a number with a decimal point and"),
        ("value\n" + f"{2**53 + 1}\n" * 40, "which float64 would round to 9007199254740992"),
        ("value\n" + "0\n1e-320\n" * 40, "differ by at most 9.99989e-321; expected a series"),
        ("t;value\na;1\na;1,5\n", "line 3 holds '1,5'; expected a number with a decimal point"),
        ("a,b\n1,2\n3,4\n", "several columns of numbers. Its columns: a, b. Choose one"),
        ("a,b\nx,2 m\ny,3 m\n", "If a column has a gap or a decimal comma, name it with column"),
        ("value\n" + "1\n" * 31, "has 31 numbers; expected at least 32"),
        (
            "value\n" + "1\n" * 40,
            "numbers are 1; expected a series that changes. Give another column or file",
        ),
        ("1\n2\n", "the first row looks like data"),
    ],
)
def test_anything_but_a_series_is_refused_with_its_place(here, content, message) -> None:
    with pytest.raises(CorpusError) as caught:
        load(sources=(written("x.csv", content),))
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert str(caught.value).startswith("x.csv")


def test_a_column_that_is_not_there_is_named_with_its_neighbour(here) -> None:
    name = copies(WAVE)[1]
    with pytest.raises(CorpusError, match=r'no column "levle".*Did you mean "level"'):
        load(sources=(name,), column="levle")
    with pytest.raises(CorpusError, match="2 files were named"):
        load(sources=(name, "a.csv"))
    with pytest.raises(UsageError, match="column"):
        load(sources=("a.txt",), column="level")
    rules = FileRules(settings=ReadSettings(column="2"))
    assert read_numbers([name], rules)[1].tolist() == WAVE.tolist()


@pytest.mark.parametrize("size", [-1, 3])
def test_damaged_numbers_are_refused(here, size) -> None:
    Path("values.bin").write_bytes(np.arange(5.0).tobytes()[:size])
    with pytest.raises(CorpusError, match="the numbers are damaged"):
        read_values(Path(), 4)
    Path("values.bin").write_bytes(np.array([1.0, np.nan]).tobytes())
    with pytest.raises(CorpusError, match="not all finite"):
        read_values(Path(), 1)


# ------------------------------------------------------------------ batches


@pytest.mark.parametrize("stateless", [False, True])
@pytest.mark.parametrize("epoch", [0, 3])
def test_every_step_is_a_target_once_in_an_epoch(stateless, epoch) -> None:
    values = np.arange(150.0) ** 1.5 - 40.0  # every change is different; some values are -1
    spec = BatchSpec(batch_size=4, bptt=9, stateless=stateless, seed=5)
    scales = Scales.of(values)
    batches = SeriesBatches(text_of(values), values, scales, spec)
    seen, after = [], {}
    for batch in batches.epoch(Position(epoch=epoch)):
        assert batch.tokens == batch.real.sum() and batch.inputs.dtype == np.float32
        if batch.first:
            assert not batch.inputs[0, :, 1].any()
            after = {}
        for column, before in enumerate(batch.kept):
            length = batch.real[:, column].sum()
            starts = batch.inputs[:length, column, 0] * scales.scale + scales.mean
            ends = starts + batch.targets[:length, column] * scales.change
            assert np.allclose(starts[1:], ends[:-1], rtol=1e-5, atol=1e-2)
            changes = batch.inputs[1:length, column, 1]
            assert np.allclose(changes, batch.targets[: length - 1, column], atol=1e-6)
            if not batch.first:
                assert np.isclose(starts[0], after[before], rtol=1e-5, atol=1e-2)
                assert batch.inputs[0, column, 1] != 0.0
            seen += ends.tolist()
        lasts = batch.real.sum(axis=0)
        after = {
            column: batch.inputs[n - 1, column, 0] * scales.scale
            + scales.mean
            + batch.targets[n - 1, column] * scales.change
            for column, n in enumerate(lasts)
        }
    assert np.allclose(sorted(seen), sorted(values[1:]), rtol=1e-5, atol=1e-2)
    assert not batch.inputs[~batch.real].any()


def test_a_batch_in_parts_is_the_batch() -> None:
    batches = SeriesBatches(text_of(WAVE), WAVE, SCALES, BatchSpec(batch_size=5, bptt=50))
    for batch in batches.epoch(Position()):
        parts = batch.split(2)
        assert sum(part.tokens for part in parts) == batch.tokens
        assert np.array_equal(np.hstack([part.targets for part in parts]), batch.targets)
        assert np.array_equal(np.hstack([part.real for part in parts]), batch.real)


# ------------------------------------------------------------------ forecasts and figures


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_numpy_and_torch_agree(cell) -> None:
    model = model_of(cell)
    assert {k: v.shape for k, v in arrays_of(model).items()} == series_shapes(model.settings, 2, {})
    plain = ArraySeries(series_weights(model.settings, arrays_of(model)))
    for window in (None, 8):
        torchs, arrays = (
            forecasts(reader, WAVE, SCALES, window) for reader in (TorchSeries(model), plain)
        )
        for one, other in zip(torchs, arrays, strict=True):
            assert np.allclose(one, other, atol=1e-5)
    (one,), (other,) = (forecast(each, WAVE, 5, SCALES) for each in (plain, TorchSeries(model)))
    assert np.allclose(one, other, atol=1e-4)


def reader_of(**more) -> ArraySeries:
    model = model_of(**more)
    return ArraySeries(series_weights(model.settings, arrays_of(model)))


def test_a_series_in_pieces_equals_the_whole(monkeypatch) -> None:
    reader = reader_of()
    whole = forecasts(reader, WAVE, SCALES)
    monkeypatch.setattr("charlm.inference.series.READ_AT_ONCE", 7)
    for one, other in zip(forecasts(reader, WAVE, SCALES), whole, strict=True):
        assert np.allclose(one, other, atol=1e-6)
    counts = evaluate_series(reader, WAVE, 60, SCALES)
    first, second = (
        evaluate_series(reader, values, steps, SCALES)
        for values, steps in ((WAVE[:170], 30), (WAVE, 30))
    )
    both, one = ((c.squares, c.absolutes, c.nats, c.values) for c in (first + second, counts))
    assert both == pytest.approx(one, rel=1e-5)


def test_numbers_long_before_do_not_matter() -> None:
    """Held-out numbers are read after a context, not after the whole series."""
    after_all = evaluate_series(reader_of(), WAVE, 30, SCALES)
    after_some = evaluate_series(reader_of(), WAVE[80:], 30, SCALES)
    assert after_some.mse == pytest.approx(after_all.mse, rel=1e-4)
    assert after_some.nats_per_value == pytest.approx(after_all.nats_per_value, abs=1e-4)


def test_a_reservoir_keeps_its_inputs() -> None:
    """As the embedding of an echo state network of text, they are never trained."""
    names = {name for name, w in model_of("esn").named_parameters() if "embedding" in name}
    settings = model_of("esn").settings
    trained = SeriesModel(settings, 2)
    assert names and not any(trained.get_parameter(name).requires_grad for name in names)


def test_windows_forget_what_was_before_them() -> None:
    reader, window = reader_of(), 10
    means, _ = forecasts(reader, WAVE, SCALES, window)
    for begin in (0, 10, 190):
        alone, _ = forecasts(reader, WAVE[begin : begin + window + 1], SCALES)
        assert np.allclose(means[begin : begin + window], alone, atol=1e-6)
    read = evaluate_series(reader, WAVE, 25, SCALES, window=window)
    assert read.nats == evaluate_series(reader, WAVE[-26:], 25, SCALES, window=window).nats


def test_the_future_is_not_seen() -> None:
    reader, changed = reader_of(), WAVE.copy()
    changed[150:] += 9.0
    for window in (None, 8):
        before = [f[:149] for f in forecasts(reader, WAVE, SCALES, window)]
        after = [f[:149] for f in forecasts(reader, changed, SCALES, window)]
        assert np.array_equal(before, after)


@pytest.mark.parametrize("window", [None, 6])
def test_an_untrained_model_forecasts_the_last_number(window) -> None:
    model = model_of()
    model.reset_parameters(seeded(3))
    for reader in (TorchSeries(model), reader_of_untrained(model)):
        counts = evaluate_series(reader, WAVE, 150, SCALES, window=window)
        assert (
            counts.squares
            == counts.last_squares
            == pytest.approx(np.sum(np.diff(WAVE)[-150:] ** 2), rel=1e-12)
        )
        (numbers,) = forecast(reader, WAVE, 4, SCALES, window=window)
        assert numbers.tolist() == [WAVE[-1]] * 4


def reader_of_untrained(model: SeriesModel) -> ArraySeries:
    return ArraySeries(series_weights(model.settings, arrays_of(model)))


def test_a_forecast_feeds_back_its_means() -> None:
    reader = reader_of()
    for window in (None, 12):
        (numbers,) = forecast(reader, WAVE, 6, SCALES, window=window)
        series = np.append(WAVE, numbers)
        for at in range(len(WAVE), len(series)):
            begin = 0 if window is None else at - window
            means, _ = forecasts(reader, series[begin : at + 1], SCALES)
            assert series[at] == pytest.approx(means[-1], abs=1e-4)


def test_forecasts_at_a_temperature_follow_their_seed() -> None:
    reader = reader_of()

    def draw(samples=1, **options):
        options = {"temperature": 1.0, "seed": 3, **options}
        return [
            each.tolist() for each in forecast(reader, WAVE, 8, SCALES, samples=samples, **options)
        ]

    assert draw() == draw() != draw(seed=4)
    two = draw(samples=2)
    assert two[:1] == draw() and two[0] != two[1]
    assert draw(temperature=0.0) == draw(temperature=0.0, seed=9)
    drawn = [first for first, *_ in draw(samples=400)]
    means, deviations = forecasts(reader, np.append(WAVE, 0.0), SCALES)
    assert np.mean(drawn) == pytest.approx(means[-1], abs=4 * deviations[-1] / 20)
    assert np.std(drawn) == pytest.approx(deviations[-1], rel=0.15)
    assert not [each for each in forecast(reader, WAVE, 0, SCALES) if len(each)]


def test_figures_equal_those_of_scikit_learn_and_the_normal_density() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    reader = reader_of()
    counts = evaluate_series(reader, WAVE, 80, SCALES, recurrence=Recurrence.fit(WAVE[:120]))
    means, deviations = (each[-80:] for each in forecasts(reader, WAVE, SCALES))
    true = WAVE[-80:]
    assert (deviations > 0).all()
    assert counts.mse == pytest.approx(metrics.mean_squared_error(true, means))
    assert counts.mae == pytest.approx(metrics.mean_absolute_error(true, means))
    density = [
        math.exp(-(((x - m) / d) ** 2) / 2) / (d * math.sqrt(2 * math.pi))
        for x, m, d in zip(true, means, deviations, strict=True)
    ]
    assert counts.nats == pytest.approx(-np.sum(np.log(density)))
    assert counts.explained == pytest.approx(1 - counts.squares / np.sum((true - SCALES.mean) ** 2))
    assert figures_from(json.loads(json.dumps(counts.sums()))) == counts
    assert counts.summary()["values"] == counts.tokens == 80


def test_the_recurrence_knows_a_damped_oscillation_and_not_noise() -> None:
    fitted = Recurrence.fit(WAVE[:150])
    errors = WAVE[151:] - fitted.forecasts(WAVE[149:])[1:]
    assert np.mean(errors**2) < 1e-20
    noise = np.random.default_rng(0).standard_normal(4000)
    guesses = Recurrence.fit(noise[:2000]).forecasts(noise)
    assert np.mean((noise[1:] - guesses)[2000:] ** 2) == pytest.approx(1.0, rel=0.1)
    assert fitted.forecasts(WAVE[:2]).tolist() == [WAVE[0]]  # one number is too few
    assert np.allclose(fitted.forecasts(WAVE)[6:], fitted.forecasts(WAVE[5:])[1:])


# ------------------------------------------------------------------ the loss


def test_the_loss_is_the_nats_of_the_evaluation() -> None:
    model = model_of()
    scales = Scales.of(WAVE)
    spec = BatchSpec(batch_size=1, bptt=40)
    batches = SeriesBatches(text_of(WAVE), WAVE, scales, spec)
    loss, state, nats = (
        SeriesLoss(Precision(name="fp32", reason=""), math.log(scales.change)),
        None,
        0.0,
    )
    for batch in batches.epoch(Position()):
        _, batch_nats, state = loss(model, batch, state, torch.Generator())
        nats += float(batch_nats)
    counts = evaluate_series(TorchSeries(model), WAVE, len(WAVE) - 1, scales)
    assert nats == pytest.approx(counts.nats, rel=1e-5)


def test_the_scale_of_a_series_changes_only_the_unit_of_its_figures() -> None:
    model, other = model_of(), 4.0 * WAVE + 100.0
    ours, theirs = (
        evaluate_series(TorchSeries(model), values, 150, Scales.of(values))
        for values in (WAVE, other)
    )
    assert theirs.mse == pytest.approx(16 * ours.mse, rel=1e-4)
    assert theirs.nats_per_value == pytest.approx(ours.nats_per_value + math.log(4), abs=1e-5)
    assert theirs.explained == pytest.approx(ours.explained, rel=1e-5)
    spec = BatchSpec(batch_size=3, bptt=20)
    pairs = zip(
        *(
            SeriesBatches(text_of(values), values, Scales.of(values), spec).epoch(Position())
            for values in (WAVE, other)
        ),
        strict=True,
    )
    for one, two in pairs:
        assert np.allclose(one.inputs, two.inputs, atol=1e-6)
        assert np.allclose(one.targets, two.targets, atol=1e-6)


# ------------------------------------------------------------------ times beside a series


def doubts(rows: list[tuple[str, object]], name: str = "date") -> list[str]:
    """Return what is reported of a table with times and numbers, apart from its columns."""
    content = f"{name};value\n" + "".join(f"{time};{value}\n" for time, value in rows)
    sentences: list[str] = []
    read_numbers([written("times.csv", content)], FileRules(warn=sentences.append))
    assert all(sentence.startswith("times.csv: ") for sentence in sentences)
    return [sentence for sentence in sentences if "is read; fields" not in sentence]


DAYS = [(date(2024, 1, 30) + timedelta(days=n)).isoformat() for n in range(50)]
MONTHS = [f"{2000 + n // 12}-{n % 12 + 1:02d}-01" for n in range(50)]


@pytest.mark.parametrize(
    "form", ["{2}-{1}-{0}", "{0}.{1}.{2}", "{0}/{1}/{2}", "{1}/{0}/{2}", "{2}-{1}-{0}T10:30:00Z"]
)
def test_series_whose_times_fall(here, form: str) -> None:
    """Newest first, as many sites export prices: the series would be learned backwards."""
    times = [form.format(*reversed(day.split("-"))) for day in DAYS]
    assert not doubts([(time, n) for n, time in enumerate(times)])
    (doubt,) = doubts([(time, n) for n, time in enumerate(reversed(times))])
    assert f"fall, from {times[-1]} to {times[0]}" in doubt
    swapped = [times[0], times[2], times[1], *times[3:]]
    (doubt,) = doubts([(time, n) for n, time in enumerate(swapped)])
    assert 'line 4 is earlier than the row before it by the column "date", 1 such row' in doubt


def test_series_of_several_series(here) -> None:
    (doubt,) = doubts([(day, n) for n, day in enumerate(2 * DAYS)])
    assert '50 times of the column "date" occur again, such as 2024-01-30 (line 2 and' in doubt


def test_series_with_unequal_steps(here) -> None:
    """Months and years are equal enough; a day that is missing is not."""
    assert not doubts([(month, n) for n, month in enumerate(MONTHS)])
    assert not doubts([(str(1900 + n), n) for n in range(50)], "Year")
    rows = [(day, n) for n, day in enumerate(DAYS)]
    (doubt,) = doubts([*rows[:9], *rows[11:]])
    assert "1 of 47 steps" in doubt
    assert "the usual 1 day, the longest (3 days) before line 11" in doubt
    (doubt,) = doubts([(str(1900 + n + 4 * (n > 30)), n) for n in range(50)], "Year")
    assert "the usual 1, the longest (5) before line 33" in doubt


def test_series_of_weekdays(here) -> None:
    """Weekends and holidays are no gaps in prices of days of trading; two weeks are one."""
    rows = [(day, n) for n, day in enumerate(DAYS) if date.fromisoformat(day).weekday() < 5]
    assert not doubts(rows) and not doubts([*rows[:4], *rows[5:]])
    (doubt,) = doubts([*rows[:4], *rows[12:]])
    assert "1 of 27 steps" in doubt


def test_series_whose_times_have_two_columns(here) -> None:
    """A year occurs with each of its months, a date with each of its hours."""
    for names, rows in (
        ("year;month", [f"{1949 + n // 12};{n % 12 + 1}" for n in range(60)]),
        ("Date;Time", [f"{day};{hour}:00" for day in DAYS for hour in range(10, 24)]),
        ("date;hour", [f"{day};{hour}" for day in DAYS for hour in range(24)]),
    ):
        assert not doubts([(row, n) for n, row in enumerate(rows)], names)
    hours = [f"{day};{hour}:00" for day in DAYS for hour in range(24)]
    (doubt,) = doubts([(row, n) for n, row in enumerate(hours[::-1])], "date;time")
    assert f'the times of the column "date" fall, from {DAYS[-1]} to {DAYS[0]}' in doubt
    months = [f"{month};{year}" for month in range(1, 13) for year in range(1949, 1959)]
    (doubt,) = doubts([(row, n) for n, row in enumerate(months)], "month;year")
    assert 'line 12 is earlier than the row before it by the column "year", 11 such rows' in doubt
    pairs = [(f"{year};{land}", year) for land in ("A", "B") for year in range(1990, 2020)]
    (doubt,) = doubts(pairs, "year;country")
    assert "30 times" in doubt


def test_numbers_that_are_months_or_no_times(here) -> None:
    """202412 is followed by 202501; a column T of temperatures, and durations, have no order."""
    months = [f"{2000 + n // 12}{n % 12 + 1:02d}" for n in range(50)]
    assert not doubts([(month, n) for n, month in enumerate(months)])
    (doubt,) = doubts([(month, n) for n, month in enumerate(months) if n != 20])
    assert "1 of 48 steps" in doubt and "days" in doubt
    for name in ("T", "time"):
        assert not doubts([(str(7 * n % 50 / 2), n) for n in range(50)], name)


def test_a_sum_below_a_series(here) -> None:
    rows: list[tuple[str, object]] = [(day, n) for n, day in enumerate(DAYS)]
    (doubt,) = doubts([*rows, ("Total", 1225)])
    assert "line 52 has 'Total' in the column \"date\"" in doubt
    years = [(str(1960 + n), n) for n in range(50)]
    (doubt,) = doubts([*years[:40], ("nan", 1225), *years[40:]], "year")
    assert "line 42 has 'nan' in the column \"year\"" in doubt
    (doubt,) = doubts([*rows, ("2024-03-20", ""), ("2024-03-21", "")])
    assert "2 rows without a number at the end left out" in doubt


def test_columns_that_are_no_times(here) -> None:
    """Numbers are times by their name only; words and places are none."""
    assert not doubts([(str(50 - n), n) for n in range(50)], "id")
    assert not doubts([(f"{50 - n} Main St", n) for n in range(50)], "date")


@pytest.mark.parametrize(
    "form",
    [
        "%B %d, %Y", "%d %B %Y", "%Y-%m-%d %H:%M:%S UTC", "%Y-%m-%dT%H:%M:%S GMT",
        "%m/%d/%Y %I:%M %p", "%d-%b-%Y",
    ],
)  # fmt: skip
def test_times_as_programs_write_them(here, form: str) -> None:
    """Of these forms, a series that runs backwards was not reported."""
    times = [date.fromisoformat(day).strftime(form) for day in DAYS]
    assert not doubts([(time, n) for n, time in enumerate(times)])
    (doubt,) = doubts([(time, n) for n, time in enumerate(reversed(times))])
    assert f"fall, from {times[-1]} to {times[0]}" in doubt


@pytest.mark.parametrize("form", ["%b %Y", "%B %Y", "%Y %b", "%b-%y", "%Y%m", "Q{1} {0}", "{}-Q{}"])
def test_months_and_quarters(here, form: str) -> None:
    each = [date(1990 + n // 12, n % 12 + 1, 1) for n in range(0, 150, 3)]
    if "{" in form:
        times = [form.format(day.year, day.month // 3 + 1) for day in each]
    else:
        times = [day.strftime(form) for day in each]
    assert not doubts([(time, n) for n, time in enumerate(times)], "month")
    (doubt,) = doubts([(time, n) for n, time in enumerate(reversed(times))], "month")
    assert f"fall, from {times[-1]} to {times[0]}" in doubt
    (doubt,) = doubts([(time, n) for n, time in enumerate(times) if n != 7], "month")
    assert "1 of 48 steps" in doubt


@pytest.mark.parametrize("form", ["%b %d", "%b-%d"])
def test_days_without_a_year_are_no_months(here, form: str) -> None:
    """Jan 02 was read as January 2002, so February seemed to be earlier."""
    times = [date.fromordinal(738_000 + n).strftime(form) for n in range(50)]
    assert not doubts([(time, n) for n, time in enumerate(times)])


def test_years_have_any_name(here) -> None:
    (doubt,) = doubts([(str(2020 - n), n) for n in range(50)], "Jahr")
    assert "fall, from 2020 to 1971" in doubt
    assert not doubts([(str(1500 + 37 * n % 500), n) for n in range(50)], "Druck")


@pytest.mark.parametrize("mark", ["-999", "-9999.0", "9999.9", "999999", "-99.9"])
@pytest.mark.parametrize("places", [(0,), (7, 8, 30)])
def test_numbers_that_mark_missing_ones(here, mark: str, places: tuple[int, ...]) -> None:
    """As in data of weather stations, which were learned as temperatures."""
    numbers = [mark if n in places else str(10 + n % 7) for n in range(40)]
    (doubt,) = doubts(list(zip(DAYS, numbers, strict=False)))
    assert doubt.endswith("If it marks missing ones, fill the gaps, or cut the series there.")
    count = "1 number is" if len(places) == 1 else "3 numbers are"
    assert f"{count} {float(mark):g}" in doubt
    assert f"(the first is number {places[0] + 1}), all others between 10 and 16;" in doubt
    told: list[str] = []
    read_numbers([written("lines.txt", "\n".join(numbers))], FileRules(warn=told.append))
    assert told == [doubt.replace("times.csv", "lines.txt")]
    assert not doubts([(day, 100 * n - 999) for n, day in enumerate(DAYS)])
    assert not doubts([(day, 49.99 if n < 9 else 99.99) for n, day in enumerate(DAYS)])
    assert not doubts([(day, -998 if n == 3 else 10 + n % 7) for n, day in enumerate(DAYS)])


@pytest.mark.parametrize(
    ("name", "text", "warnings"),
    [
        ("x.txt", "", []),
        ("x.csv", "", ["x.csv has no rows."]),
        (
            "y.csv",
            "date;value\n",
            ["y.csv has a header and no other row. Its columns: date, value."],
        ),
    ],
)
def test_no_numbers_have_no_doubts(here, name: str, text: str, warnings: list[str]) -> None:
    told: list[str] = []
    assert not len(read_numbers([written(name, text)], FileRules(warn=told.append))[1])
    assert [warning.partition(" If that row")[0] for warning in told] == warnings


@pytest.mark.parametrize(
    "cell",
    [
        "10 000", "10\u00a0000", "10'000", "1’234.5", "$10.5", "10.5 €", "EUR 10", "10 %", "21 °C",
        "\u22122.5", "(10.5)", "10.5,", "$1,234.50", "1.000.000",
    ],
)  # fmt: skip
def test_numbers_with_other_signs_are_refused_with_what_to_remove(here, cell: str) -> None:
    """The advice was to choose another column."""
    file = written("cells.csv", f"date;value\n2024-01-01;{cell}\n2024-01-02;5\n")
    with pytest.raises(CorpusError, match=r"line 2 holds .* alone\. Remove units, signs of"):
        read_numbers([file], FileRules())


@pytest.mark.parametrize(
    "cell", [",5", "5,", "1,5e3", "1,234.5", "12,34,567", "-12,34,567.8", "1.234,5"]
)
def test_numbers_with_commas_are_refused_with_what_to_change(here, cell: str) -> None:
    """In India, commas separate hundreds of thousands: 12,34,567."""
    file = written("cells.csv", f"value;date\n{cell};2024-01-01\n5;2024-01-02\n")
    with pytest.raises(CorpusError, match="a decimal point and no commas"):
        read_numbers([file], FileRules())


@pytest.mark.parametrize("cell", ["2024-01-01", "10:30", "0x3e8", "A4 5", "text", "1.5 2.5", "1;2"])
def test_cells_that_are_no_number_keep_their_advice(here, cell: str) -> None:
    file = written("cells.tsv", f"value\tdate\n{cell}\t2024-01-01\n5\t2024-01-02\n")
    with pytest.raises(CorpusError, match=r"expected a number\. Choose a column"):
        read_numbers([file], FileRules())


def test_points_that_separate_thousands(here) -> None:
    (doubt,) = doubts([(day, f"{950 + 9 * n:,}".replace(",", ".")) for n, day in enumerate(DAYS)])
    assert "44 numbers such as 1.004 with a point before three digits" in doubt
    assert not doubts([(day, f"{1.004 + n:.3f}") for n, day in enumerate(DAYS)])
    assert not doubts([(day, 5 if n else 0.125) for n, day in enumerate(DAYS)])
