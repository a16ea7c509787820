"""How `comigs devices` shows profiles: a table, and where the numbers are from."""

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from comigs.config.profiles import Profile


def show_profiles(profiles: Mapping[str, Profile]) -> None:
    """Print them."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("device", no_wrap=True)
    for name in ("GB", "fp32", "bf16", "up", "down", "ms", "lost", "trace", "W"):
        table.add_column(name, justify="right", no_wrap=True)
    for profile in profiles.values():
        table.add_row(
            profile.name,
            f"{profile.memory / 1e9:.3g}",
            *(f"{profile.flops[dtype] / 1e9:,.0f}" for dtype in ("float32", "bfloat16")),
            *(f"{rate * 8 / 1e6:,.0f}" for rate in (profile.up, profile.down)),
            f"{profile.latency * 1e3:g}",
            f"{profile.dropout * 100:g} %",
            profile.trace if len(profile.trace) <= 12 else f"{profile.trace[:9]}...",
            f"{profile.watts:g}",
        )
    console = Console()
    console.print(table)
    console.print(
        "\nGB: memory usable for training; fp32, bf16: GFLOP/s sustained in training, by the dtype "
        "of the base; up, down: Mbit/s; ms: latency, one way; lost: share of rounds; trace: rounds "
        "in which it is available; W: watts above idle.\n",
        style="dim",
    )
    for profile in profiles.values():
        console.print(f"[bold]{profile.name}[/bold]: {profile.source}", highlight=False)
