"""Hostile input: damaged runs, random texts and settings, very large texts."""

import bz2
import contextlib
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from charlm.config.corpus import CorpusSettings, VocabularySettings
from charlm.config.settings import Settings, settings_from
from charlm.config.text_units import TEXT_UNITS
from charlm.errors import CharlmError
from charlm.text.corpus import Corpus
from charlm.text.dataset import load_dataset
from torture_bench import ROOT, Bench, Row, harness


def damaged_runs(bench: Bench) -> Iterator[Row]:
    """Change files of a run at random and read it in every way."""
    liar = harness.Liar(bench.whole, 3)
    good, slowest, refused = 0, 0.0, 0
    for _ in range(bench.amounts.runs):
        file, mended = liar.lie()
        try:
            verdicts, begun = [], time.monotonic()
            for name in ("load", "info", "verify"):
                verdicts.append(harness.refuses(liar.path, name))
                if verdicts[-1]:
                    slowest = max(slowest, time.monotonic() - begun)
                begun = time.monotonic()
            if not mended and not verdicts[-1]:
                same = harness.read_weights(liar.path) == liar.weights
                if not same or harness.read_all(liar.path) != liar.facts:
                    raise AssertionError(f"verify passes a damaged {file.name}")
            if liar.draws.random() < 0.02:
                verdicts.append(harness.refuses(liar.path, "resume"))
            refused += any(verdicts)
            good += 1
        except Exception as error:  # any error that is not a refusal is a failure
            print(f"damaged run: {type(error).__name__}: {error}", file=sys.stderr)
        liar.fresh()
    liar.close()
    note = f"{refused:,} refused, at most in {slowest:.2f} s; the others read as before"
    yield Row("damaged runs", bench.amounts.runs, good, note)


LETTERS = "ab \n\t\r\0\x1b\u2028\ufeff猫👩‍🚀é\U0010ffff\x85"


def _some_text(generator: random.Random) -> str:
    length = generator.choice((0, 1, 2, 3, 10, 100))
    return "".join(
        generator.choice(LETTERS)
        if generator.random() < 0.7
        else chr(generator.randrange(0x110000))
        for _ in range(length)
    )


def hostile_texts(bench: Bench) -> Iterator[Row]:
    """Read, encode and decode random bytes and characters."""
    generator = random.Random(4)
    path = bench.folder / "hostile.txt"
    good = refused = 0
    for _ in range(bench.amounts.texts):
        if generator.random() < 0.5:
            data = _some_text(generator).encode("utf-8", "surrogatepass")
        else:
            data = generator.randbytes(generator.choice((1, 2, 9, 99)))
        path.write_bytes(data)
        unit = generator.choices(list(TEXT_UNITS), [6, 6, 1, 0.1])[0]
        document = generator.choice(("stream", "line", "paragraph"))
        try:
            corpus = Corpus([str(path)], document=document, keep_cr=True)
            dataset = load_dataset(CorpusSettings(valid_frac=0.0), VocabularySettings(unit=unit),
                                 corpus=corpus)  # fmt: skip
            text = dataset.vocabulary.decode(dataset.train.ids)
            unknown = unit == "word" or "\ufffd" in text  # rare words are not in the vocabulary
            whole = data.decode("utf-8").removeprefix("\ufeff")
            if document == "line":  # its end symbols show as line ends
                whole = whole.removesuffix("\n") + "\n"
            good += unknown or document == "paragraph" or text == whole
        except CharlmError as error:
            refused += 1
            good += error.exit_code == 3
        except Exception as error:
            print(f"hostile text {data!r}: {type(error).__name__}: {error}", file=sys.stderr)
    note = f"{refused:,} refused with exit 3; other streams and lines decode to the original text"
    yield Row("hostile texts", bench.amounts.texts, good, note)


def hostile_settings(bench: Bench) -> Iterator[Row]:
    """Give random values to random settings."""
    generator = random.Random(5)
    plain = Settings().to_dict()
    values = [*harness.VALUES, 10**400, float("nan"), float("inf"), "lstm", 0.5, 1e-300, "auto"]
    good = refused = 0
    for _ in range(bench.amounts.settings):
        content: dict[str, Any] = {}
        for _ in range(generator.randrange(1, 4)):
            section = generator.choice(list(plain))
            name = generator.choice([*plain[section], "x"])
            content.setdefault(section, {})[name] = generator.choice(values)
        try:
            settings_from(content)
            good += 1
        except CharlmError as error:
            refused += 1
            good += error.exit_code == 2 and len(str(error)) < 2000
        except Exception as error:
            print(f"settings {content}: {type(error).__name__}: {error}", file=sys.stderr)
    yield Row("hostile settings", bench.amounts.settings, good, f"{refused:,} refused with exit 2")


def _measured(*arguments: str, limit: float = 900.0, folder: Path) -> tuple[int, int, float]:
    """Return the exit code, peak memory in MB and seconds of a command."""
    begun = time.monotonic()
    nowhere = subprocess.DEVNULL
    process = subprocess.Popen(
        [sys.executable, "-m", "charlm", *arguments], cwd=ROOT, stdout=nowhere, stderr=nowhere,
        env=os.environ | {"CHARLM_CACHE": str(folder / "big-cache")},
    )  # fmt: skip
    highest = 0
    while process.poll() is None:
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            peaks = [int(line.split()[1]) for line in lines if line.startswith("VmHWM")]
            highest = max([highest, *peaks])
        if time.monotonic() - begun > limit:
            process.kill()
        time.sleep(0.02)
    return process.returncode, highest // 1024, time.monotonic() - begun


def large_texts(bench: Bench) -> Iterator[Row]:
    """Measure memory and time of a long line, a sparse file and a decompression bomb."""
    folder, size = bench.folder, bench.amounts.gigabytes
    common = ["--hidden", "8", "--layers", "1", "--checkpoints", str(folder / "ck")]
    path = folder / "small.txt"
    path.write_text("the apple and pear salad " * 4000)
    _, usual, _ = _measured("train", str(path), "--steps", "3", *common, folder=folder)
    path = folder / "line.txt"
    with path.open("wb") as file:
        for _ in range(int(1000 * size)):
            file.write(b"the apple and pear salad " * 40_000)
    status, vocabulary, seconds = _measured("vocab", str(path), folder=folder)
    yield Row(f"vocab of a line of {size:g} GB", 1, int(status == 0),
              f"{vocabulary} MB of memory, {seconds:.0f} s")  # fmt: skip
    status, highest, seconds = _measured("train", str(path), "--steps", "3", *common, folder=folder)
    extra = (highest - usual) / max(size, 0.001)
    most = 1500 if size >= 1 else 9000  # a small text is read into memory
    yield Row(f"train on a line of {size:g} GB", 1, int(status == 0 and extra < most),
              f"{highest} MB of memory, {extra:.0f} MB for a GB above a small text, "
              f"{seconds:.0f} s")  # fmt: skip
    path.unlink()
    shutil.rmtree(folder / "big-cache", ignore_errors=True)
    with path.open("wb") as file:
        file.truncate(10 << 30)
    status, highest, seconds = _measured("train", str(path), *common, folder=folder)
    yield Row(
        "sparse file of 10 GB", 1, int(status == 3), f"{highest} MB, refused in {seconds:.1f} s"
    )
    path.unlink()
    packed = folder / "bomb.txt.bz2"
    packed.write_bytes(
        bz2.compress(b"ab \n" * (256 << 20)) if size >= 1 else bz2.compress(b"ab" * 9**7)
    )
    limit = 60.0
    status, highest, seconds = _measured("vocab", str(packed), limit=limit, folder=folder)
    yield Row("compressed text that unpacks to 1 GB", 1, int(status in (0, 124) and highest < 500),
              f"{packed.stat().st_size:,} bytes compressed; {highest} MB of memory")  # fmt: skip
    with Path("/dev/zero").open("rb") as zero:
        begun = time.monotonic()
        process = subprocess.run([sys.executable, "-m", "charlm", "train", "-", *common], cwd=ROOT,
                               stdin=zero, capture_output=True, check=False)  # fmt: skip
    yield Row("endless zeros on stdin", 1, int(process.returncode == 3),
              f"refused in {time.monotonic() - begun:.1f} s")  # fmt: skip
