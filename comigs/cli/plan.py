"""How `comigs plan` shows a plan: short tables, clients that are alike in one row; or JSON."""

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from statistics import mean
from typing import Any

from rich.console import Console
from rich.table import Table

from comigs.config.load import to_dict
from comigs.config.settings import RunConfig
from comigs.cores import cores
from comigs.costs.plan import ClientPlan, Plan
from comigs.report.narrow import fitting

Columns = dict[str, Callable[[ClientPlan], str]]
NAMES = 3  # of clients that a row spells out
ESSENTIAL = ("E", "total", "fits", "GFLOP")  # columns for the narrowest terminal


def plan_json(config: RunConfig, plan: Plan) -> dict[str, Any]:
    """The plan with its configuration, client by client, in bytes, FLOPs and seconds."""
    clients = [
        asdict(client) | {"memory": asdict(client.memory) | {"total": client.memory.total}}
        for client in plan.clients
    ]
    return {
        "config": to_dict(config),
        "clients": clients,
        "seconds": plan.seconds,
        "host_memory": plan.host_memory,
        "process": plan.process,
        "sim_seconds": plan.sim_seconds,
    }


def show_plan(config: RunConfig, plan: Plan) -> None:
    """Print the tables."""
    console, rows = Console(), _alike(plan.clients)
    console.print(
        f"{config.method}: {len(plan.clients)} clients, {config.rounds} rounds of "
        f"{config.local_steps} steps of {config.batch_size} x {config.data.seq_len} tokens on "
        f"{config.model.name} ({_count(plan.clients[0].parameters.base)} parameters)",
        highlight=False,
        soft_wrap=True,
    )
    devices = any(client.device for client in plan.clients)
    _print(console, rows, "one client: parameters that are trained", _what(devices))
    _print(console, rows, "one client: memory, MB", _memory(devices))
    units = "seconds, joules and MB" if devices else "MB"
    _print(console, rows, f"one client, one round: {units}", _round(devices))
    for line in _totals(config, plan):
        console.print(line, highlight=False, soft_wrap=True)


def _alike(clients: Iterable[ClientPlan]) -> list[list[ClientPlan]]:
    """Clients that differ at most in their text and in how often they take part."""
    groups: dict[str, list[ClientPlan]] = defaultdict(list)
    for client in clients:
        key = replace(client, name="", rounds=0, down=0, up_run=0, down_run=0, flops=0, device=None)
        device = client.device.profile if client.device else ""
        groups[f"{key} {device}"].append(client)
    return list(groups.values())


def _print(console: Console, rows: list[list[ClientPlan]], title: str, columns: Columns) -> None:
    def build(shown: Sequence[str]) -> Table:
        table = Table(box=None, pad_edge=False, collapse_padding=True, header_style="bold")
        table.title, table.title_justify = title, "left"
        table.add_column("clients", no_wrap=True)
        for name in shown:
            table.add_column(name, justify="right", no_wrap=True)
        for row in rows:
            names = ", ".join(client.name for client in row)
            label = names if len(row) <= NAMES else f"{len(row)} of them"
            table.add_row(label, *(columns[name](_typical(row)) for name in shown))
        return table

    expendable = [name for name in reversed(columns) if name not in ESSENTIAL]
    console.print()
    console.print(fitting(build, list(columns), expendable, console))


def _typical(row: list[ClientPlan]) -> ClientPlan:
    """The client with the most work, with the row's most bytes of a round and mean of a run."""
    most = max(row, key=lambda client: client.flops)
    up, down = (round(mean(c)) for c in ([c.up_run for c in row], [c.down_run for c in row]))
    return replace(most, down=max(c.down for c in row), up_run=up, down_run=down)


def _what(devices: bool) -> Columns:
    columns: Columns = {
        "E": lambda c: str(c.experts),
        "rank": lambda c: str(c.rank),
        "base": lambda c: {"float32": "fp32", "bfloat16": "bf16"}.get(c.dtype, c.dtype),
        "micro": lambda c: str(c.micro_batch),
        "generalists": lambda c: _count(c.parameters.generalist),
        "specialists": lambda c: _count(c.parameters.specialists),
        "routers": lambda c: _count(c.parameters.router),
    }
    return (
        {"device": lambda c: c.device.profile if c.device else "-"} if devices else {}
    ) | columns


def _memory(devices: bool) -> Columns:
    columns: Columns = {
        "base": lambda c: _mb(c.memory.base),
        "adapters": lambda c: _mb(c.memory.adapters),
        "gradients": lambda c: _mb(c.memory.gradients),
        "moments": lambda c: _mb(c.memory.moments + c.memory.resting),
        "activations": lambda c: _mb(c.memory.activations),
        "total": lambda c: _mb(c.memory.total),
    }
    fits: Columns = {
        "usable": lambda c: _mb(c.device.usable) if c.device else "-",
        "fits": lambda c: ("yes" if c.device.fits else "NO") if c.device else "-",
    }
    return columns | (fits if devices else {})


def _round(devices: bool) -> Columns:
    costs: Columns = {
        "compute": lambda c: _number(c.device.seconds) if c.device else "-",
        "transfer": lambda c: _number(c.device.transfer) if c.device else "-",
        "J": lambda c: _number(c.device.joules) if c.device else "-",
    }
    return {
        "GFLOP": lambda c: f"{c.flops / 1e9:,.1f}",
        **(costs if devices else {}),
        "up": lambda c: _about(c) + _mb(c.up),
        "down": lambda c: _mb(c.down),
        "run up": lambda c: _about(c) + _mb(c.up_run),
        "run down": lambda c: _mb(c.down_run),
    }


def _about(client: ClientPlan) -> str:
    return "" if client.exact else "~"


def _totals(config: RunConfig, plan: Plan) -> Iterable[str]:
    clients = plan.clients
    up, down = sum(c.up_run for c in clients), sum(c.down_run for c in clients)
    about = "" if all(c.exact for c in clients) else "about "
    yield f"\nwhole run: {about}{_mb(up)} MB up, {_mb(down)} MB down"
    if config.server.tiers is not None:
        yield f"edges to server: {_mb(plan.edge_up)} MB up, {_mb(plan.edge_down)} MB down"
    flops = sum(c.flops * c.rounds for c in clients)
    energy = sum(c.device.joules * c.rounds for c in clients if c.device)
    line = f"training on all clients: {_number(flops / 1e12)} TFLOP"
    yield line + (f", {_number(energy / 3600)} Wh above idle" if energy else "")
    if plan.sim_seconds is not None:
        yield f"simulated time of all rounds: {about}{_duration(plan.sim_seconds)}"
    held = ", ".join(f"{engine} {_mb(size)} MB" for engine, size in plan.host_memory.items())
    yield f"memory on this machine: {held} (Ray without its own services)"
    yield f"a process adds {_mb(plan.process)} MB to the tensors of a client"
    workers = f", {config.engine.workers} workers" if config.engine.name == "ray" else ""
    yield f"expected time here ({config.engine.name}{workers}): {_duration(plan.seconds)}{_load()}"
    if unfit := [c for c in clients if c.device and not c.device.fits]:
        names = ", ".join(c.name for c in unfit[:NAMES]) + (", ..." if len(unfit) > NAMES else "")
        yield f"{len(unfit)} of {len(clients)} clients do not fit on their device: {names}"
        yield "comigs run will refuse them; try devices.fit=derive"


def _load() -> str:
    """How busy the machine was while its speed was measured, where the system tells."""
    try:
        load = os.getloadavg()[0]
    except (AttributeError, OSError):
        return ""
    return f", at the speed of just now (load {load:.1f} on {cores()} cores)"


def _mb(size: int) -> str:
    return _number(size / 1e6)


def _number(value: float) -> str:
    """Three significant digits, or all that there are before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _count(number: int) -> str:
    return f"{number:,}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
