"""Tables that a run evaluates, scores or answers are read by the columns that it was trained on."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from helpers import Call

from charlm.cli import main
from charlm.errors import UsageError
from charlm.runs.columns import common_columns, run_columns
from charlm.runs.layout import read_record, write_record
from charlm.text.sources.rows import Columns

TINY = ("--hidden", "4", "--embedding", "4", "--threads", "1", "--seed", "1", "-q", "--steps", "2")
PAIRS = [("a dog", "ein hund"), ("a cat", "eine katze"), ("two cats", "zwei katzen")]


def table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of commas; no cell needs quotes."""
    return "".join(",".join(row) + "\n" for row in [names, *rows])


def labelled(names: Sequence[str], number: int = 24) -> str:
    """A table with a cell for each name; a film of mood `up` is good."""
    rows = []
    for at in range(number):
        cells = {
            "id": f"x{at}", "text": "zzz qqq", "label": "up", "sentiment": "down",
            "title": "qqq zzz", "headline": f"a {'good' if at % 2 else 'bad'} film",
            "mood": "up" if at % 2 else "down",
        }  # fmt: skip
        rows.append([cells[name] for name in names])
    return table(names, rows)


def pairs(first: str, second: str, turned: bool = False) -> str:
    return table((first, second), [pair[::-1] if turned else pair for pair in 8 * PAIRS])


FILES = {
    "train.csv": labelled(("headline", "mood")),
    "more.csv": labelled(("id", "text", "headline", "label", "mood")),
    "two.csv": labelled(("text", "title", "label")),
    "one.csv": labelled(("id", "label")).replace("id,label", "words,label"),
    "labels.csv": labelled(("headline", "label", "sentiment")),
    "bare.csv": labelled(("mood", "headline")).partition("\n")[2],
    "semicolons.csv": labelled(("text", "headline", "mood")).replace(",", ";"),
    "tabs.tsv": labelled(("text", "headline", "mood")).replace(",", "\t"),
    "capitals.csv": labelled(("text", "headline", "mood")).replace(
        "headline,mood", "Headline, MOOD"
    ),
    "twice.csv": labelled(("text", "headline", "mood", "id")).replace(
        "text,headline", "Headline,HEADLINE"
    ),
    "quoted.csv": '"text","headline"\n' + '"no text","a film, 1 of up"\n' * 9,
    "one;.csv": labelled(("headline", "mood")).replace(",", ";"),
    "both.csv": "mood,headline\n" + 'up,"a film, 1 of up"\n' * 9,
    "quoted;.csv": '"label";"text"\n' + '"up";"a film; 1 of up"\n' * 9,
    "named.csv": labelled(("headline", "mood")).replace("headline,mood", "Text,Label"),
    "review.csv": labelled(("mood", "headline")).replace("mood,headline", "label,review"),
    "pairs.csv": pairs("en", "de"),
    "upper.csv": pairs("DE", "EN", turned=True),
    "turned.csv": pairs("de", "en", turned=True),
    "french.csv": pairs("en", "fr"),
    "numbers.csv": "day,temperature\n" + "".join(f"{at},{at % 5}\n" for at in range(60)),
    "bare numbers.csv": "".join(f"{at},{at % 5}\n" for at in range(60)),
    "dated.csv": "day,rain\n" + "".join(f"2020-01-{at + 1:02},{at % 5}\n" for at in range(30)),
    "value.csv": "value,temperature,rain\n" + "".join(f"{at},{at % 5},1\n" for at in range(60)),
    "sensors.csv": "day,t2m\n" + "".join(f"2020-01-{at + 1:02},{at % 5}\n" for at in range(30)),
    "rain.csv": "value,rain\n" + "".join(f"{at},{at % 5}\n" for at in range(60)),
    "train.conll": 12 * "dog NN O\nruns VB B-X\n\n",
    "wide.conll": 12 * "dog NN O 7\nruns VB B-X 7\n\n",
    "narrow.conll": 12 * "dog O\nruns B-X\n\n",
}
RUNS = {
    "label": ("train.csv", "--task", "classify", "--target", "mood"),
    "text": ("train.csv", "--column", "headline"),
    "semicolons": ("semicolons.csv", "--column", "headline", "--delimiter", ";"),
    "unquoted": ("tabs.tsv", "--column", "headline", "--quoting", "none"),
    "other": ("two.csv", "--column", "title"),
    "literal": ("one;.csv", "--column", "headline", "--delimiter", ";", "--quoting", "none"),
    "bare literal": (
        "one;.csv",
        "--no-header",
        "--column",
        "1",
        "--delimiter",
        ";",
        "--quoting",
        "none",
    ),
    "bare": ("bare.csv", "--task", "classify", "--no-header", "--column", "2", "--target", "1"),
    "bare text": ("bare.csv", "--no-header", "--column", "2"),
    "pair": ("pairs.csv", "--task", "translate", "--column", "en", "--target", "de"),
    "series": ("numbers.csv", "--task", "series", "--column", "temperature"),
    "bare series": (
        "bare numbers.csv",
        "--task",
        "series",
        "--no-header",
        "--column",
        "2",
    ),
    "tag": ("train.conll", "--task", "tag", "--target", "2"),
    "condition": ("train.csv", "--column", "headline", "--condition", "mood"),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files, and a run for each way of reading a table."""
    folder = tmp_path_factory.mktemp("columns")
    for name, content in FILES.items():
        (folder / name).write_text(content, encoding="utf-8")
    for name, (source, *flags) in RUNS.items():
        words = ["train", str(folder / source), *flags, *TINY, "--name", name]
        with pytest.raises(SystemExit) as ended:
            main([*words, "--checkpoints", str(folder / "runs")])
        assert not ended.value.code, name
    return folder


@pytest.fixture
def told(trained: Path, call: Call):
    """Return a function that runs a verb of a run on a file: exit status and stderr, stdout."""

    def ask(verb: str, run: str, file: str, *flags: str) -> tuple[int, str, str]:
        words = [verb, "--run", run, "--file", str(trained / file), *flags]
        status, out, err = call(*words, "--checkpoints", str(trained / "runs"))
        return status, " ".join(err.split()), out

    return ask


@pytest.mark.parametrize(
    ("run", "known"),
    [
        ("label", {"text": "headline", "target": "mood"}), ("text", {"text": "headline"}),
        ("bare", {"text": "2", "target": "1"}), ("pair", {"text": "en", "target": "de"}),
        ("tag", {"target": "2"}), ("condition", {"text": "headline", "target": "mood"}),
    ],
)  # fmt: skip
def test_a_run_records_the_columns_that_were_read(
    trained: Path, run: str, known: dict[str, str]
) -> None:
    assert read_record(trained / "runs" / run)["corpus"]["columns"] == known


@pytest.mark.parametrize(
    ("verb", "run", "file", "reported"),
    [
        ("eval", "label", "more.csv",
         'texts are in the column "headline", as in training, labels in "mood", as in training'),
        ("predict", "label", "more.csv", '"headline", as in training; fields'),  # no labels
        ("eval", "text", "more.csv", 'the column "headline" is read, as in training'),
        ("score", "text", "more.csv", 'the column "headline" is read, as in training'),
        ("eval", "pair", "turned.csv",
         'the column "en", as in training, translations in "de", as in training'),
        ("predict", "pair", "turned.csv", '"en", as in training; fields'),
        ("eval", "series", "value.csv", 'the column "temperature" is read, as in training'),
        ("eval", "bare", "bare.csv", "the first row is read as data, as in training"),
        ("eval", "tag", "wide.conll", "tags in column 2, as in training"),
        ("score", "condition", "more.csv", 'the column "headline" is read, as in training'),
    ],
)  # fmt: skip
def test_the_columns_of_training_are_read_and_reported(
    told, verb: str, run: str, file: str, reported: str
):
    """The text of the column "text", which was read before, has other characters or labels."""
    flags = ("--condition", "up") if run == "condition" else ()
    status, err, _ = told(verb, run, file, *flags)
    assert status == 0, err
    assert reported in err


@pytest.mark.parametrize(
    ("verb", "run", "file", "reported"),
    [
        ("eval", "label", "capitals.csv",
         '"Headline" (run label was trained on "headline"), labels in " MOOD" (run label was'),
        ("score", "text", "capitals.csv", '"Headline" is read (run text was trained on'),
        ("eval", "pair", "upper.csv", '"EN" (run pair was trained on "en"), translations in "DE"'),
    ],
)  # fmt: skip
def test_names_may_differ_in_case_and_blanks(told, verb: str, run: str, file: str, reported: str):
    """Such tables were refused, although just one column has the name."""
    status, err, _ = told(verb, run, file)
    assert status == 0 and reported in err, err


def test_one_of_two_names_alike_is_not_chosen(told) -> None:
    status, err, _ = told("predict", "label", "twice.csv")
    assert status and "Choose one with --column" in err


@pytest.mark.parametrize("file", ["more.csv", "tabs.tsv"])
def test_a_delimiter_of_training_is_not_that_of_every_table(told, file: str) -> None:
    """Whole rows were read as texts, since no semicolon divides them."""
    status, err, _ = told("score", "semicolons", file)
    assert status == 0 and 'the column "headline" is read, as in training' in err
    assert "--delimiter" not in err
    status, err, _ = told("score", "semicolons", "semicolons.csv")
    assert status == 0 and "is read with --delimiter ;, as in training" in err


@pytest.mark.parametrize("file", ["named.csv", "review.csv"])
def test_a_first_row_of_usual_names_is_no_data(told, file: str) -> None:
    """A run of tables without names read a table whose columns are in another order by numbers."""
    status, err, _ = told("eval", "bare", file)
    assert status == 0 and "names of the columns, unlike in training" in err, err
    assert "labels that the run does not know" not in err
    status, err, out = told("score", "bare text", "named.csv", "--column", "Text")
    assert status == 0 and out.count("film") == 24 and "unlike in training" in err


def test_a_first_row_without_a_number_is_no_number_of_a_series(told) -> None:
    """It was refused as data, without a word about --header."""
    status, err, _ = told("eval", "bare series", "dated.csv")
    assert status == 0 and "unlike in training" in err and '"rain" is read' in err, err
    status, err, _ = told("eval", "bare series", "sensors.csv")  # names may have digits
    assert status == 0 and "unlike in training" in err, err
    status, err, _ = told("eval", "bare series", "bare numbers.csv")
    assert status == 0 and "the first row is read as data, as in training" in err, err


def test_numbers_of_columns_say_nothing_of_names(told, trained: Path) -> None:
    """A table with the column "text" is read as without the columns of a run."""
    status, err, _ = told("eval", "bare text", "more.csv", "--header")
    assert status == 0 and '"text" is read (run bare text was trained on "2"' in err, err
    paths = [trained / "runs" / name for name in ("label", "bare")]
    columns = common_columns(paths, [str(trained / "more.csv")])
    assert (columns.text, columns.target) == ("headline", "mood")


@pytest.mark.parametrize(
    ("verb", "flags"),
    [("eval", ("--column", "de")), ("eval", ("--target", "en")), ("predict", ("--column", "de"))],
)
def test_a_run_may_be_asked_for_the_other_direction(
    told, verb: str, flags: tuple[str, ...]
) -> None:
    """The column that is named is no longer that of the other side, too."""
    status, err, out = told(verb, "pair", "turned.csv", *flags)
    assert status == 0 and out, err
    if verb == "eval":
        assert 'texts are in the column "de", translations in "en"' in err


def test_a_column_of_labels_may_be_read_as_text(told) -> None:
    status, err, _ = told("eval", "label", "more.csv", "--column", "mood")
    assert status == 0 and 'in the column "mood", labels in "label"' in err, err


def test_the_figures_are_those_of_the_columns_of_training(told) -> None:
    def figures(file: str, *flags: str) -> object:
        _, err, out = told("eval", "label", file, "--json", *flags)
        assert out, err
        return json.loads(out)

    own = figures("train.csv")
    assert figures("more.csv") == own
    assert figures("more.csv", "--column", "text", "--target", "label") != own


@pytest.mark.parametrize(
    ("verb", "run", "file", "problem"),
    [
        ("eval", "label", "two.csv", 'no column "headline", on which run label was trained'),
        ("predict", "label", "two.csv", 'no column "headline", on which run label was trained'),
        ("eval", "label", "labels.csv", 'no column "mood", on which run label was trained'),
        ("eval", "text", "two.csv", "Choose one with --column"),
        ("score", "text", "two.csv", "Choose one with --column"),
        ("eval", "pair", "french.csv", 'no column "de", on which run pair was trained'),
        ("eval", "series", "rain.csv", 'no column "temperature", on which run series was trained'),
    ],
)
def test_a_table_without_them_is_refused_if_the_choice_is_unclear(
    told, verb: str, run: str, file: str, problem: str
):
    status, err, out = told(verb, run, file)
    assert status and problem in err and not out


def test_numbers_are_not_to_be_learned_where_a_run_reads_texts(told) -> None:
    """The story: predict advised to train on the table that it could not read."""
    status, err, _ = told("predict", "label", "numbers.csv")
    assert status and "on which run label was trained" in err and "charlm train" not in err


def test_the_advice_on_fields_inside_objects_is_a_sentence_of_its_own(told, trained: Path) -> None:
    """The full stop before it was missing: "Choose one with --column Texts are inside"."""
    row = json.dumps({"translation": {"en": "a dog", "de": "ein Hund"}})
    (trained / "inner.jsonl").write_text(f"{row}\n" * 9, encoding="utf-8")
    status, err, _ = told("predict", "pair", "inner.jsonl")
    assert status == 3 and "with --column. Texts are inside objects: translation.en" in err


def test_the_only_other_column_is_read_and_reported(told) -> None:
    status, err, _ = told("predict", "label", "one.csv")
    assert status == 0, err
    assert '"words" (run label was trained on "headline", which is not there)' in err
    status, err, _ = told("eval", "tag", "narrow.conll", "--worst", "1")
    assert status, err  # O and B-X are not the tags NN and VB
    status, err, _ = told("predict", "pair", "french.csv")
    assert status == 0 and 'the column "en", as in training' in err


def test_quotes_around_names_enclose_fields_whatever_the_run_read(told) -> None:
    """A comma inside quotes was the end of a field, as in the TSV of the run."""
    status, err, out = told("score", "unquoted", "quoted.csv", "--format", "tsv")
    assert status == 0 and "quotes enclose fields, unlike in training" in err, err
    assert "unlike" not in told("score", "unquoted", "quoted.csv", "--quoting", "csv")[1]
    assert "\ta film, 1 of up\t" in out
    assert "--quoting none, as in training" in told("score", "unquoted", "tabs.tsv")[1]


def test_quoting_of_training_is_that_of_tables_with_its_delimiter_only(told) -> None:
    """A table of commas was refused: its quotes were text, as between semicolons in training."""
    status, err, out = told("score", "literal", "both.csv", "--format", "tsv")
    assert status == 0 and "\ta film, 1 of up\t" in out, err
    assert "quoting" not in err
    assert (
        "--delimiter ; and --quoting none, as in training"
        in told("score", "literal", "one;.csv")[1]
    )


def test_quotes_around_usual_names_enclose_fields_after_tables_without_names(told) -> None:
    status, err, out = told("score", "bare literal", "quoted;.csv", "--format", "tsv")
    assert status == 0 and "\ta film; 1 of up\t" in out, err
    assert "quotes enclose fields, unlike in training" in err


@pytest.mark.parametrize(
    ("verb", "run", "flags", "read"),
    [
        ("eval", "label", ("--column", "title", "--target", "label"), ""),
        ("predict", "label", ("--column", "title"), ""),
        ("score", "text", ("--column", "title"), ""),
        ("eval", "bare", ("--header", "--column", "title", "--target", "label"), ""),
        ("eval", "label", ("--column", "text"), 'labels in "label"'),
    ],
)
def test_flags_win(told, verb: str, run: str, flags: tuple[str, ...], read: str) -> None:
    status, err, _ = told(verb, run, "two.csv", *flags)
    assert read in err and "was trained, and several" not in err
    assert status == 0 or "none of its labels" in err, err


def test_a_refused_label_says_how_the_table_was_read(told) -> None:
    status, err, _ = told("eval", "bare", "train.csv")
    assert status and "the first row is read as data, as in training" in err


def test_runs_share_their_columns_if_they_agree(trained: Path) -> None:
    paths = [trained / "runs" / name for name in ("label", "pair", "text")]
    table, plain = [str(trained / "more.csv")], [str(trained / "train.conll")]

    def shared(*at: int, files: Sequence[str] = table, **typed: object) -> list[str | None]:
        columns = common_columns([paths[number] for number in at], files, **typed)
        return [columns.text, columns.target, columns.run]

    assert shared(0, 0) == ["headline", "mood", "label"]
    assert shared(2, 0) == ["headline", "mood", "text"]
    with pytest.raises(UsageError, match=r'label on "headline", pair on "en".*with column'):
        shared(0, 1)
    with pytest.raises(UsageError, match=r'label on "mood", pair on "de".*Name it with target'):
        shared(0, 1, reading={"column": "title"})
    assert shared(0, 1, reading={"column": "title"}, target="label")[:2] == [None, None]
    assert shared(0, 1, files=plain)[:2] == [None, None]
    assert shared(0, 1, reading={"column": "x"}, only_text=True)[:2] == [None, None]


def test_compared_runs_read_a_table_alike(trained: Path, call: Call) -> None:
    """A run of plain text has no column of its own; another column is asked for."""
    where = ("--checkpoints", str(trained / "runs"))
    runs = ("compare", str(trained / "runs" / "text"), "tales", *where, "--json")
    file = ("--file", str(trained / "more.csv"))
    own, named_ = call(*runs, *file), call(*runs, *file, "--column", "headline")
    assert own[0] == 0 and own[1] == named_[1]
    assert 'the column "headline" is read, as in training' in " ".join(own[2].split())
    status, out, err = call("compare", "text", "other", *where, *file)
    assert (status, out) == (2, "") and "trained on different columns" in err
    assert call("compare", "text", "other", *where, *file, "--column", "headline")[0] == 0
    # a run without a table says nothing of tables
    (trained / "films.txt").write_text("a good film\n" * 40, encoding="utf-8")
    words = ("train", str(trained / "films.txt"), "--name", "films", *TINY)
    assert call(*words, "--checkpoints", str(trained / "runs"))[0] == 0
    bare = ("--file", str(trained / "bare.csv"))
    for runs in (("films", "bare text"), ("bare text", "films")):
        status, _, err = call("compare", *runs, *where, *bare)
        assert status == 0 and "read as data, as in training" in " ".join(err.split()), err


def test_a_table_for_validation_gives_a_run_of_plain_text_no_columns(
    trained: Path, call: Call
) -> None:
    # a run without a table says nothing of tables
    (trained / "plain.txt").write_text("a good film\n" * 20, encoding="utf-8")
    words = ("train", str(trained / "plain.txt"), "--valid", str(trained / "more.csv"), *TINY)
    assert call(*words, "--name", "plain", "--checkpoints", str(trained / "runs"))[0] == 0
    assert run_columns(trained / "runs" / "plain").record() == {}


def test_a_run_without_a_record_has_the_columns_that_were_typed(trained: Path) -> None:
    """Runs of earlier versions record no columns; their settings are preferred, without force."""
    path = trained / "runs" / "pair"
    record = read_record(path)
    del record["corpus"]["columns"]
    write_record(path, record)
    columns = run_columns(path)
    assert (columns.text, columns.target, columns.run) == ("en", "de", "")


ONE_TEXT = [("sample", "--len", "5", "--prime-file"), ("inside", "--file")]


@pytest.mark.parametrize("words", ONE_TEXT)
def test_advice_on_a_table_names_no_option_that_a_command_lacks(
    words: tuple[str, ...], trained: Path, call: Call
) -> None:
    """The advice was to add --column, which sample refuses."""
    run = ("--run", "text", "--checkpoints", str(trained / "runs"))
    status, _, err = call(*words, str(trained / "two.csv"), *run)
    assert status == 3 and "This command has no such option" in " ".join(err.split())
    status, _, err = call(*words, str(trained / "absent.csv"), *run)
    assert status == 3 and "no such option" not in " ".join(err.split())


@pytest.mark.parametrize("words", ONE_TEXT)
def test_a_text_to_start_from_or_to_show_is_read_by_the_columns(
    words: tuple[str, ...], trained: Path, call: Call
) -> None:
    """The column "text" was read without a word."""
    run = ("--run", "text", "--checkpoints", str(trained / "runs"))
    status, out, err = call(*words, str(trained / "more.csv"), *run)
    assert status == 0 and out
    assert 'the column "headline" is read, as in training' in " ".join(err.split())


@pytest.mark.parametrize(
    ("file", "flags"),
    [("texts.csv", ()), ("texts.csv", ("--column", "1")), ("bare.csv", ("--column", "2"))],
)
def test_numbers_of_columns_are_those_of_a_table_without_names(
    told, trained: Path, file: str, flags: tuple[str, ...]
) -> None:
    """A table of texts only was refused, since the labels of the run were its column 1, and the
    first row was read as names if a column was typed by its number, as for training."""
    bare = (trained / "bare.csv").read_text(encoding="utf-8").splitlines()
    texts = [line.partition(",")[2] for line in bare]
    (trained / "texts.csv").write_text("\n".join(texts) + "\n", encoding="utf-8")
    status, err, out = told("predict", "bare", file, *flags, "--format", "jsonl")
    assert status == 0, err
    assert [json.loads(line)["text"] for line in out.splitlines()] == texts
    assert "the first row is read as data, as in training" in err


def test_a_series_without_a_record_has_the_column_of_its_config(
    trained: Path, tmp_path: Path
) -> None:
    """The weights answer without run.json, and config.json names the column."""
    for name in ("series", "label"):
        shutil.copytree(trained / "runs" / name, tmp_path / name)
        (tmp_path / name / "run.json").unlink()
    columns = run_columns(tmp_path / "series")
    assert (columns.text, columns.run) == ("temperature", "series")
    assert run_columns(tmp_path / "label") == Columns()


def test_gradients_report_how_a_table_is_read(trained: Path, call: Call) -> None:
    """The column was guessed without a word."""
    where = ("--checkpoints", str(trained / "runs"), "--lags", "8")
    status, _, err = call("gradients", str(trained / "more.csv"), "--run", "text", *where)
    assert status == 0 and 'the column "headline" is read, as in training' in " ".join(err.split())


def test_a_text_that_looks_like_a_table_stays_a_text_to_start_from(
    trained: Path, call: Call
) -> None:
    """No flag of sample reads a column of it."""
    file = trained / "prompt.txt"
    file.write_text((trained / "train.csv").read_text(encoding="utf-8"), encoding="utf-8")
    run = ("--run", "text", "--checkpoints", str(trained / "runs"))
    status, _, err = call("sample", "--len", "5", "--prime-file", str(file), *run)
    assert status == 0 and "looks like a table" not in err and "--input-format" not in err


@pytest.mark.parametrize("run", ["label", "pair", "tag"])
def test_rows_of_a_table_that_are_read_as_texts_are_reported(told, trained: Path, run: str) -> None:
    """Whole rows were answered without a word if the name of a table did not say so."""
    content = (trained / "more.csv").read_text(encoding="utf-8")
    (trained / "more.txt").write_text(content, encoding="utf-8")
    (trained / "prose.txt").write_text("A dog, a cat, and more.\n" * 9, encoding="utf-8")
    status, err, _ = told("predict", run, "more.txt")
    assert status == 0, err
    assert "more.txt looks like a table (commas between the fields)" in err
    assert "looks like" not in told("predict", run, "more.txt", "--input-format", "text")[1]
    assert "looks like" not in told("predict", run, "prose.txt")[1]
