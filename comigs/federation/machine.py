"""What of a configuration the machine decides: threads, workers, the device, the arithmetic."""

from dataclasses import replace
from typing import Any

from comigs.backbone.arithmetic import fastest
from comigs.config.settings import RunConfig
from comigs.cores import cores
from comigs.hardware import resolve_device


def on_this_machine(config: RunConfig) -> RunConfig:
    """Fill in `threads`, `engine.workers` and `device`: a run's numbers depend on them.

    Behind a SuperLink each device chooses its own `device` (`comigs_clients.app`).

    Raises:
        BadInput: the device is not here.
    """
    name, count = config.engine.name, cores()
    workers = config.engine.workers or (count if name == "ray" else 1)
    threads = config.threads or (1 if name == "flower" else max(1, count // workers))
    config = replace(config, threads=threads, engine=replace(config.engine, workers=workers))
    if name == "flower":
        return config
    pools = config.ray.pools.values()
    alone = name == "ray" and not (pools and all(pool.gpus for pool in pools))
    if alone and config.device == "auto":  # its workers get no GPU
        return replace(config, device="cpu")
    return replace(config, device=resolve_device(config.device))


def with_compute(config: RunConfig) -> RunConfig:
    """Fill in `model.compute: auto`, by how each client's base is stored, for this machine.

    Raises:
        BadInput: the device is not here.
    """
    device = resolve_device(config.device)
    each: list[Any] = [
        fastest(dtype, device) if compute == "auto" else compute
        for dtype, compute in config.model.kinds()
    ]
    compute: Any = each[0] if len(set(each)) == 1 else each
    return replace(config, model=replace(config.model, compute=compute))
