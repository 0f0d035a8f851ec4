"""Description of a run from its JSON files alone, without torch."""

from pathlib import Path
from typing import Any

from charlm.commands import command
from charlm.errors import UsageError
from charlm.report.repeating import repeat_command
from charlm.runs.layout import home, read_config, read_record


def describe_run(path: Path) -> dict[str, Any]:
    """Return `config` and `run` as stored, and `repeat`, the command that trains the run again.

    `repeat` is None if the text cannot be read again. Raises RunError for a damaged run, UsageError
    for a companion.
    """
    config = read_config(path)
    if home(path) != path:
        raise UsageError(
            f"{path} is the companion of {home(path).name}, which has the description of both; "
            f"expected a run of its own. Use: {command('info', run=home(path))}"
        )
    record = read_record(path)
    return {
        "path": str(path),
        "config": config,
        "run": record,
        "repeat": repeat_command(path, record),
    }
