"""`charlm ngram`: fit n-gram models, and exchange them as ARPA files."""

from pathlib import Path
from typing import Annotated

import typer

from charlm import api
from charlm.cli import options
from charlm.cli.frame import DefaultGroup, add_commands
from charlm.cli.output import Verbosity, render, say, say_all, write_document
from charlm.cli.stdin import Takes
from charlm.commands import command
from charlm.files.atomic import STDOUT

FIT = "fit"
"""Command that is meant if none is named: `charlm ngram corpus.txt`."""

Name = Annotated[str | None, typer.Option("--name", help="Name of the run.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace the run --name if it exists.")
]


class _FitByDefault(DefaultGroup):
    """The commands of n-grams, of which `fit` may be left out."""

    default = FIT


app = typer.Typer(
    name="ngram",
    cls=_FitByDefault,
    help="Fit n-gram models (modified Kneser-Ney), and read and write ARPA files.\n\n"
    "`charlm ngram TEXT` is short for `charlm ngram fit TEXT`; a file that is named like a command "
    "is ./export.\n\n"
    "Example:  charlm ngram corpus.txt --unit word --order 5",
    no_args_is_help=True,
)


@Takes(text=("sources", "like"))
def fit(
    sources: Annotated[
        list[str] | None,
        typer.Argument(help="Files, folders, globs, - or hf:name. (default: the built-in text)"),
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(
            "--like", metavar="RUN", help="Use the text and the vocabulary of this run instead."
        ),
    ] = None,
    order: Annotated[
        int | None,
        typer.Option(
            "--order",
            help="Length of the n-grams. (default: 5; 7 for characters and bytes)",
        ),
    ] = None,
    name: Name = None,
    overwrite: Overwrite = False,
    settings: options.Text = options.NO_FLAGS,
    vocab: Annotated[
        Path | None, typer.Option("--vocab", help="Use this tokenizer.json unchanged.")
    ] = None,
    checkpoints: options.Checkpoints = None,
    as_json: options.Json = False,
) -> None:
    """Fit an n-gram model on a text, in seconds, and keep it as a run.

    Commands such as score, eval, compare, next and sample take it with --run.

    Example:  charlm ngram corpus.txt --unit word --order 5
    """
    from charlm.config.flags import by_section

    model = api.ngrams.fit_run(
        by_section({"sources": sources, **settings}), like=like, order=order, name=name,
        overwrite=overwrite, vocab=vocab, checkpoints=checkpoints, command=Verbosity.command,
    )  # fmt: skip
    _show(model.path, as_json=as_json)


def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run of an n-gram model.")],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="File to write; .gz packs it, - is stdout.")
    ],
    checkpoints: options.Checkpoints = None,
) -> None:
    """Write the model of an n-gram run as an ARPA file, which KenLM and SRILM read.

    Example:  charlm ngram export kn5 kn5.arpa.gz
    """
    model = options.open_model(run, checkpoints)
    total = api.arpa.export_arpa(model, STDOUT if str(out) == "-" else out)
    if model.run.backward:
        say(f"{model.path.name} reads backward, so the tokens of each n-gram are reversed")
    say(f"wrote {total:,} n-grams to {out}")


@Takes(stdin=())
def import_(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="ARPA file; it may be packed (.gz, .xz, ...).")
    ],
    name: Name = None,
    overwrite: Overwrite = False,
    like: Annotated[
        str | None,
        typer.Option(
            "--like", metavar="RUN", help="Take vocabulary and documents from this run instead."
        ),
    ] = None,
    unit: Annotated[
        str | None,
        typer.Option(
            "--unit",
            help="Unit of the entries: word or char. (default: word, or as charlm wrote it)",
        ),
    ] = None,
    document: Annotated[
        str | None,
        typer.Option(
            "--document",
            help="Unit that </s> ends: line, paragraph or file; stream for no ends. "
            "(default: line)",
        ),
    ] = None,
    checkpoints: options.Checkpoints = None,
    as_json: options.Json = False,
) -> None:
    """Keep the model of an ARPA file (SRILM, KenLM, charlm) as a run.

    Example:  charlm ngram import kn5.arpa.gz --name kn5
    """
    model = api.arpa.import_arpa(
        file, name=name, like=like, unit=unit, document=document, checkpoints=checkpoints,
        overwrite=overwrite, command=Verbosity.command,
    )  # fmt: skip
    _show(model.path, as_json=as_json)


def _show(path: Path, *, as_json: bool) -> None:
    """Write the description of a run that was just made."""
    about = api.info.describe_run(path)
    say_all(about["run"]["results"]["notes"])
    if as_json:
        write_document(about)
        return
    from charlm.report.runs import run_pairs
    from charlm.report.tables import pairs_table

    render(pairs_table(run_pairs(path, about["config"], about["run"])))
    say(f"use it with: {command('score', 'a text', run=path)}")


add_commands(app, {FIT: fit, "export": export, "import": import_}, "ngram")
