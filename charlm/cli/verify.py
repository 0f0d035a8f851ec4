"""`charlm verify`: check the files of a run."""

from dataclasses import asdict

from charlm.cli import options
from charlm.cli.output import render, write_document
from charlm.commands import command
from charlm.errors import RunError


def verify(
    as_json: options.Json = False, run: options.Run = None, checkpoints: options.Checkpoints = None
) -> None:
    """Check the files of a run; exit with 0 or 4.

    Sizes, checksums and formats are checked.

    Example:  charlm verify --run tales
    """
    from charlm.runs.verify import verify_run

    path = options.locate(run, checkpoints, trained=False)
    checks = verify_run(path)
    broken = [check for check in checks if check.problems]
    if as_json:
        content = [asdict(check) for check in checks]
        write_document({"run": str(path), "ok": not broken, "checks": content})
    else:
        from charlm.report.tables import pairs_table

        render(pairs_table([(c.name, "; ".join(c.problems) or "ok") for c in checks]))
    if broken:
        raise RunError(
            f"{path}: {len(broken)} of {len(checks)} checks failed; expected none. Restore the "
            "run from a copy, or resume from a whole checkpoint with: "
            + command("train", "--resume", run=path)
        )
