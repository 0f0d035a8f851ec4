"""`charlm pairs`: how often a model prefers the good sentence of minimal pairs."""

import csv
from typing import Annotated

import typer

from charlm import api
from charlm.cli import options
from charlm.cli.output import render_all, say, write, write_document
from charlm.cli.score import LogBase
from charlm.errors import UsageError, check_choice
from charlm.units import LOG_BASES

FORMATS = ("table", "tsv")

Data = Annotated[
    list[str],
    typer.Argument(
        metavar="DATA",
        help="Files and folders: .jsonl, .tsv, .csv, .parquet, .json, .txt; - is stdin.",
    ),
]
Columns = Annotated[
    str | None,
    typer.Option(
        "--columns",
        metavar="GOOD,BAD[,PHENOMENON]",
        help="Columns of tables. (default: sentence_good,sentence_bad, or what fits)",
    ),
]
Split = Annotated[
    str,
    typer.Option(
        "--split",
        help="Split sentences into words as WikiText does: moses, none, or auto (if fewer words "
        "are unknown then).",
    ),
]
Output = Annotated[
    str, typer.Option("--format", help="table, or tsv with a line for each pair of sentences.")
]


def pairs(
    data: Data,
    reading: options.PairReading = options.NO_FLAGS,
    column: Columns = None,
    split: Split = "auto",
    unk_penalty: options.UnkPenalty = None,
    output: Output = "table",
    log_base: LogBase = None,
    as_json: options.Json = False,
    engine: options.Engine = "auto",
    weights: options.Weights = "fp32",
    with_: options.With = None,
    run: options.Run = None,
    checkpoints: options.Checkpoints = None,
) -> None:
    """Count minimal pairs whose good sentence is more probable than the bad one.

    Reads tables with the columns sentence_good and sentence_bad (such as BLiMP), .txt files whose
    odd lines are bad and even lines good (such as Zorro), and test suites of SyntaxGym (.json).
    Ties are not correct. The second figure is of the pairs with equally many unknown words (UNK) in
    both sentences.

    Example:  charlm pairs blimp/data
    """
    from charlm.text.splitting import SPLITS

    check_choice("--split", split, SPLITS)
    check_choice("--format", output, FORMATS)
    log_base = log_base or "e"
    check_choice("--log-base", log_base, LOG_BASES)
    if as_json and output != "table":
        raise UsageError("--json with --format tsv; expected one of them. Leave one out")
    names = next(csv.reader([column or ""]), [])
    items = api.pairs.read_pairs(data, reading=reading, columns=names, warn=say)
    model = options.open_model(run, checkpoints, engine, weights, with_)
    result = api.pairs.pairs(model, items, split=split, unk_penalty=unk_penalty, warn=say)
    if as_json:
        penalty = model.run.unk_penalty if unk_penalty is None else unk_penalty
        shown = {"run": model.path.name, "unk_penalty": penalty, **result.summary()}
        write_document(shown)
        return
    from charlm.report.pairs import accuracy_table, pair_lines, total_table

    if output == "tsv":
        for lines in pair_lines(result, log_base):
            write(lines)
        return
    tables = [accuracy_table(result.paradigms, "paradigm")] if len(result.paradigms) > 1 else []
    tables += [accuracy_table(result.phenomena, "phenomenon")] if result.phenomena else []
    render_all([*tables, total_table(result)])
