"""Start, plan or resume a run for `charlm train`, and report how."""

from typing import TYPE_CHECKING

from charlm import api
from charlm.cli.output import Verbosity, render, say, say_notes, write, write_json
from charlm.config.presets import PRESETS

if TYPE_CHECKING:
    from charlm.api import Request
    from charlm.training.session import Session


def show_plan(request: "Request", *, as_json: bool) -> None:
    """Write the plan and the reasons for it to stdout."""
    _name_preset(request)
    planned = api.plan_run(request)
    from charlm.report.progress import describe_plan
    from charlm.report.runs import setting_rows, setting_table

    say_notes([*planned.warnings, *filter(None, [planned.problem])])
    record = planned.record
    if as_json:
        write_json({"schema_version": 1, **record})
        return
    write("\n".join(describe_plan(record)) + "\n\n")
    render(setting_table(setting_rows(record, everything=False)))


def start(request: "Request", *, overwrite: bool = False) -> "Session":
    """Start a new run; with `overwrite` a run of the same name is replaced."""
    _name_preset(request)
    return api.start_run(request, command=Verbosity.command, overwrite=overwrite)


def start_or_continue(request: "Request") -> "Session":
    """Start the run of this name, or resume it if it exists."""
    _name_preset(request)
    return _reported(api.start_or_resume(request, command=Verbosity.command))


def resume(request: "Request") -> "Session":
    """Resume the named run, or the newest one."""
    return _reported(api.resume_run(request))


def _name_preset(request: "Request") -> None:
    if request.preset in PRESETS:  # an unknown one is refused with the settings
        differs = PRESETS[request.preset].differs
        say(f"preset {request.preset}; not as published: {differs}")


def _reported(session: "Session") -> "Session":
    """Report the step from which a session resumes; a new run has none."""
    step = session.trainer.counters.step
    if step and not session.complete:
        say(f"resuming {session.path.name} from step {step:,}")
    return session
