"""`charlm serve`: models behind an API for programs, and the page, over HTTP."""

from typing import Annotated

import typer

from charlm import api
from charlm.cli import options
from charlm.cli.output import say, write
from charlm.errors import EnvironmentFailure

Host = Annotated[str, typer.Option("--host", help="Address to listen at.")]
Port = Annotated[
    int, typer.Option("--port", min=0, max=65535, help="Port to listen at; 0 is any free port.")
]
Also = Annotated[
    list[str] | None,
    typer.Option(
        "--also",
        metavar="RUN",
        help="Serve another run, too; may be repeated. A request chooses it by its name.",
        show_default=False,
    ),
]
Page = Annotated[bool, typer.Option("--page/--no-page", help="Serve the page.")]


def serve(
    host: Host = "127.0.0.1",
    port: Port = 8765,
    also: Also = None,
    with_: options.With = None,
    page: Page = True,
    engine: options.Engine = "auto",
    weights: options.Weights = "fp32",
    run: options.Run = None,
    checkpoints: options.Checkpoints = None,
) -> None:
    """Serve a model over HTTP: the completions API of OpenAI, and a page.

    Writes the URL to stdout when the server answers.

    Example:  charlm serve --run tales --port 8765
    """
    try:
        from charlm.server.app import make_app
        from charlm.server.limits import Limits
        from charlm.server.run import Server, bind
        from charlm.server.service import Service
    except ImportError as error:
        raise EnvironmentFailure(
            f"serve needs {error.name}, which is not installed; install it with: "
            "pip install 'charlm[serve]'"
        ) from error
    listener = bind(host, port)
    models = [options.open_model(run, checkpoints, engine, weights, with_)]
    models += [
        api.loading.load(other, engine=engine, weights=weights, checkpoints=checkpoints)
        for other in also or ()
    ]
    limits = Limits()
    app = make_app(Service(models), limits, with_page=page)
    say(f"serving {', '.join(model.path.name for model in models)}; Ctrl-C stops")
    Server(app, listener, limits, lambda url: write(f"{url}\n", flush=True)).run()
