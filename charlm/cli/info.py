"""`charlm info`: show what a run is and how it was made, without torch."""

from charlm import api
from charlm.cli import options
from charlm.cli.output import Verbosity, render, write, write_document


def info(
    as_json: options.Json = False, run: options.Run = None, checkpoints: options.Checkpoints = None
) -> None:
    """Show a run: model, text, results, settings and their origins.

    Example:  charlm info --run tales
    """
    path = options.locate(run, checkpoints, trained=False)
    about = api.info.describe_run(path)
    if as_json:
        write_document(about)
        return
    from charlm.report.repeating import repeat_note
    from charlm.report.runs import run_pairs, setting_rows, setting_table
    from charlm.report.tables import pairs_table

    record = about["run"]
    render(pairs_table(run_pairs(path, about["config"], record)))
    if rows := setting_rows(record, everything=Verbosity.level > 1):
        write("\n")
        render(setting_table(rows))
    if about["repeat"]:
        write(f"\n{repeat_note(record)}\n{about['repeat']}\n")
