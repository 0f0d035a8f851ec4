"""`charlm serve`: models behind an API for programs, and the page, over HTTP."""

import functools
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from charlm import api
from charlm.cli import options
from charlm.cli.output import Verbosity, say, write
from charlm.errors import EnvironmentFailure, RunError, UsageError

if TYPE_CHECKING:
    from charlm.api.model import Model
    from charlm.api.task_api import TaskModel
    from charlm.server.limits import Limits
    from charlm.server.run import Address
    from charlm.server.security import Access
    from charlm.server.service import Service

KEY_VARIABLE = "CHARLM_KEY"
"""Environment variable for the key."""
PANEL = "Access"
"""Heading of the flags that say who may ask."""
MAX_KEY = 4096
"""Maximum size of the file with the key."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Options of `charlm serve`."""

    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1"
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Port to listen on; 0 is any free port.")
    ] = 8765
    open_: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False
    also: Annotated[
        list[str] | None,
        typer.Option(
            "--also",
            metavar="RUN",
            help="Serve another run beside; may be repeated. A request chooses it by its name.",
        ),
    ] = None
    with_: options.WithAny = None
    key_file: Annotated[
        Path | None,
        typer.Option(
            "--key-file",
            metavar="FILE",
            help=f"File with the key that requests must send. (default: {KEY_VARIABLE}, or no key)",
            rich_help_panel=PANEL,
        ),
    ] = None
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure", help="Listen beyond this machine without a key.", rich_help_panel=PANEL
        ),
    ] = False
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-host",
            metavar="NAME",
            help="Answer to this name of the server, too; may be repeated. (default: localhost "
            "only)",
            rich_help_panel=PANEL,
        ),
    ] = None
    cors: Annotated[
        list[str] | None,
        typer.Option(
            "--cors",
            metavar="ORIGIN",
            help="Let pages of this origin, such as http://host:3000, read answers; may be "
            "repeated. (default: only the own page)",
            rich_help_panel=PANEL,
        ),
    ] = None
    page: Annotated[bool, typer.Option("--page/--no-page", help="Serve the page.")] = True
    log: Annotated[
        Path | None,
        typer.Option(
            "--log",
            metavar="FILE",
            help="Append a line for each request to this file. (default: stderr)",
        ),
    ] = None
    rows: Annotated[
        int,
        typer.Option(
            "--rows", min=1, max=4096, help="Samples of each model that are generated side by side."
        ),
    ] = 64
    threads: Annotated[
        int,
        typer.Option(
            "--threads",
            min=1,
            help="CPU threads of each model; more than one pays off for large models on idle "
            "cores.",
        ),
    ] = 1
    engine: options.Engine = "auto"
    weights: options.Weights = "fp32"
    run: options.Run = None
    checkpoints: options.Checkpoints = None


def serve(asked: Asked) -> None:
    """Serve a model over HTTP: the completions API of OpenAI, and a page.

    A run of another task than language models is served at /api/predict, alone or with --also; it
    has no page.

    When the server answers, it writes its URL to stdout. Without --host only
    this machine can reach it, and no key is needed.

    Example:  charlm serve --run tales --open
    """
    if asked.open_ and not asked.page:
        raise UsageError(
            "--open and --no-page exclude each other; expected at most one. Leave one out"
        )
    _check_extra()
    from charlm.server.app import make_app
    from charlm.server.limits import fitting_limits
    from charlm.server.log import Log, open_log
    from charlm.server.run import Address, Server
    from charlm.server.security import Guard
    from charlm.server.service import Service

    address = Address(asked.host, asked.port)
    access = _access(address, _key(asked.key_file), asked)
    quiet = asked.log is None and Verbosity.level == 0
    lines = Log(None if quiet else open_log(asked.log), debug=Verbosity.debug)

    with address.bind() as listener:  # before the models are loaded, which takes longer
        service = Service(_models(asked), asked.rows, asked.checkpoints)
        limits = fitting_limits()
        page = asked.page and _has_page(service, asked.open_)
        guard = Guard(make_app(service, limits, with_page=page), service, access, lines)
        answers = functools.partial(_answers, service, access, address, asked.open_)
        server = Server(guard, listener, limits, answers, functools.partial(_stops, limits))
        server.run()
    if server.stopped_by is not None:
        Verbosity.stop_reported = True
        say("stopped")
        raise typer.Exit(128 + server.stopped_by)


def _check_extra() -> None:
    """Raise EnvironmentFailure if the packages of the extra are missing."""
    try:
        import charlm.server.run  # noqa: F401
    except ImportError as error:
        raise EnvironmentFailure(
            f"serve needs {error.name}, which is not installed; install it with: "
            "pip install 'charlm[serve]'"
        ) from error


def _models(asked: Asked) -> list["Model | TaskModel"]:
    """Load the models; the first is the one that a request gets if it names none.

    Raises UsageError for a run that gives neither text nor answers to texts.
    """
    from charlm.config.tasks import LANGUAGE_MODEL
    from charlm.runs.layout import no_text, run_task, verb_of

    load = functools.partial(
        api.loading.load,
        engine=asked.engine, weights=asked.weights, threads=asked.threads,
        checkpoints=asked.checkpoints,
    )  # fmt: skip
    path = options.locate(asked.run, asked.checkpoints)
    if run_task(path) == LANGUAGE_MODEL:
        first: Model | TaskModel = options.open_model(
            str(path), asked.checkpoints, asked.engine, asked.weights, asked.with_, asked.threads
        )
    else:
        first = load(path, with_=asked.with_ or ())
        if first.mixture:
            say(str(first.mixture))
    models = [first, *map(load, asked.also or ())]
    for model in models:
        if run_task(model.path) != LANGUAGE_MODEL and verb_of(model.path) != "predict":
            raise no_text(model.path)
    return models


def _has_page(service: "Service", open_: bool) -> bool:
    """Return True if there is a language model, which the page is about.

    Raises UsageError if the page is to be opened and there is none.
    """
    if open_ and not service.models:
        first = next(iter(service.labellers))
        raise UsageError(
            f"--open with run {first}, which gives {service.gives(first)} and has no page; "
            "expected a language model. Leave --open out, or add one with --also RUN"
        )
    return bool(service.models)


def _key(path: Path | None) -> str | None:
    """Return the key of a file, else of the variable, else None.

    Raises UsageError for one that no header can hold.
    """
    from charlm.files.safe_read import read_bytes

    if path is not None:
        try:
            source, data = str(path), read_bytes(path, MAX_KEY)
        except RunError as error:
            raise UsageError(
                f"--key-file {path}: not a readable file of at most {MAX_KEY:,} bytes; expected a "
                "file with the key. Make one with: "
                'python -c "import secrets; print(secrets.token_urlsafe())"'
            ) from error
    elif (variable := os.environ.get(KEY_VARIABLE)) is not None:
        source, data = KEY_VARIABLE, variable.encode(errors="surrogateescape")
    else:
        return None
    key = data.decode("ascii", "replace").strip()
    if not key or not all("!" <= character <= "~" for character in key):
        kind = "empty" if not key else "not a word of visible ASCII characters"
        raise UsageError(
            f"the key in {source} is {kind}; expected a long random word. Make one with: "
            'python -c "import secrets; print(secrets.token_urlsafe())"'
        )
    return key


def _access(address: "Address", key: str | None, asked: Asked) -> "Access":
    """Return the rules on who may ask.

    Raises UsageError for an address beyond this machine without a key.
    """
    from charlm.server.security import HOST, LOOPBACK, ORIGIN, Access

    if not address.ip.is_loopback and key is None:
        if not asked.insecure:
            raise UsageError(
                f"--host {address.host} can be reached from other machines, and there is no key; "
                "expected one. Give --key-file FILE, or --insecure to let everyone in"
            )
        say("WARNING: everyone who can reach this machine can use the server: it has no key")
    hosts = [name.lower() for name in asked.allow_host or ()]
    origins = asked.cors or ()
    for flag, pattern, values in (("--allow-host", HOST, hosts), ("--cors", ORIGIN, origins)):
        for value in values:
            if not pattern.fullmatch(value):
                example = "example.org" if flag == "--allow-host" else "http://localhost:3000"
                raise UsageError(
                    f"{flag} is {value!r}; expected one such as {example}. Leave out everything "
                    "else"
                )
    own = [] if address.ip.is_unspecified else [address.ip.compressed]
    own = [f"[{each}]" if ":" in each else each for each in own]
    return Access(key=key, hosts=tuple(dict.fromkeys([*LOOPBACK, *own, *hosts])), origins=origins)


def _answers(
    service: "Service", access: "Access", address: "Address", open_: bool, url: str
) -> None:
    """Report that the server answers, and open its page."""
    names = [f"{name} ({each.model.run.backend.name})" for name, each in service.models.items()]
    names += [
        f"{name} ({service.gives(name)}, {each.run.engine})"
        for name, each in service.labellers.items()
    ]
    reach = "for this machine" if address.ip.is_loopback else "for other machines, too"
    key = "with a key" if access.key else "without a key"
    say(f"serving {', '.join(names)}; {reach}, {key}; Ctrl-C stops")
    write(f"{url}\n", flush=True)
    if open_:
        threading.Thread(target=_open, args=(url,), daemon=True).start()


def _stops(limits: "Limits", requests: int) -> None:
    """Report that requests in progress have some time to end."""
    if requests:
        noun = "request has" if requests == 1 else "requests have"
        grace = f"{limits.grace_seconds:g} s"
        say(f"stopping: {requests} {noun} {grace} to end; Ctrl-C again ends at once")


def _open(url: str) -> None:
    """Open the page in a browser."""
    import webbrowser

    if not webbrowser.open(url):
        say(f"no browser was found; open {url} in one")
