"""Entry point of `python -m charlm` and of the command `charlm`."""

import sys


def main() -> None:
    """Run the command line. Ctrl-C while it loads exits with 130 and no traceback."""
    try:
        from charlm.cli import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
