"""`comigs serve`: clients of a finished run behind an OpenAI-compatible interface."""

import contextlib
import ipaddress
import socket
from pathlib import Path
from typing import Annotated

import typer

from comigs.cli.base import Debug, check_run, expanded, fail
from comigs.errors import BadInput, ComigsError
from comigs.heap import importing


def serve(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN_DIR", callback=expanded)],
    clients: Annotated[
        str | None, typer.Option(help="Whose models, e.g. 0,2 or it,nl; default all clients'.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; one that others reach needs --key.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    key: Annotated[
        str | None,
        typer.Option(
            envvar="COMIGS_SERVE_KEY",
            help="What callers must give as their API key.",
            show_default=False,
        ),
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="Texts written at the same time.")] = 16,
    queue: Annotated[int, typer.Option(min=1, help="Texts that may wait; more get 429.")] = 64,
    max_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of one text.")] = 1024,
    seconds: Annotated[float, typer.Option(min=1, help="Most seconds of a request.")] = 300,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    debug: Debug = False,
) -> None:
    """Serve clients' models over HTTP as OpenAI's interface does, all in one batch.

    Each client is a model under its own name; base and generalist are two more. Requests of all of
    them share the passes through the base. Ctrl-C ends it. Needs the extra `serve`.

    \b
    comigs serve runs/my-run --clients 0,2 --port 8000
    """
    try:
        check_run(run_folder)
        names = _names(clients)
        _check_reach(host, key)
        listener = _listen(host, port)
        with listener:
            try:
                import uvicorn

                from comigs.serve.http import Limits, make_app
            except ImportError as error:
                raise BadInput(
                    f"comigs serve needs FastAPI, uvicorn and prometheus-client ({error}): "
                    "pip install 'comigs[serve]'"
                ) from None

            with importing():
                from comigs.serve.models import Models
                from comigs.talk.engine import Engine
                from comigs.use.generate import open_stages

            models = Models(open_stages(run_folder, names, device, beside=True))
            engine = Engine(models.batches(), rows, queue, seconds)
            app = make_app(models, engine, key, Limits(tokens=max_tokens))
            config = uvicorn.Config(
                app,
                log_config=None,  # its own would close the handlers of everybody else
                log_level="warning",
                access_log=False,
                ws="none",
                timeout_graceful_shutdown=3,
            )
            place = f"[{host}]" if ":" in host else host
            typer.echo(f"serving {', '.join(models.names)}")
            typer.echo(f"at http://{place}:{listener.getsockname()[1]}/v1; Ctrl-C ends it")
            try:
                with contextlib.suppress(KeyboardInterrupt):
                    uvicorn.Server(config).run(sockets=[listener])
            finally:
                engine.close()
    except ComigsError as error:
        fail(error, debug)


def _names(clients: str | None) -> list[str] | None:
    if clients is None:
        return None
    parts = [part.strip() for part in clients.split(",")]
    if not all(parts):
        raise BadInput(f"--clients is {clients!r}; give numbers, from 0, or names, e.g. 0,2")
    return parts


def _check_reach(host: str, key: str | None) -> None:
    if key == "":
        raise BadInput("--key (COMIGS_SERVE_KEY) is empty; give a secret, or none at all")
    try:
        near = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        near = False
    if key is None and not near:
        raise BadInput(
            f"--host {host} can be reached by others: give a secret with --key or COMIGS_SERVE_KEY"
        )


def _listen(host: str, port: int) -> socket.socket:
    try:
        [(family, *_), *_] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise BadInput(
            f"--host {host} --port {port} cannot be listened on: {error.strerror or error}"
        ) from None
