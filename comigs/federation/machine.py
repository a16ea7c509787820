"""What of a configuration the machine decides: threads, workers, device, arithmetic, passes."""

from dataclasses import replace
from importlib.util import find_spec
from typing import Any, cast

from comigs.backbone.arithmetic import fastest
from comigs.backbone.base import hidden_size
from comigs.config.model import Compute
from comigs.config.settings import RunConfig
from comigs.cores import cores
from comigs.data.roster import roster
from comigs.hardware import resolve_device
from comigs.memory import available_memory

MANY = 8  # clients in a round
SMALL = {"cpu": 2**17, "cuda": 2**20}  # hidden values (tokens x width) in a step
TOGETHER = {"cpu": 4, "cuda": 16}
LONG = 2**24  # hidden values in a run: its workers then save more time than their start takes
WORKER = 2**30  # bytes that a worker with a small base may need


def on_this_machine(config: RunConfig) -> RunConfig:
    """Fill in where clients train: the engine, and the `threads` and `device` of their numbers.

    Behind a SuperLink each device chooses its own `device` (`comigs_clients.app`).

    Raises:
        BadInput: the device is not here, or with `engine.name: auto` data or base are not.
    """
    config = with_engine(config)
    name = config.engine.name
    at_once = (config.engine.workers or 1) if name == "ray" else 1
    threads = config.threads or (1 if name == "flower" else max(1, cores() // at_once))
    config = replace(config, threads=threads)
    if name == "flower":
        return config
    pools = config.ray.pools.values()
    alone = name == "ray" and not (pools and all(pool.gpus for pool in pools))
    if alone and config.device == "auto":  # its workers get no GPU
        return replace(config, device="cpu")
    return replace(config, device=resolve_device(config.device))


def with_engine(config: RunConfig) -> RunConfig:
    """Fill in the workers of the ray engine, and `engine.name: auto`: ray where that is sooner.

    Raises:
        BadInput: with auto, when the device is not here, or data or base cannot be read.
    """
    name, workers = config.engine.name, config.engine.workers
    if name == "auto":
        workers = workers or _workers(config)
        name = "ray" if workers else "inline"
    if name == "ray":
        workers = workers or cores()
    return replace(config, engine=replace(config.engine, name=name, workers=workers))


def _workers(config: RunConfig) -> int | None:
    """Processes that gain on clients one by one: on a CPU, whose cores a small step does not fill.

    None also where Ray is missing, or the system does not tell of memory (then it is no Linux).
    """
    if resolve_device(config.device) != "cpu" or find_spec("ray") is None:
        return None
    clients = round(config.participation * len(roster(config)))
    step = _values_of_a_step(config)
    if step > SMALL["cpu"] or step * config.local_steps * config.rounds * clients < LONG:
        return None
    room = (available_memory() or 0) // WORKER
    workers = min(cores() // (config.threads or 1), clients, room)
    return workers if workers > 1 else None


def with_compute(config: RunConfig) -> RunConfig:
    """Fill in `model.compute: auto`, by how each client's base is stored, and `engine.fuse: auto`.

    Raises:
        BadInput: the device is not here, or the base's settings cannot be read.
    """
    device = resolve_device(config.device)
    each: list[Any] = [
        fastest(dtype, device) if compute == "auto" else compute
        for dtype, compute in config.model.kinds()
    ]
    compute: Any = each[0] if len(set(each)) == 1 else each
    fitted = {
        name: replace(to, compute=cast(Compute, fastest(to.dtype, device)))
        for name, to in config.devices.fitted.items()
        if to.compute == "auto"
    }
    devices = replace(config.devices, fitted=config.devices.fitted | fitted)
    config = replace(config, model=replace(config.model, compute=compute), devices=devices)
    if config.engine.fuse != "auto" or config.engine.name == "flower":
        return config
    return replace(config, engine=replace(config.engine, fuse=_in_one_pass(config, device)))


def _in_one_pass(config: RunConfig, device: str) -> int:
    """Clients that train fastest together: of a small step most is the launching of its products.

    The same for any number of workers. A few clients train one by one, as real devices do, to the
    same bits. The sizes are those at which `experiments.benchmarks.fuse` saw a gain.
    """
    kind = "cuda" if device.startswith("cuda") else "cpu"
    if config.alone or config.participation * len(roster(config)) < MANY:
        return 1
    return TOGETHER[kind] if _values_of_a_step(config) <= SMALL[kind] else 1


def _values_of_a_step(config: RunConfig) -> int:
    """Hidden values, tokens x width, of one layer."""
    return config.batch_size * config.data.seq_len * hidden_size(config.model.name)
