"""Measure fine-tuning: a short text from a trained model, and from scratch, in the same time.

    CHARLM_DATA=folder python scripts/measure_fine_tuning.py [--minutes 1] [--seeds 1 2 3]
    CHARLM_DATA=folder python scripts/measure_fine_tuning.py --texts names --from RUN
    CHARLM_DATA=folder python scripts/measure_fine_tuning.py --epochs 10 --set learning_rate=0.005

Both sides are trained in turns, seed by seed. Figures are bits per character on the last tenth of
each text: of the best weights from scratch, and before and after fine-tuning. `gain` is the
difference of the two trainings, `old` the change on the validation text of the run that training
started from, if that keeps it. With `--epochs`, or `--set`, settings that other rows of a table
were measured with; they apply to fine-tuning only.
"""

import argparse
import gzip
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import mean
from typing import Any

import charlm
from charlm.config.flags import settings_in
from charlm.runs.layout import read_record

CHARS = 100_000
"""Length of the texts that are cut."""


def shakespeare(folder: Path) -> str:
    """Return the beginning of tiny Shakespeare."""
    return (folder / "tinyshakespeare" / "input.txt").read_text(encoding="utf-8")[:CHARS]


def lang(folder: Path) -> str:
    """Return the beginning of a book by Andrew Lang, by whom `prose` was trained on nothing.

    It is 8 % of the text on which the best weights of `prose` were chosen.
    """
    return (folder / "prose20" / "prose20.valid.txt").read_text(encoding="utf-8")[:CHARS]


def reviews(folder: Path) -> str:
    """Return the beginning of film reviews, without their mark-up."""
    with gzip.open(
        folder / "tasks" / "imdb" / "unsup.sample.txt.gz", "rt", encoding="utf-8"
    ) as file:
        return file.read(2 * CHARS).replace("<br />", "\n")[:CHARS]


def names(folder: Path) -> str:
    """Return a list of first names."""
    return (folder / "names" / "names.txt").read_text(encoding="utf-8")


TEXTS: dict[str, tuple[Callable[[Path], str], dict[str, Any]]] = {
    "lang": (lang, {}),
    "shakespeare": (shakespeare, {}),
    "reviews": (reviews, {}),
    "names": (names, {}),
    "names-by-line": (names, {"document": "line"}),
}
"""Texts, and the settings of both sides."""


def trained(path: Path, text: str, **options: Any) -> dict[str, Any]:
    """Train on a text and return the record of the run."""
    training = charlm.train(text=text, checkpoints=path, overwrite=True, **options)
    for _ in training:
        pass
    return read_record(training.path)


def bits(figures: dict[str, Any] | None) -> float:
    """Return the bits per character of the figures of a text."""
    return float("nan") if figures is None else float(figures["bits_per_char"])


def measured(record: dict[str, Any]) -> dict[str, float]:
    """Return the figures of a fine-tuned run."""
    about, results = record["from"], record["results"]
    old = (about["old_valid"], results["old_valid"])
    before, after = (each["bits_per_token"] if each else float("nan") for each in old)
    return {
        "before": bits(about["valid"]),
        "after": bits(results["valid"]),
        "old": after - before,
        "passes": results["tokens"] / record["corpus"]["parts"]["train"]["tokens"],
    }


def rows(arguments: argparse.Namespace) -> Iterable[str]:
    """Train both sides in turns; yield a row of the table for each text."""
    data = Path(os.environ.get("CHARLM_DATA", "data"))
    changes = {
        key: value
        for values in settings_in(arguments.set).values()
        for key, value in values.items()
    }
    length = {"epochs": arguments.epochs} if arguments.epochs else {"minutes": arguments.minutes}
    for name in arguments.texts:
        read, options = TEXTS[name]
        text, scratch, tuned = read(data), [], []
        with tempfile.TemporaryDirectory() as folder:
            for seed in arguments.seeds:
                path, common = Path(folder), {**options, "seed": seed, "ngram": 0}
                plain = trained(path, text, name="plain", minutes=arguments.minutes, **common)
                scratch.append(bits(plain["results"]["valid"]))
                fine = {**common, **length, **changes, "start_from": arguments.start_from}
                tuned.append(measured(trained(path, text, name="tuned", **fine)))
                print(f"{name}, seed {seed}: {scratch[-1]:.4f}, {tuned[-1]}", flush=True)
        means = {key: mean(each[key] for each in tuned) for key in tuned[0]}
        gain = mean(scratch) - means["after"]
        old = f"{means['old']:+.3f}" if means["old"] == means["old"] else "-"
        yield (
            f"| {name}, {len(text):,} characters | {mean(scratch):.3f} | {means['before']:.3f} | "
            f"{means['after']:.3f} | {gain:.3f} | {means['passes']:.1f} | {old} |"
        )


def main() -> None:
    """Print the figures of each training, then the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--texts", nargs="+", choices=TEXTS, default=list(TEXTS))
    parser.add_argument("--from", dest="start_from", default="prose", help="run to start from")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--epochs", type=float, help="passes of fine-tuning, instead of minutes")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    arguments = parser.parse_args()
    table = list(rows(arguments))
    print(
        f"\n| text | from scratch | {arguments.start_from}, before | after | gain | passes | old |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|")
    print("\n".join(table))


if __name__ == "__main__":
    main()
