"""`charlm settings`: list all settings of a run, or show one in full."""

from typing import Annotated

import typer

from charlm.cli import options
from charlm.cli.output import render, render_all, write, write_document
from charlm.config.settings import SECTIONS, find_setting, table
from charlm.errors import UsageError, check_choice

FORMATS = ("table", "markdown")


def settings(
    name: Annotated[
        str | None,
        typer.Argument(help="Setting or flag to show in full."),
    ] = None,
    output: Annotated[
        str, typer.Option("--format", help="Format of the list: table or markdown.")
    ] = "table",
    as_json: options.Json = False,
) -> None:
    """List the settings with their flags and defaults, or show one.

    Example:  charlm settings dropout
    """
    from charlm.report.settings import markdown_tables, section_table, setting_facts, setting_page

    check_choice("output", output, FORMATS)
    chosen = None if name is None else find_setting(name.lstrip("-").replace("-", "_"))
    if chosen and output != "table":
        raise UsageError(f"--format {output} with one setting; leave out one of them")
    if as_json:
        rows = [setting_facts(setting) for setting in table().values()]
        content = setting_facts(chosen) if chosen else {"settings": rows}
        write_document(content)
    elif chosen:
        render(setting_page(chosen))
    elif output == "markdown":
        write("\n".join(markdown_tables()))
    else:
        render_all(map(section_table, SECTIONS))
