"""`charlm bench`: measure this machine, and charlm on it."""

from dataclasses import asdict
from typing import Annotated

import typer

from charlm.cli import options
from charlm.cli.output import render, say, write_document


def bench(
    hidden: Annotated[int, typer.Option("--hidden", min=1, help="Units of both layers.")] = 512,
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.01, help="Seconds for each measurement.")
    ] = 4.0,
    cells: Annotated[
        bool, typer.Option("--cells", help="Measure training of every cell too.")
    ] = False,
    device: options.Device = "cpu",
    as_json: options.Json = False,
) -> None:
    """Measure the speed of this machine: training, sampling, scoring.

    Example:  charlm bench --seconds 2
    """
    say("measuring; keep the machine quiet ...")
    from charlm import benchmark
    from charlm.nn.devices import choose_device

    chosen, figures = choose_device(device), []
    name = benchmark.machine_name(chosen)
    for figure in benchmark.run_benchmarks(
        hidden=hidden, seconds=seconds, cells=cells, device=chosen
    ):
        say(f"{figure.group}: {figure.name}: {figure.value:,.4g} {figure.unit}", level=2)
        figures.append(figure)
    if as_json:
        rows = [asdict(figure) for figure in figures]
        write_document({"machine": name, "figures": rows})
        return
    from charlm.report.tables import bench_table

    say(name)
    render(bench_table(figures))
