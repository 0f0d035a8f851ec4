"""`charlm reproduce`: train a recipe and compare its results with published ones."""

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from charlm import api
from charlm.cli import options
from charlm.cli.output import Verbosity, render, say, write_document
from charlm.cli.progress import follow

if TYPE_CHECKING:
    from charlm.config.recipes import Recipe
    from charlm.training.session import Session


def reproduce(
    name: Annotated[str | None, typer.Argument(help="Recipe. (default: list the recipes)")] = None,
    data: Annotated[
        Path,
        typer.Option("--data", envvar="CHARLM_DATA", help="Folder of corpora.", metavar="DIR"),
    ] = Path("data"),
    budget: Annotated[
        float | None,
        typer.Option("--budget", min=0.001, help="Stop after N minutes; run again to resume."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Seed of a new run. (default: 1)")
    ] = None,
    as_json: options.Json = False,
    checkpoints: options.Checkpoints = None,
) -> None:
    """Train a recipe and compare with published results.

    A run that was stopped is resumed.

    Example:  charlm reproduce ptb-word --data corpora --budget 30
    """
    from charlm.config.recipes import RECIPES, recipe
    from charlm.report.reproductions import comparison, recipe_table

    if name is None:
        if as_json:
            recipes = [{"recipe": key, "what": RECIPES[key].summary, **_about(RECIPES[key])}
                       for key in RECIPES]  # fmt: skip
            write_document({"recipes": recipes})
        else:
            render(recipe_table(RECIPES))
        return
    chosen = recipe(name)
    session = api.reproduction.open_recipe(
        name, data, seed=seed, checkpoints=checkpoints, command=Verbosity.command
    )
    _train(session, budget)
    result = api.reproduction.recipe_result(name, checkpoints=checkpoints)
    if as_json:
        write_document({"recipe": name, "complete": result.complete,
                    "ours": result.figures, "floors": result.floors, **_about(chosen)})  # fmt: skip
        return
    if not result.complete:
        say(f"not complete yet; continue with: {Verbosity.command}")
    render(comparison(chosen, result.figures, result.floors))
    say(f"protocol: {chosen.protocol}")


def _about(chosen: "Recipe") -> dict[str, Any]:
    """Return the protocol and the published figures of a recipe for JSON."""
    others = {label: [{"who": who, "figure": figure} for who, figure in getattr(chosen, label)]
              for label in ("published", "measured")}  # fmt: skip
    aim = {} if chosen.aim is None else {"aim": chosen.aim}
    return {"figure": chosen.figure, "protocol": chosen.protocol, **others, **aim}


def _train(session: "Session", budget: float | None) -> None:
    """Train until the run is complete or the budget of minutes is used up."""
    if session.complete:
        session.lock.release()
        return
    step = session.trainer.counters.step
    if step:
        say(f"resuming {session.path.name} from step {step:,}")
    if budget is None:
        follow(session)
        return
    timer = threading.Timer(60.0 * budget, lambda: session.trainer.stop("the budget is used up"))
    timer.daemon = True
    timer.start()
    try:
        follow(session)
    finally:
        timer.cancel()
