"""`charlm rescore`: rescore the n-best lists of a recogniser, and tune the weights."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from charlm import api
from charlm.cli import options
from charlm.cli.output import render, rendered, say, write_json, write_text
from charlm.commands import quote
from charlm.errors import UsageError
from charlm.files.atomic import explained, write_file

if TYPE_CHECKING:
    from charlm.inference.word_errors import ErrorChange, ErrorRate
    from charlm.text.nbest import NBestLists


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Options of `charlm rescore`."""

    lists: Annotated[
        Path, typer.Argument(metavar="LISTS", help="File of n-best lists, or a folder (srilm).")
    ]
    format_name: Annotated[
        str, typer.Option("--format", help="auto, srilm, kaldi, nemo, tsv or jsonl.")
    ] = "auto"
    decoding: options.Decoding
    acoustic: Annotated[
        Path | None, typer.Option("--acoustic", help="File of acoustic costs: utt-3 cost (kaldi).")
    ] = None
    graph: Annotated[
        Path | None, typer.Option("--graph", help="File of graph costs: utt-3 cost (kaldi).")
    ] = None
    beam: Annotated[
        int | None, typer.Option("--beam", min=1, help="Hypotheses of each utterance (nemo).")
    ] = None
    refs: Annotated[
        Path | None,
        typer.Option("--refs", help="References, utt w1 w2 ...; reports the word error rates."),
    ] = None
    tune: Annotated[
        bool, typer.Option("--tune", help="Tune the weights for the fewest errors against --refs.")
    ] = False
    chars: Annotated[bool, typer.Option("--chars", help="Count errors of characters.")] = False
    best: Annotated[
        bool,
        typer.Option("--best", help="Write the best hypotheses, utt w1 w2 ..., not the lists."),
    ] = False
    lm_weight: Annotated[
        float | None, typer.Option("--lm-weight", help="Weight of the model. (default: 1)")
    ] = None
    word_bonus: Annotated[
        float | None,
        typer.Option("--word-bonus", help="Weight of the number of words. (default: 0)"),
    ] = None
    pairs: Annotated[
        list[str] | None,
        typer.Option(
            "--weight", metavar="NAME=VALUE", help="Weight of a feature; may be repeated."
        ),
    ] = None
    weights_file: Annotated[
        Path | None, typer.Option("--weights", help="File with weights, written by --tune --out.")
    ] = None
    unk_penalty: options.UnkPenalty = None
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of tuning, bootstrap.")] = 0
    out: Annotated[
        Path | None,
        typer.Option("--out", help="File to write; a folder if LISTS is one. (default: stdout)"),
    ] = None
    as_json: options.Json = False
    with_: options.With = None
    engine: options.Engine = "auto"
    run: options.Run = None
    checkpoints: options.Checkpoints = None


def rescore(asked: Asked) -> None:
    """Rescore the n-best lists of a speech or text recogniser.

    Writes the lists with the model's log-probability, or with --best the hypotheses whose weighted
    sums of features are greatest. Features are the scores of the lists, charlm and words. Greater
    ones are better: Kaldi's costs count with minus. The base of charlm is that of the lists, 10 for
    srilm, else e; its weight takes the place of lscore.

    --tune finds the weights with the fewest errors (MERT) and writes them to --out.

    Example:  charlm rescore dev.jsonl --refs dev.refs --tune --out weights.json
    """
    _check(asked)
    read = {
        "acoustic": asked.acoustic, "graph": asked.graph, "beam": asked.beam, **asked.decoding,
    }  # fmt: skip
    nbest = api.rescoring.read_lists(asked.lists, format=asked.format_name, warn=say, **read)
    references = asked.refs and api.rescoring.read_references(
        nbest, asked.refs, warn=say, **asked.decoding
    )
    model = options.open_model(asked.run, asked.checkpoints, asked.engine, with_=asked.with_)
    nbest = api.rescoring.rescore(model, nbest, unk_penalty=asked.unk_penalty, warn=say)
    weights = _weights(nbest, asked)
    how: dict[str, Any] = {"chars": asked.chars, "seed": asked.seed}
    if references and asked.tune:
        weights = api.rescoring.tune_weights(nbest, references, start=weights, **how)
    if asked.best or references:
        say(f"weights: {_flags(weights)}")
        _warn_of_signs(nbest, weights)
    if references:
        rates = api.rescoring.error_rates(nbest, references, weights, **how)
        change = api.rescoring.rate_change(nbest, references, weights, **how)
        record = _record(nbest, weights, rates, change)
        _report(record, rates, change, asked)
        if asked.tune and asked.out:
            _write_lines([json.dumps(record, indent=2)], asked.out)
    if asked.best:
        chosen = zip(nbest, nbest.best(weights), strict=True)
        _write_lines((" ".join([one.name, *each.text.split()]) for one, each in chosen), asked.out)
    elif not references or (asked.out and not asked.tune):
        _write_lists(nbest, asked.lists, asked.out)


def _check(asked: Asked) -> None:
    """Raise UsageError for options that do not fit together."""
    lists, refs, out = asked.lists, asked.refs, asked.out
    if refs is None:
        typed = options.typed_values(asked, "--tune", "--chars", "--json")
        options.check_meant(typed, "--refs")
    if asked.tune and asked.best:
        raise UsageError(
            "--tune and --best were both given; expected one of them. Keep the weights with --out, "
            "then give them with --weights"
        )
    if asked.best and asked.as_json and out is None:
        raise UsageError("--json and --best both write to stdout; expected one. Add --out")
    if lists.is_dir() and not (refs or asked.best or out):
        raise UsageError(
            f"{lists} has a file for each utterance; expected a folder for the results. Add --out"
        )
    if out and out.exists() and lists.exists() and out.samefile(lists):
        raise UsageError(f"--out is {out}, which is read; expected another place")


def _weights(nbest: "NBestLists", asked: Asked) -> dict[str, float]:
    """Return the default weights, or those of a file, with the weights that were typed."""
    weights = api.rescoring.default_weights(nbest)
    if asked.weights_file is not None:
        weights = api.rescoring.read_weights(asked.weights_file, nbest, say)
    typed = dict(map(_pair, asked.pairs or ()))
    if unknown := [name for name in typed if name not in weights]:
        raise UsageError(
            f"--weight names {unknown[0]!r}; expected a feature of the lists: {', '.join(weights)}"
        )
    named = {"charlm": asked.lm_weight, "words": asked.word_bonus}
    typed |= {name: value for name, value in named.items() if value is not None}
    for name, value in (weights | typed).items():
        if not math.isfinite(value):
            raise UsageError(f"the weight of {name} is {value}; expected a finite number")
    return weights | typed


def _warn_of_signs(nbest: "NBestLists", weights: dict[str, float]) -> None:
    """Warn of scores that count against a hypothesis, and of costs that count for one."""
    for name in nbest.rising():
        if weights.get(name, 0.0) > 0.0:
            say(
                f"{name} rises from the first to the last hypothesis of the lists, so it may be a "
                "cost or a rank, but a greater feature counts for a hypothesis. Give it a negative "
                f"weight, or 0: --weight {quote(name)}=-1"
            )
    if negative := [name for name, value in weights.items() if value < 0.0 and name != "words"]:
        say(
            f"the weight of {negative[0]} is negative, so a greater score counts against a "
            "hypothesis; right for costs, else the lists are too few to tune on"
        )


def _pair(text: str) -> tuple[str, float]:
    name, equals, value = text.rpartition("=")
    try:
        return name, float(value if equals else "")
    except ValueError as error:
        raise UsageError(
            f"--weight is {text!r}; expected a feature and a number, such as --weight ascore=0.5"
        ) from error


def _flags(weights: dict[str, float]) -> str:
    """Return the weights as flags that can be pasted."""
    flags = {"charlm": "--lm-weight ", "words": "--word-bonus "}
    return " ".join(
        f"{flags.get(name) or f'--weight {quote(name)}='}{value:.6g}"
        for name, value in weights.items()
    )


def _record(
    nbest: "NBestLists",
    weights: dict[str, float],
    rates: "dict[str, ErrorRate]",
    change: "ErrorChange",
) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "format": nbest.format_name,
        "utterances": len(nbest),
        "hypotheses": nbest.size,
        "log_base": nbest.log_base,
        "per_word": api.rescoring.scores_per_word(nbest),
        "weights": weights,
        **{name.replace(" ", "_"): rate.summary() for name, rate in rates.items()},
        "change": change.summary(),
    }


def _report(
    record: dict[str, Any],
    rates: "dict[str, ErrorRate]",
    change: "ErrorChange",
    asked: Asked,
) -> None:
    """Write the error rates as a table or JSON; on stderr if stdout has the hypotheses."""
    if asked.as_json:
        write_json(record)
        return
    from charlm.report.tables import error_table

    if asked.best and asked.out is None:
        say(rendered(error_table(rates, change), stderr=True).rstrip("\n"))
    else:
        render(error_table(rates, change))


def _write_lists(nbest: "NBestLists", lists: Path, out: Path | None) -> None:
    """Write rescored lists in their own format; a folder gets a file for each utterance."""
    if lists.is_dir() and out:
        with explained(out):
            out.mkdir(parents=True, exist_ok=True)
        for utterance in nbest:
            one = nbest.with_utterances([utterance])
            _write_lines(api.rescoring.nbest_lines(one), out / utterance.name)
    else:
        _write_lines(api.rescoring.nbest_lines(nbest), out)


def _write_lines(lines: Iterable[str], out: Path | None) -> None:
    """Write lines to a file, or to stdout."""
    if out:
        write_file(out, "".join(f"{line}\n" for line in lines).encode("utf-8"))
        return
    for line in lines:
        write_text(f"{line}\n")
