"""How `comigs devices` shows profiles, with where the numbers are from, and traces."""

from collections.abc import Callable, Mapping, Sequence

from rich.console import Console
from rich.table import Table

from comigs.config.profiles import Profile
from comigs.report.narrow import fitting
from comigs.traces.windows import DAY, Traces, share_by_hour

WIDTH = 50  # characters of a bar of 100 %
COLUMNS: dict[str, Callable[[Profile], str]] = {
    "GB": lambda p: f"{p.memory / 1e9:.3g}",
    "fp32": lambda p: f"{p.flops['float32'] / 1e9:,.0f}",
    "bf16": lambda p: f"{p.flops['bfloat16'] / 1e9:,.0f}",
    "up": lambda p: f"{p.up * 8 / 1e6:,.0f}",
    "down": lambda p: f"{p.down * 8 / 1e6:,.0f}",
    "ms": lambda p: f"{p.latency * 1e3:g}",
    "lost": lambda p: f"{p.dropout * 100:g} %",
    "trace": lambda p: p.trace if len(p.trace) <= 12 else f"{p.trace[:9]}...",
    "W": lambda p: f"{p.watts:g}",
}


def show_profiles(profiles: Mapping[str, Profile]) -> None:
    """Print them."""
    console = Console()

    def build(columns: Sequence[str]) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("device", no_wrap=True)
        for name in columns:
            table.add_column(name, justify="right", no_wrap=True)
        for profile in profiles.values():
            table.add_row(profile.name, *(COLUMNS[name](profile) for name in columns))
        return table

    expendable = ("trace", "lost", "ms", "W", "up", "down", "bf16")
    console.print(fitting(build, list(COLUMNS), expendable, console))
    console.print(
        "\nGB: memory usable for training; fp32, bf16: GFLOP/s sustained in training, by the dtype "
        "of the base; up, down: Mbit/s; ms: latency, one way; lost: share of rounds; trace: rounds "
        "in which it is available; W: watts above idle.\n",
        style="dim",
    )
    for profile in profiles.values():
        console.print(f"[bold]{profile.name}[/bold]: {profile.source}", highlight=False)


def show_hours(traces: Traces) -> None:
    """Print the share of devices that is there, by hour of the day."""
    console = Console()
    shares = share_by_hour(traces)
    days = traces.period / DAY
    console.print(
        f"{len(traces.devices)} devices, {days:g} days; share of them that is there, by hour:",
        highlight=False,
    )
    for hour, share in enumerate(shares):
        bar = "█" * round(share * WIDTH)
        console.print(f"{hour:02d}  {share:6.1%}  {bar}".rstrip(), highlight=False)
