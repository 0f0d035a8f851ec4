"""`charlm info`: what a run is and how it was made. Loads no torch."""

import typer

from charlm.cli.options import CheckpointsOption, JsonOption, RunOption, locate
from charlm.cli.output import Verbosity, render, write, write_json


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("info")(info)


def info(
    as_json: JsonOption = False, run: RunOption = None, checkpoints: CheckpointsOption = None
) -> None:
    """What a run is: model, text, results, and why each size was chosen.

    Example:  charlm info --run tales
    """
    path = locate(run, checkpoints, trained=False)
    from charlm.runs.layout import read_config, read_record

    config = read_config(path)
    record = read_record(path)
    from charlm.report.repeating import repeat_command, repeat_note

    if as_json:
        write_json(
            {"schema_version": 1, "path": str(path), "config": config, "run": record,
             "repeat": repeat_command(path, record)}
        )  # fmt: skip
        return
    from charlm.report.runs import run_pairs, setting_rows, setting_table
    from charlm.report.tables import pairs_table

    render(pairs_table(run_pairs(path, config, record)))
    rows = setting_rows(record, everything=Verbosity.level > 1)
    if rows:
        write("\n")
        render(setting_table(rows))
    again = repeat_command(path, record)
    if again:
        write(f"\n{repeat_note(record)}\n{again}\n")
