"""`charlm sample` with a run on a series of numbers: forecasts."""

from pathlib import Path
from typing import Any

from charlm.cli import options
from charlm.cli.output import say, write, write_json_line
from charlm.errors import naming


def write_forecasts(
    path: Path,
    *,
    length: int,
    prime: str,
    prime_file: Path | None,
    temperature: float,
    count: int,
    seed: int | None,
    engine: str,
    as_json: bool,
) -> None:
    """Write the next numbers of a series, one on each line, or a JSON object for each sample."""
    from charlm.api.series import SERIES_API

    model = SERIES_API.open(path, engine=engine)
    say(f"engine {model.run.engine}", level=2)
    seed = options.reported_seed(seed) if temperature else seed or 0
    values = _prime(prime, prime_file, model.path)
    names = {"values": "--prime", "length": "--len", "temperature": "--temperature"}
    with naming(names):
        samples = model.samples(count, length, values=values, temperature=temperature, seed=seed)
        for number, sample in enumerate(samples):
            if as_json:
                values_plain = sample.tolist()
                write_json_line({"sample": number, "seed": seed, "values": values_plain})
            else:
                gap = "\n" if number else ""
                write(gap + "".join(f"{value:.12g}\n" for value in sample))


def _prime(prime: str, file: Path | None, run: Path) -> Any:
    """Return the numbers to continue, or None for those of the run."""
    from charlm.text.series import checked_numbers, read_numbers

    if file:
        from charlm.runs.columns import run_columns
        from charlm.text.sources.text_lines import FileRules

        return read_numbers([str(file)], FileRules(warn=say, columns=run_columns(run)))[1]
    if not prime:
        return None
    cells = ((f"number {index:,}", cell) for index, cell in enumerate(prime.split(), 1))
    advice = 'Write numbers with blanks between them: --prime "1 2.5 3"'
    return checked_numbers(cells, "--prime", advice)
