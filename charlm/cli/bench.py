"""`charlm bench`: what this machine can do, and what charlm does on it."""

from dataclasses import asdict
from typing import Annotated

import typer

from charlm.cli.options import JsonOption
from charlm.cli.output import render, say, write_json


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("bench")(bench)


def bench(
    hidden: Annotated[int, typer.Option("--hidden", min=1, help="Units of both layers.")] = 512,
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.01, help="For each program that is measured.")
    ] = 4.0,
    cells: Annotated[
        bool, typer.Option("--cells", help="Training of every cell as well, beside the LSTM.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure this machine: products, memory, training, sampling, scoring, encoding, start-up.

    Example:  charlm bench --seconds 2
    """
    say("measuring; keep the machine quiet ...")
    from charlm.benchmark import machine_name, run_benchmarks

    figures = []
    for figure in run_benchmarks(hidden=hidden, seconds=seconds, cells=cells):
        say(f"{figure.group}: {figure.name}: {figure.value:,.4g} {figure.unit}", level=2)
        figures.append(figure)
    if as_json:
        rows = [asdict(figure) for figure in figures]
        write_json({"schema_version": 1, "machine": machine_name(), "figures": rows})
        return
    from charlm.report.tables import bench_table

    say(machine_name())
    render(bench_table(figures))
