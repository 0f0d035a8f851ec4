"""Runs in one file and on a hub: nothing private leaves, and what arrives is checked or refused."""

import contextlib
import inspect
import io
import json
import os
import platform
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import numpy as np
import pytest
from helpers import Call, started
from huggingface_hub import errors

import charlm
from charlm import api
from charlm.api.hub import NGRAMS_OF_TEXT, WORDS_OF_TEXT, Shared
from charlm.cli import frame
from charlm.errors import CharlmError, EnvironmentFailure, RunError, UsageError
from charlm.files import archives
from charlm.files.atomic import write_json
from charlm.files.safe_read import read_json
from charlm.runs import hub, layout
from charlm.runs.hub import Address, Commit, HuggingFaceHub, parse_address, snapshot
from charlm.runs.layout import METRICS, RECORD, TOKENIZER, WEIGHTS, read_record, write_record
from charlm.runs.public import Public, Staged, public_log, public_name, staged
from charlm.runs.verify import verify_run
from charlm.training.resume import halves, resume

TEXT = "abc abd\nab ca\n" * 12
SETTINGS = {"text": TEXT, "steps": 6, "evals": 2, "save_minutes": 0.0, "ngram": 2}
OLD_RUN = Path(__file__).parent / "fixtures" / "format-1"
FIGURES = {"nats_per_token": 1.5, "bits_per_char": 2.0, "perplexity": 3.0}
SECRET = "Xq7Zk"
"""Marker in everything about a run that is private."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in both directions, with checkpoints, and a secret in all that is private.

    The secret is in the text, the path, the command, the environment, the name of the host and of
    the device, and in warnings.
    """
    folder = tmp_path_factory.mktemp(SECRET) / "checkpoints"
    corpus = folder.parent / "corpus.txt"
    corpus.write_text(f"{TEXT}{SECRET}\n" * 8, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SECRET_VARIABLE", SECRET)
        patch.setattr(platform, "node", lambda: SECRET)
        patch.setattr("charlm.training.machine.processor_name", lambda: f"{SECRET} processor")
        settings = {**SETTINGS, "text": corpus.read_text(encoding="utf-8"), "direction": "both"}
        session = started(folder, "whole", **settings)
        session.warnings.append(f"{corpus} is odd: {SECRET}")
        names = [str(corpus)]
        session.record["settings"]["corpus"]["sources"] = names
        session.record["corpus"]["sources"] = names
        session.record["origins"]["corpus.sources"] = f"file {folder.parent}/settings.toml"
        session.record["command"] = f"charlm train {corpus}"
        for half in halves(session):
            list(half.records())
    return session.path


@pytest.fixture(scope="module")
def exported(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run as one file."""
    file = tmp_path_factory.mktemp("exported") / "x.zip"
    api.hub.export_run(whole, file)
    return file


@pytest.fixture
def archive(exported: Path, here: Path) -> Path:
    """A copy of that file, x.zip in an empty folder."""
    return Path(shutil.copy(exported, here))


@pytest.fixture
def folder(whole: Path, here: Path) -> Path:
    """A folder of runs with a copy of it."""
    shutil.copytree(whole, here / "checkpoints" / "whole")
    return here / "checkpoints"


def problems(path: Path) -> list[str]:
    return [problem for check in verify_run(path) for problem in check.problems]


def scores(path: Path | str) -> list[float]:
    return [score.log_probability for score in charlm.load(path).score(["abc abd", "ca"])]


def files_below(path: Path) -> dict[str, bytes]:
    return {f.relative_to(path).as_posix(): f.read_bytes() for f in path.rglob("*") if f.is_file()}


# What is public


def test_nothing_private_is_public(whole: Path) -> None:
    """Neither as text nor as ids; with the text, on request, the test finds it as ids."""
    assert SECRET in (whole / RECORD).read_text(encoding="utf-8")
    vocabulary = charlm.load(whole).vocabulary
    ids = vocabulary.encode(SECRET)
    needles = [SECRET.encode(), os.fsencode(whole.parent), *(
        np.asarray(ids, kind).tobytes() for kind in ("u1", "<u2", "<i4", "<i8")
    )]  # fmt: skip
    backward = [np.asarray(ids[::-1], kind).tobytes() for kind in ("u1", "<u2", "<i4", "<i8")]
    for public, private in ((Public(), False), (Public(with_states=True), False),
                            (Public(with_data=True), True)):  # fmt: skip
        with staged(whole, public) as stage:
            content = files_below(stage.folder)
            found = {
                name for name, data in content.items() for needle in needles + backward
                if needle in data and not (name.endswith(".safetensors") and len(needle) < 6)
            }  # fmt: skip
            assert {name.removeprefix("backward/") for name in found} == (
                {"data/train/ids.bin", "data/valid/ids.bin"} if private else set()
            )


def test_text_and_checkpoints_go_along_on_request(whole: Path, here: Path) -> None:
    """The n-grams beside a network go with the text, from which they were counted."""
    parts = {"data", "states", layout.COMPANION, layout.TENSORBOARD}
    whole = Path(shutil.copytree(whole, here / "whole"))
    (whole / layout.TENSORBOARD).mkdir()
    for public, expected in (
        (Public(), set()), (Public(with_states=True), {"states"}),
        (Public(with_data=True), {"data", layout.COMPANION}),
        (Public(with_data=True, with_states=True), parts - {layout.TENSORBOARD}),
    ):  # fmt: skip
        with staged(whole, public) as stage:
            top = {name.partition("/")[0] for name in stage.sizes}
            assert top & parts == expected
            assert set(stage.left_out) - {f"backward/{part}" for part in parts} == parts - expected
            assert problems(stage.folder) == []
            listed = read_json(stage.folder / layout.MANIFEST)["files"]
            assert set(listed) <= set(stage.sizes)
            assert {layout.CONFIG, TOKENIZER, WEIGHTS} <= set(listed)


def test_the_public_record_has_only_what_is_named(whole: Path) -> None:
    """A key that a later version adds stays private until it is listed."""
    record = read_record(whole)
    parent = {"run": f"/home/{SECRET}/old", "id": "1", "sha256": "2", "vocabulary": "keep"}
    parent |= {"entries": 5, "valid": None, "old_valid": FIGURES | {"text": SECRET}}
    record |= {"new": SECRET, "notes": [SECRET], "from": parent}
    for section in ("corpus", "machine", "results"):
        record[section] |= {"new": SECRET}
    copy = whole.with_name("other")
    shutil.copytree(whole, copy)
    write_record(copy, record)
    with staged(copy, Public()) as stage:
        assert SECRET not in (stage.folder / RECORD).read_text(encoding="utf-8")
        public = read_record(stage.folder)
    shutil.rmtree(copy)
    assert public["from"] == parent | {"run": "old", "old_valid": FIGURES}
    assert public["corpus"]["sources"] == ["corpus.txt"]
    assert public["settings"]["corpus"]["sources"] == ["corpus.txt"]
    assert public["origins"]["corpus.sources"] == "file settings.toml"
    assert (public["command"], public["results"]["notes"]) == ("", [])
    assert ("companion" in record["results"], "companion" in public["results"]) == (True, False)
    assert public["results"]["valid"] == record["results"]["valid"]
    assert public["settings"]["model"] == record["settings"]["model"]


@pytest.mark.parametrize(
    ("name", "public"),
    [("/a/b.txt", "b.txt"), ("C:\\a\\b.txt", "b.txt"), ("..", ".."), ("hf:a/b", "hf:a/b")],
)
def test_folders_are_taken_out_of_names(name: str, public: str) -> None:
    assert public_name(name) == public


def test_the_public_log_keeps_figures_and_places(whole: Path) -> None:
    log = (whole / METRICS).read_bytes()
    same = public_log(whole / METRICS, same_places=True)
    assert [len(line) for line in same.split(b"\n")] == [len(line) for line in log.split(b"\n")]
    assert len(public_log(whole / METRICS)) < len(log)
    for public, line in zip(same.splitlines(), log.splitlines(), strict=True):
        before, after = json.loads(line), json.loads(public)
        assert after["kind"] == before["kind"]
        numbers = {k: v for k, v in before.items() if isinstance(v, int | float)}
        assert numbers.items() <= after.items()
        assert after.keys() <= before.keys()


def test_the_card_can_be_published(whole: Path) -> None:
    """It names the repository in commands; the license is checked."""
    with staged(whole, Public(license_="cc-by-4.0", target="hf:me/x")) as stage:
        card = (stage.folder / layout.CARD).read_text(encoding="utf-8")
    head = card.split("---\n")[1]
    data = huggingface_hub.ModelCard(card).data
    assert (data.license, data.library_name, data.pipeline_tag) == (
        "cc-by-4.0", "charlm", "text-generation",
    )  # fmt: skip
    valid = read_record(whole)["results"]["valid"]
    metrics = {each.metric_type: each.metric_value for each in data.eval_results}
    assert metrics["bits_per_char"] == round(valid["bits_per_char"], 4)
    assert "charlm sample --run hf:me/x" in card
    assert "device" not in head
    for text in ("mit\nx: y", "a b", "", "é"):
        with pytest.raises(UsageError, match="license"):
            Public(license_=text)


@pytest.mark.parametrize(
    ("unit", "ngrams", "words"), [("char", True, False), ("word", False, True), ("bpe", True, True)]
)
def test_text_in_what_goes_up_is_warned_about(
    folder: Path, unit: str, ngrams: bool, words: bool
) -> None:
    """N-grams are pieces of the text, and so are longer entries of a vocabulary."""
    config = read_json(folder / "whole" / layout.CONFIG)
    config["vocabulary"]["unit"] = unit
    config["model"] |= {"kind": "ngram", "order": 2} if ngrams else {}
    shared = api.hub._shared(folder / "whole", Staged(folder=folder))
    assert shared.warnings == []
    write_json(folder / "whole" / layout.CONFIG, config)
    shared = api.hub._shared(folder / "whole", Staged(folder=folder))
    assert [NGRAMS_OF_TEXT in shared.warnings, WORDS_OF_TEXT in shared.warnings] == [ngrams, words]


def test_warnings_are_seen(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an export, a push and a dry run."""
    shared = Shared(
        path=Path("x"), files={}, left_out={}, notes=[], warnings=["text"],
        commit=Commit(hash="c", url="u"),
    )  # fmt: skip
    monkeypatch.setattr(api.hub, "export_run", lambda *_, **__: shared)
    monkeypatch.setattr(api.hub, "push", lambda *_, **__: shared)
    for words in (("runs", "export", "whole", "x.zip"), ("push", "whole", "me/x")):
        assert "warning: text\n" in call(*words)[2]
    monkeypatch.setattr(api.hub, "push", lambda *_, **__: replace(shared, commit=None))
    assert "warning: text\n" in call("push", "whole", "me/x", "--dry-run")[2]


def test_a_damaged_or_untrained_run_is_not_shared(folder: Path) -> None:
    data = (folder / "whole" / WEIGHTS).read_bytes()
    (folder / "whole" / WEIGHTS).write_bytes(data[:-8] + bytes(4) + data[-4:])
    started(folder, "new", **SETTINGS).records().close()
    for name in ("whole", "new"):
        with pytest.raises(RunError, match=r"Expected a whole run|has no weights yet"):
            api.hub.export_run(folder / name, "x.zip")
    assert not Path("x.zip").exists()


def test_a_run_whose_process_was_killed_is_shared(here: Path) -> None:
    """It has weights and no results. This one is of an older version, too."""
    old = Path(shutil.copytree(OLD_RUN, "old"))
    write_record(old, {k: v for k, v in read_record(old).items() if k != "results"})
    api.hub.export_run(old, "old.zip", with_data=True, with_states=True)
    path = api.hub.import_run("old.zip", "copy")
    assert problems(path) == []
    assert scores(path) == scores(old)
    assert "Training has not ended" in (path / layout.CARD).read_text(encoding="utf-8")


# A run in one file


def test_an_imported_run_is_the_exported_one(call: Call, folder: Path) -> None:
    assert call("runs", "export", "whole", "whole.zip")[0] == 0
    status, out, _ = call("runs", "import", "whole.zip", "--name", "copy")
    assert (status, out) == (0, f"{Path('checkpoints/copy')}\n")
    assert problems(folder / "copy") == []
    assert scores("copy") == scores("whole")
    assert read_record(folder / "copy")["name"] == "copy"
    assert charlm.load("copy").fill("a ___ c", top=2) == charlm.load("whole").fill("a ___ c", top=2)


def test_the_same_run_gives_the_same_file(folder: Path) -> None:
    """Whatever the times, the folder and the locks of its files are."""
    api.hub.export_run("whole", "a.zip", with_data=True)
    for file in (folder / "whole").rglob("*"):
        os.utime(file, (1, 1))
    api.hub.export_run(folder / "whole", "b.zip", with_data=True)
    assert Path("a.zip").read_bytes() == Path("b.zip").read_bytes()
    api.hub.import_run("a.zip", "again")
    (folder / "again").rename(folder.parent / "whole")
    write_record(folder.parent / "whole", read_record(folder.parent / "whole") | {"name": "whole"})
    api.hub.export_run(folder.parent / "whole", "c.zip", with_data=True)
    assert Path("a.zip").read_bytes() == Path("c.zip").read_bytes()


def test_a_run_with_its_checkpoints_resumes_as_if_it_had_not_moved(folder: Path) -> None:
    """To the same weights and the same figures in its log."""
    api.hub.export_run("whole", "x.zip", with_data=True, with_states=True)
    moved = api.hub.import_run("x.zip", "moved")
    for path in (folder / "whole", moved):
        list(resume(path, more={"steps": 4}).records())
    assert (moved / WEIGHTS).read_bytes() == (folder / "whole" / WEIGHTS).read_bytes()
    logs = [
        [line["step"] for line in map(json.loads, (path / METRICS).read_text().splitlines())]
        for path in (folder / "whole", moved)
    ]
    assert logs[0] == logs[1]


def test_a_run_without_its_text_can_be_verified_and_not_resumed(folder: Path) -> None:
    """Also one whose folder data/ was deleted by hand; single missing files are a damage."""
    shutil.copytree(folder / "whole", folder / "cut")
    shutil.rmtree(folder / "whole" / "data")
    assert problems(folder / "whole") == []
    next((folder / "cut" / "data").glob("*/ids.bin")).unlink()
    assert len(problems(folder / "cut")) >= 1
    api.hub.export_run("whole", "x.zip")
    with pytest.raises(CharlmError):
        resume(api.hub.import_run("x.zip", "y"), more={"steps": 1})


def test_nothing_is_overwritten(archive: Path) -> None:
    folder = api.hub.import_run("x.zip").parent
    before = files_below(folder)
    (folder / "empty").mkdir()
    for name in (None, "whole", "empty"):
        with pytest.raises(RunError, match="already exists"):
            api.hub.import_run("x.zip", name)
    for name in ("", "..", "a/b", ".x"):
        with pytest.raises(UsageError, match="plain name"):
            api.hub.import_run("x.zip", name)
    assert files_below(folder) == before
    assert sorted(path.name for path in folder.iterdir()) == ["empty", "whole"]


def test_other_suffixes_are_refused_before_anything_is_read(folder: Path) -> None:
    for name in ("x.tar", "x", ".zip", "x.zip.gz"):
        with pytest.raises(UsageError, match=r"ends with .zip, .tar.zst or .onnx"):
            api.hub.export_run("whole", name)


def rewritten(change: Callable[[dict[str, bytes]], Any]) -> bytes:
    """Return the archive x.zip after a change of its files by name."""
    with zipfile.ZipFile("x.zip") as packed:
        files = {name: packed.read(name) for name in packed.namelist()}
    change(files)
    return zipped(files.items())


def zipped(items: Any) -> bytes:
    """Return a zip file; names may be ZipInfo objects, and may occur twice."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in items:
            archive.writestr(name, data)
    return target.getvalue()


def link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = 0o120777 << 16
    return info


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :]


def set_json(archive: dict[str, bytes], file: str, **values: Any) -> None:
    content = json.loads(archive[file]) | values
    archive[file] = json.dumps(content, indent=2, sort_keys=True).encode() + b"\n"


HOSTILE: dict[str, Callable[[bytes], bytes]] = {
    "leads out": lambda _: rewritten(lambda files: files.update({"whole/../../evil": b"x"})),
    "leads out of its root": lambda _: rewritten(lambda files: files.update({"../evil": b"x"})),
    "absolute": lambda _: rewritten(lambda files: files.update({"/tmp/evil": b"x"})),
    "backslash": lambda _: rewritten(lambda files: files.update({"whole\\evil": b"x"})),
    "drive": lambda _: rewritten(lambda files: files.update({"C:evil/config.json": b"x"})),
    "two roots": lambda _: rewritten(lambda files: files.update({"other/config.json": b"{}"})),
    "other file": lambda _: rewritten(lambda files: files.update({"whole/run.py": b"x"})),
    "lock": lambda _: rewritten(lambda files: files.update({"whole/.lock": b"x"})),
    "other data": lambda _: rewritten(lambda files: files.update({"whole/data/x/y": b"x"})),
    "no root": lambda _: zipped([("config.json", b"{}")]),
    "link": lambda _: rewritten(
        lambda files: files.update({link("whole/metrics.jsonl"): b"/etc/x"})
    ),
    "folder": lambda _: zipped([("whole/", b"")]),
    "empty": lambda _: zipped([]),
    "bomb": lambda _: rewritten(
        lambda files: files.update({"whole/metrics.jsonl": bytes(1 << 22)})
    ),
    "cut": lambda data: data[: len(data) // 2],
    "no zip": lambda data: b"text",
    "nothing": lambda data: b"",
    "flipped": lambda data: flipped(data, len(data) // 2),
    "other weights": lambda _: rewritten(
        lambda files: files.update({f"whole/{WEIGHTS}": files[f"whole/{WEIGHTS}"][:-4] + bytes(4)})
    ),
    "no record": lambda _: rewritten(lambda files: files.pop(f"whole/{RECORD}")),
    "no manifest": lambda _: rewritten(lambda files: files.pop("whole/MANIFEST.json")),
    "no weights": lambda _: rewritten(lambda files: files.pop(f"whole/{WEIGHTS}")),
    "bad name": lambda _: rewritten(lambda files: set_json(files, f"whole/{RECORD}", name="../x")),
    "manifest leads out": lambda _: rewritten(
        lambda files: set_json(files, "whole/MANIFEST.json", files={"../../x": {"size": 1}})
    ),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_archive_is_refused(
    archive: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an error of one line; nothing is written, inside or outside of the folder of runs."""
    monkeypatch.setattr(archives, "FREE_BYTES", 1 << 16)
    Path("bad.zip").write_bytes(HOSTILE[case](Path("x.zip").read_bytes()))
    before = files_below(archive.parent)
    with pytest.raises((RunError, UsageError)) as caught:
        api.hub.import_run("bad.zip", "new" if case != "bad name" else None)
    assert "\n" not in str(caught.value)
    assert files_below(archive.parent) == before


NAMES = [
    "r/A",
    "s/x",
    "../x",
    "r/../x",
    "r/./x",
    "/r/x",
    "r//x",
    "r\\x",
    "C:/x",
    "r/\x1b",
    "r/",
    "..",
    "r/x\n",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_leads_elsewhere_is_refused(here: Path, name: str) -> None:
    """Whatever files the caller accepts."""
    Path("bad.zip").write_bytes(zipped([("r/a", b"x"), (name, b"x")]))
    with pytest.raises(RunError, match="expected"):
        archives.unpack(Path("bad.zip"), here / "new", lambda _: True)
    assert {path.name for path in here.rglob("*")} <= {"bad.zip", "new", "a"}


@pytest.mark.parametrize("mode", [0o120777, 0o040755, 0o010644, 0o020644])
def test_only_plain_files_are_unpacked(here: Path, mode: int) -> None:
    """No links, folders, pipes and devices."""
    info = zipfile.ZipInfo("r/x")
    info.external_attr = mode << 16
    Path("bad.zip").write_bytes(zipped([(info, b"/etc/passwd")]))
    with pytest.raises(RunError, match="not a plain file"):
        archives.unpack(Path("bad.zip"), here / "new", lambda _: True)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_occurs_twice_is_refused(archive: Path) -> None:
    """Also in another case, which some file systems do not distinguish."""
    with zipfile.ZipFile(archive) as packed:
        items = [(name, packed.read(name)) for name in packed.namelist()]
    for name in ("whole/config.json", "whole/README.MD"):
        Path("bad.zip").write_bytes(zipped([*items, (name, b"{}")]))
        with pytest.raises(RunError, match=r"twice|only the files of one run"):
            api.hub.import_run("bad.zip", "new")


def test_other_packings_are_refused(here: Path) -> None:
    """A damaged one of these looks like a disk that fails, and an LZMA may take 4 GB."""
    with zipfile.ZipFile("bad.zip", "w", zipfile.ZIP_BZIP2) as packed:
        packed.writestr("r/x", b"x" * 1000)
    with pytest.raises(RunError, match="deflated or stored"):
        archives.unpack(Path("bad.zip"), here / "new", lambda _: True)


@pytest.mark.parametrize("name", ["a:b", "a\u200cb", "é"])
def test_a_run_of_any_name_can_be_moved(here: Path, name: str) -> None:
    """Also where the name is none for a file on another system."""
    old = Path(shutil.copytree(OLD_RUN, name))
    write_record(old, read_record(old) | {"name": name})
    api.hub.export_run(old, "x.zip")
    assert api.hub.import_run("x.zip").name == name


@pytest.mark.parametrize("name", ["a\0b", "a\nb", "a\x1b[31mb", "hf:x", "-rf", " ", "..", "a/b"])
def test_a_strange_name_in_a_record_is_refused(archive: Path, name: str) -> None:
    Path("bad.zip").write_bytes(
        rewritten(lambda files: set_json(files, f"whole/{RECORD}", name=name, sha256=None))
    )
    with pytest.raises(RunError, match=r"its name is .* Choose one with --name"):
        api.hub.import_run("bad.zip")
    assert not list(Path("checkpoints").iterdir())


def test_a_missing_file_is_reported(call: Call, here: Path) -> None:
    status, _, err = call("runs", "import", "nothing.zip")
    assert (status, "does not exist" in err) == (4, True)
    assert call("runs", "import", ".")[0] == 4


def test_tar_zst_is_the_same_run(folder: Path) -> None:
    """And the same checks; without the package one line names the extra."""
    pytest.importorskip("zstandard", reason="zstandard (the extra zstd) is not installed")
    api.hub.export_run("whole", "a.tar.zst", with_data=True)
    api.hub.export_run("whole", "b.tar.zst", with_data=True)
    assert Path("a.tar.zst").read_bytes() == Path("b.tar.zst").read_bytes()
    copy = api.hub.import_run("a.tar.zst", "copy")
    assert scores(copy) == scores("whole")
    for cut in (10, 2000, -5):
        Path("bad.tar.zst").write_bytes(Path("a.tar.zst").read_bytes()[:cut])
        with pytest.raises(RunError):
            api.hub.import_run("bad.tar.zst", "new")
    assert not (folder / "new").exists()
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE):
        Path("bad.tar.zst").write_bytes(tar_with(kind))
        with pytest.raises(RunError, match="not a plain file"):
            archives.unpack(Path("bad.tar.zst"), folder.parent / "new", lambda _: True)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_that_unpacks_to_much_is_refused(here: Path, kind: bytes) -> None:
    """It is no file, so its size counts nowhere, and tarfile reads it into memory."""
    pytest.importorskip("zstandard", reason="zstandard (the extra zstd) is not installed")
    info = tarfile.TarInfo("r/x")
    info.type, info.size = kind, 8 << 20
    data = info.tobuf(tarfile.USTAR_FORMAT) + b"a" * info.size
    Path("bad.tar.zst").write_bytes(archives._zstd().ZstdCompressor().compress(data))
    with pytest.raises(RunError, match="too long"):
        archives.unpack(Path("bad.tar.zst"), here / "new", lambda _: True)


def test_a_flipped_byte_in_tar_zst_is_reported(here: Path) -> None:
    pytest.importorskip("zstandard", reason="zstandard (the extra zstd) is not installed")
    api.hub.export_run(OLD_RUN, "a.tar.zst")
    data = Path("a.tar.zst").read_bytes()
    for at in range(0, len(data), len(data) // 10):
        Path("bad.tar.zst").write_bytes(flipped(data, at))
        with contextlib.suppress(RunError):
            shutil.rmtree(api.hub.import_run("bad.tar.zst", "new"))
    assert not list(Path("checkpoints").iterdir())


def tar_with(kind: bytes) -> bytes:
    """Return a .tar.zst with one entry of a kind."""
    target, info = io.BytesIO(), tarfile.TarInfo("whole/metrics.jsonl")
    info.type, info.linkname = kind, "/etc/passwd"
    with tarfile.open(fileobj=target, mode="w") as archive:
        archive.addfile(info)
    return archives._zstd().ZstdCompressor().compress(target.getvalue())


def test_without_zstandard_the_extra_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "zstandard", None)
    with pytest.raises(EnvironmentFailure, match=r"charlm\[zstd\]"):
        api.hub.export_run("whole", "x.tar.zst")
    assert not Path("x.tar.zst").exists()


# A folder in place of the hub


class FolderHub:
    """Repositories as folders: one for each revision."""

    def __init__(self, root: Path) -> None:
        self.root, self.private = root, {}

    def upload(self, folder: Path, address: Address, *, private: bool, message: str) -> Commit:
        target = self.root / address.repository / (address.revision or "main")
        self.private[address.repository] = private
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(folder, target)
        return Commit(hash="0" * 40, url=f"https://hub/{address.repository}")

    def download(self, address: Address) -> tuple[Path, str]:
        target = self.root / address.repository / (address.revision or "main")
        if not target.exists():
            raise RunError(f"no repository {address}")
        return target, "0" * 40


@pytest.fixture
def folder_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FolderHub:
    made = FolderHub(tmp_path / "hub")
    monkeypatch.setattr(hub, "open_hub", lambda: made)
    snapshot.cache_clear()
    return made


def test_a_pulled_run_gives_the_same_scores(
    call: Call, folder: Path, folder_hub: FolderHub
) -> None:
    """And so does the run on the hub, by its name."""
    status, out, err = call("push", "whole", "me/apples", "--license", "mit", "--private")
    assert (status, out) == (0, "https://hub/me/apples\n")
    assert "left out the training text (data/, " in err
    assert folder_hub.private == {"me/apples": True}
    assert call("pull", "me/apples")[:2] == (0, "checkpoints/apples\n")
    assert problems(folder / "apples") == []
    assert scores("apples") == scores("whole") == scores("hf:me/apples")
    pulled = {"repository": "me/apples", "revision": "0" * 40}
    assert read_record(folder / "apples")["pulled"] == pulled
    assert f"hf:me/apples@{'0' * 40}" in call("info", "apples")[1]
    assert call("info", "hf:me/apples")[0] == 0
    assert (
        call("score", "abc", "--run", "hf:me/apples")[1]
        == call("score", "abc", "--run", "whole")[1]
    )
    assert call("pull", "me/apples")[0] == 4  # never overwrites


def test_a_run_that_gives_labels_is_pushed_and_pulled(
    call: Call, here: Path, folder_hub: FolderHub
) -> None:
    """Its predictions come back, and the command to use it gives labels; so with a file."""
    examples = [("an apple", "x"), ("a fig", "y")] * 50
    sizes = {"steps": 2, "batch_size": 2, "threads": 1, "hidden_size": 2, "embedding_size": 2}
    list(charlm.train(examples=examples, task="classify", name="kinds", min_count=1, **sizes))
    expected = call("predict", "an apple", "--run", "kinds")[1]
    status, _, err = call("push", "kinds", "me/kinds", "--license", "mit")
    assert status == 0 and "bag.safetensors lists pairs" in " ".join(err.split())
    about = (folder_hub.root / "me/kinds/main/README.md").read_text(encoding="utf-8")
    assert "pipeline_tag: text-classification" in about and "charlm predict --run" in about
    status, _, err = call("pull", "me/kinds", "--name", "pulled")
    assert status == 0 and "charlm predict --run" in err
    assert call("runs", "export", "kinds", "kinds.zip")[0] == 0
    status, _, err = call("runs", "import", "kinds.zip", "--name", "imported")
    assert status == 0 and "charlm predict --run" in err
    for name in ("pulled", "imported"):
        assert problems(here / "checkpoints" / name) == []
        assert call("predict", "an apple", "--run", name)[1] == expected


def test_a_run_on_the_hub_can_be_fine_tuned(
    call: Call, folder: Path, folder_hub: FolderHub
) -> None:
    """Its text did not go up, so forgetting is not measured; the result can go up too."""
    assert call("push", "whole", "me/apples", "--license", "mit")[0] == 0
    Path("new.txt").write_text("an apple and a fig\n" * 20, encoding="utf-8")
    length = ("--steps", "2", "--batch", "2", "--bptt", "8", "--threads", "1", "--ngram", "0")
    status, _, err = call(
        "train",
        "new.txt",
        "--from",
        "hf:me/apples",
        "--name",
        "figs",
        *length,
        "--direction",
        "forward",
    )
    assert status == 0, err
    assert "run hf:me/apples keeps no validation text" in " ".join(err.split())
    about = read_record(folder / "figs")["from"]
    assert (about["run"], about["old_valid"]) == ("hf:me/apples", None)
    assert call("push", "figs", "me/figs", "--license", "mit")[0] == 0


@pytest.mark.parametrize("prefix", ["", "hf:"])
def test_a_push_reports_the_name_to_use(
    call: Call, folder: Path, folder_hub: FolderHub, prefix: str
) -> None:
    """A repository may be given with or without `hf:`."""
    _, _, err = call("push", "whole", f"{prefix}me/x", "--revision", "v1")
    assert err.endswith(" --run hf:me/x@v1\n")


def test_a_revision_is_given_once(call: Call, folder: Path, folder_hub: FolderHub) -> None:
    """Two would be one branch of a strange name."""
    status, _, err = call("push", "whole", "me/x@v1", "--revision", "v2")
    assert (status, "--revision v2 with me/x@v1" in err) == (2, True)
    assert not folder_hub.root.exists()


def test_only_public_files_go_up(folder: Path, folder_hub: FolderHub) -> None:
    """The same as in an exported file."""
    charlm.push("whole", "me/x", revision="v1")
    api.hub.export_run("whole", "x.zip")
    up = files_below(folder_hub.root / "me" / "x" / "v1")
    with zipfile.ZipFile("x.zip") as archive:
        exported = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    cards = [
        files.pop(name) for files in (up, exported) for name in (layout.CARD, "backward/README.md")
    ]
    assert up == exported
    assert not any(SECRET.encode() in data for data in (*up.values(), *cards))


def test_a_dry_run_lists_and_sends_nothing(call: Call, folder: Path, folder_hub: FolderHub) -> None:
    status, out, _ = call("push", "whole", "me/x", "--dry-run")
    assert status == 0
    content = json.loads(call("push", "whole", "me/x", "--dry-run", "--json")[1])
    assert all(name in out for name in (*content["files"], *content["left_out"]))
    assert content["commit"] is None
    assert not folder_hub.root.exists()


def test_a_foreign_repository_is_checked(folder: Path, folder_hub: FolderHub) -> None:
    """A repository without a run, and one whose weights are not those of its manifest."""
    (folder_hub.root / "me" / "x" / "main").mkdir(parents=True)
    for use in (lambda: charlm.pull("me/x"), lambda: charlm.load("hf:me/x")):
        with pytest.raises(RunError, match="without a run"):
            use()
    charlm.push("whole", "me/y")
    weights = folder_hub.root / "me" / "y" / "main" / WEIGHTS
    data = weights.read_bytes()
    weights.write_bytes(data[:-4] + bytes(4))
    (weights.parent / "run.py").write_text("evil")
    with pytest.raises(RunError, match="not a whole run"):
        charlm.pull("me/y")
    weights.write_bytes(data)
    assert not (charlm.pull("me/y", "z") / "run.py").exists()
    assert sorted(path.name for path in folder.iterdir()) == ["whole", "z"]


def test_a_run_of_the_hub_is_not_trained_in_the_cache(
    call: Call, folder: Path, folder_hub: FolderHub
) -> None:
    charlm.push("whole", "me/x")
    cached = folder_hub.root / "me" / "x" / "main"
    (cached / "blob").write_bytes((cached / WEIGHTS).read_bytes())
    (cached / WEIGHTS).unlink()
    (cached / WEIGHTS).symlink_to("blob")  # as in the cache of the hub
    assert scores("hf:me/x") == scores("whole")
    status, _, err = call("train", "--resume", "--run", "hf:me/x", "--more-steps", "1")
    assert (status, "charlm pull" in err) == (4, True)


def test_a_data_set_is_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the first text may be a run, the hub is not asked for a model of that name."""
    monkeypatch.setattr(hub, "open_hub", lambda: pytest.fail("the hub was asked"))
    values = {"sources": ["hf:me/texts"], "checkpoints": None}
    assert frame._run_among_texts("sources", values) is None
    assert values["sources"] == ["hf:me/texts"]


@pytest.mark.parametrize(
    ("text", "repository", "revision"),
    [
        ("me/x", "me/x", None),
        ("hf:me/x@v1", "me/x", "v1"),
        ("a.b/c-d_e@refs/pr/1", "a.b/c-d_e", "refs/pr/1"),
    ],
)
def test_addresses(text: str, repository: str, revision: str | None) -> None:
    assert asdict(parse_address(text)) == {"repository": repository, "revision": revision}


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "",
        "/x",
        "me/",
        "a/b/c",
        "../x",
        "me/..",
        "me/x@",
        "me/x@ ",
        "me/x@..",
        "me/x@a//b",
        "é/x",
        "m e/x",
    ],
)
def test_what_names_no_repository_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="org/name"):
        parse_address(text)


# The library of the hub


@pytest.fixture
def api_calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """Calls of the library's own methods, with arguments that fit their signatures."""
    calls: list[tuple[str, dict[str, Any]]] = []
    answers = {
        "create_repo": None, "create_branch": None,
        "list_repo_files": [
            ".gitattributes", "LICENSE", "README.md", "data/train/ids.bin",
            "states/step-3/state.json",
        ],
        "model_info": SimpleNamespace(private=False),
        "create_commit": SimpleNamespace(oid="c0ffee", commit_url="https://hub/commit/c0ffee"),
    }  # fmt: skip

    def recorder(name: str) -> Callable[..., Any]:
        signature = inspect.signature(getattr(huggingface_hub.HfApi, name))

        def record(*positional: Any, **named: Any) -> Any:
            arguments = signature.bind(*positional, **named).arguments
            arguments.pop("self")
            calls.append((name, arguments))
            return answers[name]

        return record

    for name in answers:
        monkeypatch.setattr(huggingface_hub.HfApi, name, recorder(name))
    return calls


def test_a_push_is_one_commit_of_exactly_the_run(whole: Path, api_calls: list) -> None:
    """Older files of a run are deleted, files of the repository's owner stay."""
    with staged(whole, Public()) as stage:
        made = HuggingFaceHub().upload(
            stage.folder, Address(repository="me/x"), private=False, message="Push whole"
        )
        assert made == Commit(hash="c0ffee", url="https://hub/commit/c0ffee")
        assert [name for name, _ in api_calls] == [
            "create_repo",
            "list_repo_files",
            "create_commit",
        ]
        created, _, committed = (arguments for _, arguments in api_calls)
        assert created == {"repo_id": "me/x", "private": None, "exist_ok": True}
        assert committed["commit_message"] == "Push whole"
        added = {
            o.path_in_repo: o for o in committed["operations"] if hasattr(o, "path_or_fileobj")
        }
        deleted = {o.path_in_repo for o in committed["operations"]} - added.keys()
        assert set(added) == set(stage.sizes)
        assert {name: o.upload_info.size for name, o in added.items()} == stage.sizes
        assert deleted == {"data/train/ids.bin", "states/step-3/state.json"}


def test_a_branch_is_made_and_a_private_push_never_goes_public(
    whole: Path, api_calls: list
) -> None:
    address = Address(repository="me/x", revision="v2")
    with staged(whole, Public()) as stage:
        HuggingFaceHub().upload(stage.folder, address, private=False, message="m")
        calls = dict(api_calls)
        assert calls["create_branch"] == {"repo_id": "me/x", "branch": "v2", "exist_ok": True}
        assert calls["create_commit"]["revision"] == calls["list_repo_files"]["revision"] == "v2"
        api_calls.clear()
        with pytest.raises(UsageError, match="exists and is public"):
            HuggingFaceHub().upload(stage.folder, address, private=True, message="m")
    assert "create_commit" not in dict(api_calls)


def test_a_download_takes_the_files_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signature, calls = inspect.signature(huggingface_hub.snapshot_download), []
    commit = tmp_path / "models--me--x" / "snapshots" / "c0ffee"

    def download(*positional: Any, **named: Any) -> str:
        calls.append(signature.bind(*positional, **named).arguments)
        return str(commit)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    address = Address(repository="me/x", revision="v1")
    assert HuggingFaceHub().download(address) == (commit, "c0ffee")
    assert (calls[0]["repo_id"], calls[0]["revision"]) == ("me/x", "v1")
    patterns = calls[0]["allow_patterns"]
    names = [
        "config.json",
        "states/step-1/state.json",
        "backward/model.safetensors",
        "data/train/ids.bin",
    ]
    kept = huggingface_hub.utils.filter_repo_objects(
        [*names, "evil.py", "x/config.json"], allow_patterns=patterns
    )
    assert list(kept) == names


def http_error(kind: type, status: int) -> Exception:
    response = SimpleNamespace(status_code=status, headers={}, request=None, url="u", text="")
    error = kind.__new__(kind, "the server said no")
    error.args, error.response, error.server_message = ("the server said no",), response, None
    return error


FAILURES = [
    (lambda: http_error(errors.RepositoryNotFoundError, 404), 4, "no repository me/x"),
    (lambda: http_error(errors.RevisionNotFoundError, 404), 4, "no revision v1"),
    (lambda: http_error(errors.GatedRepoError, 403), 5, "is gated"),
    (lambda: http_error(errors.HfHubHTTPError, 401), 5, "hf auth login"),
    (lambda: http_error(errors.HfHubHTTPError, 403), 5, "hf auth login"),
    (lambda: http_error(errors.HfHubHTTPError, 500), 5, "the hub failed"),
    (lambda: errors.LocalTokenNotFoundError("no token"), 5, "hf auth login"),
    (lambda: errors.LocalEntryNotFoundError("not there"), 5, "not in the cache"),
    (lambda: errors.OfflineModeIsEnabled("offline"), 5, "HF_HUB_OFFLINE"),
    (lambda: errors.HFValidationError("bad id"), 2, "org/name"),
    (lambda: OSError("no route\nto host"), 5, "no route to host"),
    (lambda: ValueError("anything"), 5, "anything"),
    (lambda: RuntimeError("Could not determine home directory."), 5, "Set HOME"),
]


def test_a_reason_of_several_lines_becomes_one() -> None:
    error = hub.failure(Address(repository="me/x"), OSError("no route\nto host"))
    assert "no route to host" in str(error)


@pytest.mark.parametrize(("make", "status", "words"), FAILURES)
def test_every_failure_is_explained_in_one_line(
    monkeypatch: pytest.MonkeyPatch, make, status: int, words: str
) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", failing(make))
    with pytest.raises(CharlmError) as caught:
        HuggingFaceHub().download(parse_address("me/x@v1"))
    assert (caught.value.exit_code, "\n" in str(caught.value)) == (status, False)
    assert words in str(caught.value)


def test_a_push_a_pull_and_a_run_fail_alike(
    call: Call, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot.cache_clear()
    make, status, words = FAILURES[0]
    monkeypatch.setattr(huggingface_hub, "snapshot_download", failing(make))
    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", failing(make))
    for command in (("push", "whole", "me/x", "--revision", "v1"), ("pull", "me/x@v1"),
                    ("info", "hf:me/x@v1")):  # fmt: skip
        code, out, err = call(*command)
        assert (code, out) == (status, ""), err
        assert words in err.splitlines()[-1]
        assert len(err.splitlines()) == 1


def failing(make: Callable[[], Exception]) -> Callable[..., None]:
    def fail(*_: Any, **__: Any) -> None:
        raise make()

    return fail
