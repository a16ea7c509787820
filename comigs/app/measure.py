"""This machine as a device profile: its speed in real steps of training, and its memory."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from comigs.app.early import wanted_of
from comigs.config.profiles import DeviceConfig, profiles_of
from comigs.errors import BadInput
from comigs.hardware import device_name, free_memory, processor, resolve_device, use_device
from comigs.schema.rules import folder_name


@dataclass(frozen=True)
class Measured:
    """What was measured.

    Attributes:
        flops: training FLOP/s by dtype of the frozen base; its products are done in the same.
        memory: bytes that are free now; None where the system does not tell.
        where: processor, device and threads; what: was trained.
    """

    flops: Mapping[str, float]
    memory: int | None
    where: str
    what: str


def measure(
    source: str | Path | Mapping[str, Any] | None = None, overrides: Sequence[str] = ()
) -> Measured:
    """Measure the first client of a configuration, some seconds for each dtype.

    Raises:
        BadInput: when the configuration, the data or the model is unusable.
    """
    wanted = wanted_of(source, overrides)

    from comigs.costs.calibrate import calibrate
    from comigs.federation.machine import on_this_machine
    from comigs.federation.run import resolve

    config = on_this_machine(wanted)
    if not resolve(config).method.trains:
        raise BadInput(
            f"method is {config.method!r}, which trains nothing; measure another", "method"
        )
    device = resolve_device(config.device)
    use_device(device)
    memory, flops = free_memory(device), {}
    for dtype in ("float32", "bfloat16"):
        model = replace(config.model, dtype=dtype, compute=dtype)
        flops[dtype] = calibrate(resolve(replace(config, model=model)).client(0)).expert
    where = f"{processor()}, {device_name(device)}, {config.threads} threads"
    size = f"{config.batch_size} x {config.data.seq_len} tokens"
    return Measured(flops, memory, where, f"{config.model.name}, steps of {size}")


def check_profile(name: str, like: str) -> None:
    """Refuse what cannot name a profile, or be like one.

    Raises:
        BadInput: which of them.
    """
    folder_name("--name", name)
    profiles_of({name: DeviceConfig(like=like)})


def profile_yaml(measured: Measured, name: str, like: str) -> str:
    """A configuration that defines the profile; what was not measured is that of `like`."""
    source = (
        f"Measured on {measured.where}: {measured.what}. network, dropout, trace and power: as "
        f"{like}, not measured."
    )
    rates = ", ".join(f"{dtype}: {rate:.2e}" for dtype, rate in measured.flops.items())
    memory = "" if measured.memory is None else f"      memory: {measured.memory:.2e}\n"
    return (
        "devices:\n"
        "  define:\n"
        f"    {json.dumps(name)}:\n"
        f"      like: {like}\n"
        f"{memory}"
        f"      flops: {{{rates}}}\n"
        "      # up, down: bytes per second of your network; latency: seconds; watts: above idle\n"
        f"      source: {json.dumps(source)}\n"
    )
