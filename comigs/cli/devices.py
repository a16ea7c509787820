"""`comigs devices ...`: profiles, traces of when devices are there, and what this machine is."""

import shlex
from pathlib import Path
from typing import Annotated

import click
import typer
from typer.core import TyperGroup

from comigs.cli.base import Debug, expanded, fail, split
from comigs.errors import BadInput, ComigsError


class Devices(TyperGroup):
    """`comigs devices` and `comigs devices my.yaml` are `comigs devices list ...`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        known = [*self.commands, *self.get_help_option_names(ctx)]
        return super().parse_args(ctx, args if args and args[0] in known else ["list", *args])


app = typer.Typer(
    cls=Devices,
    help="List device profiles, measure this machine, make traces of who is there when. The whole "
    "way: docs/simulate.md.",
)


@app.command("list")
def list_profiles(
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="[CONFIG]",
            help="Also list the profiles that this file defines.",
            callback=expanded,
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """List the device profiles with their sources; also without the word list."""
    from comigs.cli.deviceshow import show_profiles
    from comigs.config.load import load_config
    from comigs.config.profiles import library, profiles_of

    try:
        show_profiles(profiles_of(load_config(source).devices.define) if source else library())
    except ComigsError as error:
        fail(error, debug)


@app.command()
def traces(
    out: Annotated[Path, typer.Option(help="File to write.", callback=expanded)],
    clients: Annotated[int | None, typer.Option(min=1, help="Devices to make up.")] = None,
    days: Annotated[int, typer.Option(help="Of the traces; then they begin again.")] = 7,
    zones: Annotated[
        float, typer.Option(help="Hours of time zones that the devices are spread over.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Of all that is drawn.")] = 0,
    read: Annotated[
        Path | None,
        typer.Option(help="Instead: a file of FLASH's or FedScale's, as JSON.", callback=expanded),
    ] = None,
    debug: Debug = False,
) -> None:
    """Write when devices charge and are idle, for devices.traces, and show it by hour.

    \b
    comigs devices traces --clients 100 --days 7 --out traces.json
    comigs devices traces --read state_traces.json --out traces.json
    """
    from comigs.cli.deviceshow import show_hours
    from comigs.store.whole import check_place
    from comigs.traces.diurnal import diurnal
    from comigs.traces.public import read_public
    from comigs.traces.windows import write_traces

    try:
        if (read is None) == (clients is None):
            raise BadInput("give either --clients, to make traces up, or --read, a file of them")
        check_place(out)
        made = read_public(read) if read else diurnal(clients or 1, days, zones, seed)
        write_traces(made, out)
    except ComigsError as error:
        fail(error, debug)
    show_hours(made)
    typer.echo(f"\nwrote {out}; use it with devices.traces={shlex.quote(str(out))}")


@app.command()
def calibrate(
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CONFIG] [key=value ...]",
            help="What is trained: speed depends on the model and the batch.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="Of the profile.")] = "this-machine",
    like: Annotated[
        str, typer.Option(help="Profile whose network, losses and power it has.")
    ] = "laptop",
    out: Annotated[
        Path | None, typer.Option(help="File to write; default: print it.", callback=expanded)
    ] = None,
    debug: Debug = False,
) -> None:
    """Measure this machine in some steps of training, and write it as a device profile.

    \b
    comigs devices calibrate
    comigs devices calibrate my.yaml --name old-pc --out old-pc.yaml
    """
    from comigs.app.measure import check_profile, measure, profile_yaml
    from comigs.store.whole import check_place, write_whole

    try:
        if out:
            check_place(out)
        check_profile(name, like)
        text = profile_yaml(measure(*split(settings or [])), name, like)
        if out:
            write_whole(out, text)
    except ComigsError as error:
        fail(error, debug)
    typer.echo(f"wrote {out}" if out else text, nl=bool(out))
