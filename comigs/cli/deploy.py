"""`comigs deploy ...`: a federation on Flower, in containers."""

from pathlib import Path
from typing import Annotated

import typer

from comigs.cli.base import Debug, expanded, fail
from comigs.errors import ComigsError

app = typer.Typer(
    no_args_is_help=True,
    help="Run a federation on Flower in containers. The whole way: docs/deploy.md.",
)

Folder = Annotated[
    Path,
    typer.Argument(metavar="DIR", help="Folder of the compose project.", callback=expanded),
]


@app.command()
def init(
    folder: Folder,
    clients: Annotated[int, typer.Option(help="Number of devices.")],
    devices: Annotated[
        str | None,
        typer.Option(
            metavar="PROFILES",
            help="Device profiles, e.g. laptop,board,board; or one for all. "
            "Default: laptop, board, phone-high in turn.",
        ),
    ] = None,
    data: Annotated[
        str, typer.Option(help="Folder with one text per client, or a bundled federation.")
    ] = "multilingual",
    days: Annotated[int, typer.Option(help="Lifetime of certificates.")] = 365,
    port: Annotated[int, typer.Option(help="Port on this machine.")] = 8000,
    debug: Debug = False,
) -> None:
    """Write a compose project: services, certificates, keys, each device's own text."""
    from comigs.data.corpus import client_names
    from comigs.deploy.project import init_project

    try:
        fleet = init_project(folder, clients, devices, data, days, port)
    except ComigsError as error:
        fail(error, debug)
    for device in fleet.devices:
        typer.echo(
            f"{device.name}: {device.profile}, {device.cpus:g} CPUs, {device.memory / 1e9:g} GB"
        )
    _tell_expiry(folder)
    if unused := client_names(data)[clients:]:
        typer.echo(f"without a device: {', '.join(unused)}; comigs deploy add-client adds the next")
    typer.echo(
        f"\nwrote {folder}; go on there:\n"
        "  docker compose up -d --build\n"
        "  comigs deploy register .\n"
        "  FLWR_HOME=$PWD/flwr comigs run run.yaml"
    )


@app.command()
def add_client(
    folder: Folder,
    text: Annotated[
        Path | None,
        typer.Option(
            help="Its text: a .txt file, or a folder with train, valid and test.txt. "
            "Default: the next client of the data that the project was made from.",
            callback=expanded,
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option(metavar="PROFILE", help="Its device profile.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Add one client; the others keep their numbers, keys and state."""
    from comigs.deploy.project import add_client

    try:
        added = add_client(folder, text, device)
    except ComigsError as error:
        fail(error, debug)
    typer.echo(
        f"added {added.name}: {added.profile}, {added.cpus:g} CPUs, {added.memory / 1e9:g} GB; "
        "it takes part in runs that go on or start after (docs/deploy.md):\n"
        "  comigs deploy register .\n"
        "  docker compose up -d"
    )


@app.command()
def kubernetes(folder: Folder, debug: Debug = False) -> None:
    """Write the project as a kustomize base, too: the same processes in a Kubernetes cluster."""
    from comigs.deploy.fleet import load_fleet
    from comigs.deploy.kubernetes import FILES, write_kubernetes

    try:
        write_kubernetes(folder, load_fleet(folder))
    except ComigsError as error:
        fail(error, debug)
    typer.echo(
        f"wrote {' and '.join(FILES)} (docs/deploy.md); go on in {folder}:\n  kubectl apply -k ."
    )


@app.command()
def register(folder: Folder, debug: Debug = False) -> None:
    """Tell the running SuperLink the devices' public keys."""
    from comigs.deploy.register import register

    try:
        for device, done in register(folder):
            typer.echo(f"{device.name}: {done}")
    except ComigsError as error:
        fail(error, debug)


@app.command()
def rotate(
    folder: Folder,
    days: Annotated[
        int | None, typer.Option(help="Lifetime of certificates; default: as before.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Renew certificates, secrets and the devices' keys. Not during a run."""
    from comigs.deploy.project import rotate

    try:
        rotate(folder, days)
    except ComigsError as error:
        fail(error, debug)
    _tell_expiry(folder)
    typer.echo(
        "\neverything has to be restarted, and the new keys registered:\n"
        "  docker compose up -d --force-recreate\n"
        "  comigs deploy register ."
    )


@app.command()
def check(folder: Folder, debug: Debug = False) -> None:
    """Look for missing or open keys and for certificates that expire within 30 days."""
    from comigs.deploy.check import problems

    try:
        found = problems(folder)
    except ComigsError as error:
        fail(error, debug)
    for line in found:
        typer.echo(line)
    if found:
        raise typer.Exit(1)
    _tell_expiry(folder)


def _tell_expiry(folder: Path) -> None:
    from comigs.deploy.keys import expiry

    until = expiry(folder / "server" / "keys" / "server.crt")
    typer.echo(f"certificates are valid until {until:%Y-%m-%d}")
