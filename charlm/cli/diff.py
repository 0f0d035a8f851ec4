"""`charlm diff`: show in which settings two runs differ, and their results."""

from typing import Annotated

import typer

from charlm import api
from charlm.cli import options
from charlm.cli.output import render, say, write_document


def diff(
    first: Annotated[str, typer.Argument(metavar="RUN", help="Run.")],
    second: Annotated[str, typer.Argument(metavar="OTHER", help="Run to compare it with.")],
    as_json: options.Json = False,
    checkpoints: options.Checkpoints = None,
) -> None:
    """Show the settings in which two runs differ, their origins, and the results.

    The results are as in the records of the runs, each on its own held-out text; charlm compare
    evaluates runs on one text.

    Example:  charlm diff tales prose
    """
    result = api.runs.diff_runs(first, second, checkpoints)
    if as_json:
        write_document(result.to_dict())
        return
    from charlm.report.diff import diff_table

    if not result.settings:
        say("the settings are the same")
    render(diff_table(result))
    if "text SHA-256" in result.facts:
        say("the runs were trained on different texts, so their losses are not comparable here")
