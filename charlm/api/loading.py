"""`load`, which returns the model of a run of any task. Nothing is printed."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from charlm.api.model import Model
from charlm.api.task_api import api_of, open_task
from charlm.config.tasks import TASKS
from charlm.errors import UsageError, named
from charlm.runs.conditions import check_condition
from charlm.runs.engines import engine_on
from charlm.runs.layout import is_label_run, read_config, run_task
from charlm.runs.locate import checkpoints_folder, find_run
from charlm.runs.mixtures import load_members, member_texts, mix_runs
from charlm.runs.run import load_run


def load(
    run: str | Path | None = None,
    *,
    checkpoints: str | Path | None = None,
    engine: str = "auto",
    device: str = "cpu",
    weights: str = "fp32",
    threads: int | None = None,
    with_: str | Path | Iterable[str | Path] = (),
    condition: str | None = None,
) -> Model | Any:
    """Load the model of a run: a name, a path, or by default the newest run or the built-in model.

    A language model is a `Model`, the model of a run with `--task classify` a `LabelModel`; the
    other tasks have classes of their own. Type checkers take the result for a `Model`, unless
    `isinstance` shows them another of these. Options and errors are as in `load_model`. Only a
    `Model` takes `weights` and `condition`. A `LabelModel` takes `with_` too; its runs need the
    same labels and have equal weights by default (see `mix_label_runs`).
    """
    folder, engine = checkpoints_folder(checkpoints), engine_on(device, engine)
    path = find_run(None if run is None else str(run), folder)
    if not is_label_run(path):
        return load_model(
            path, checkpoints=checkpoints, engine=engine, weights=weights, threads=threads,
            with_=with_, condition=condition,
        )  # fmt: skip
    task, names = run_task(path), member_texts(with_)
    mixes = "--with" in api_of(task).evaluation_flags
    for name, value, usual in (
        ("weights", weights, "fp32"), ("condition", condition, None),
        ("with_", "" if mixes else ", ".join(names), ""),
    ):  # fmt: skip
        if value != usual:
            known = "a language model" + (" or a classifier" if name == "with_" else "")
            raise UsageError(
                f"{named(name)} {value} with run {path.name}, which gives "
                f"{TASKS[task].gives}; expected {known}. Leave out {named(name)}"
            )
    more: dict[str, Any] = {"with_": names, "checkpoints": checkpoints} if names else {}
    return open_task(path, engine=engine, threads=threads, **more)


def load_model(
    run: str | Path | None = None,
    *,
    checkpoints: str | Path | None = None,
    engine: str = "auto",
    device: str = "cpu",
    weights: str = "fp32",
    threads: int | None = None,
    with_: str | Path | Iterable[str | Path] = (),
    condition: str | None = None,
) -> Model:
    """Load the language model of a run: a name, a path, or by default as in `load`.

    `engine` is auto, native (compiled kernels), numpy or torch. `device` is cpu, cuda, mps or auto
    (CUDA if it is available); all but the CPU need torch. `weights` is the number format in which
    the kernels keep the weights: fp32, bf16 or int8. `with_` names runs whose probabilities are
    mixed with those of the model, such as "ngram" (the companion of the run) or "other=0.3", in
    which other has the weight 0.3 (see `mix_runs`). `condition`, one of `Model.conditions`, is the
    condition with which the model begins texts. Raises RunError if there is no such run or its
    files are damaged, UsageError for runs with another vocabulary or with labels.
    """
    folder, engine = checkpoints_folder(checkpoints), engine_on(device, engine)
    path = find_run(None if run is None else str(run), folder)
    options: dict[str, Any] = {
        "engine": engine, "weights": weights, "threads": threads, "condition": condition,
    }  # fmt: skip
    if not is_label_run(path):
        check_condition(path, read_config(path), condition)
    first = load_run(path, **options)
    others, given = load_members(path, member_texts(with_), folder, **options)
    if not others:
        for name, usual in (("engine", "auto"), ("weights", "fp32")):
            if options[name] != usual:
                first.check_network(f"{named(name)} {options[name]}")
        return Model(first, **options)
    mixture = mix_runs([first, *others], given)
    return Model(mixture.run, mixture, **options)
