"""What fits on a device: refuse what does not, or find the largest that does."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import Any, cast

from comigs.backbone.stored import PER_BYTE
from comigs.config.devices import FittedConfig
from comigs.config.model import Dtype
from comigs.config.profiles import Profile
from comigs.config.settings import ClientConfig, RunConfig
from comigs.costs.memory import peak_memory
from comigs.costs.shapes import skeleton
from comigs.data.roster import roster
from comigs.data.tokens import amount, stream
from comigs.errors import BadInput
from comigs.federation.devices import assign_devices, stays_numbers
from comigs.federation.run import Client, Run, resolve

# Of a base, the largest first.
DTYPES: tuple[Dtype, ...] = ("float32", "bfloat16", "int8", "nf4")


def place_devices(run: Run) -> Run:
    """Return `run` with one device for each client, tied to its tokens if that is asked for."""
    config = run.config
    if config.devices.profiles is None:
        return run
    tied = config.devices.order != "independent"
    clients = range(len(roster(config)))
    sizes = [amount(stream(config, i, "train")) if tied else 1 for i in clients]
    return resolve(assign_devices(config, sizes))


def fit_devices(run: Run) -> Run:
    """Return `run` with one device for each client, and with what each device can hold.

    What fits is at most `1 - devices.margin` of a device's memory. With `devices.fit: derive` the
    configured numbers are the upper limits. Given up first is what costs least: the size of the
    micro-batch (no number changes), then bits of the frozen base (int8 and nf4 where bitsandbytes
    is installed), then specialists, last the rank, by halves. The number of specialists is kept
    where the method needs it equal everywhere. What fits stays as it is.

    Raises:
        BadInput: a client that what is asked for, or the least there is, does not fit on.
    """
    run = place_devices(run)
    if run.devices is None or not run.method.trains:
        return run
    kinds, count = run.kinds(len(run.names)), len(run.names)
    derive = run.config.devices.fit == "derive"
    if not derive or (stays_numbers(run.config, count) and not run.own_kinds):
        found = [(client, _fit(client, _profile(client))) for client in kinds]
        return resolve(_by_profile(run.config, found)) if derive else run
    fitted: dict[tuple[object, ...], ClientConfig] = {}
    own: list[ClientConfig] = []
    for client in run.clients():
        wanted, profile = client.config, _profile(client)
        kind = (profile.name, wanted.model, wanted.experts, wanted.micro_batch_size)
        if kind not in fitted:
            fitted[kind] = _fit(client, profile)
        own.append(fitted[kind])
    return resolve(_joined(run.config, own))


def with_fit(config: RunConfig) -> RunConfig:
    """`fit_devices` of the run that a configuration describes."""
    return fit_devices(resolve(config)).config


def _profile(client: Client) -> Profile:
    return cast(Profile, client.profile)


def usable(config: RunConfig, profile: Profile) -> int:
    """Bytes that training may take on a device: its memory without the margin."""
    return int(profile.memory * (1 - config.devices.margin))


def on_its_device(client: Client) -> Client:
    """`client` with the arithmetic that its device has, whatever this machine is good at."""
    config = client.config
    return replace(client, config=replace(config, model=replace(config.model, compute="auto")))


def _fit(client: Client, profile: Profile) -> ClientConfig:
    wanted, have = client.config, usable(client.config, profile)
    choices = [wanted] if wanted.devices.fit == "check" else _choices(client)
    for choice in choices:
        need = peak_memory(on_its_device(replace(client, config=choice))).total
        if need <= have:
            return choice
    name = client.run.names[client.number]
    least = "at the very least " if wanted.devices.fit == "derive" else ""
    raise BadInput(
        f"client {client.number} ({name}) on {profile.name} needs {least}{_mb(need)}; "
        f"its {_mb(profile.memory)} less devices.margin are {_mb(have)}"
    )


def _mb(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"


def _choices(client: Client) -> Iterator[ClientConfig]:
    """What a client could train instead, the configured first, the least last."""
    wanted = client.config
    experts, batch = wanted.experts, wanted.batch_size
    micros = [m for m in range(wanted.micro_batch, 0, -1) if batch % m == 0]
    if wanted.router.grad == "first_order":
        micros = [batch]
    quantises = find_spec("bitsandbytes") and not wanted.train.compile
    quantises = quantises and not skeleton(wanted.model.name, experts.native).stacked
    here = [d for d in DTYPES if d not in PER_BYTE or quantises]
    dtypes = [client.dtype, *here[DTYPES.index(client.dtype) + 1 :]]
    for rank in _ranks(client):
        for specialists in _specialists(client):
            for dtype in dtypes:
                for micro in micros:
                    yield replace(
                        wanted,
                        experts=replace(experts, specialists=specialists, rank=rank),
                        model=replace(wanted.model, dtype=dtype),
                        micro_batch_size=None if micro == batch else micro,
                    )


def _specialists(client: Client) -> list[int]:
    experts, method = client.config.experts, client.method
    most = cast(int, experts.specialists)
    counts = [most]
    for fewer in range(most - 1, -1, -1):
        total = experts.generalists + fewer
        if total == 1 or total >= max(2, cast(int, experts.top_k)):
            counts.append(fewer)
    both = [method.experts(replace(experts, specialists=n)) for n in counts[:2]]
    refuses = partial(method.accepts, client.run.config)
    unequal = len(counts) == 1 or refuses(both) or refuses(both[1:])
    return counts[:1] if unequal else counts


def _ranks(client: Client) -> list[int]:
    ranks = [cast(int, client.config.experts.rank)]
    if client.run.aggregator.mixed_ranks or not client.experts.generalists:
        while ranks[-1] > 1:
            ranks.append(ranks[-1] // 2)
    return ranks


def _by_profile(config: RunConfig, found: list[tuple[Client, ClientConfig]]) -> RunConfig:
    """`config` with what devices of each profile hold, where it is not what is asked for."""
    fitted = dict(config.devices.fitted)
    for client, own in found:
        if own != client.config:
            model, experts, micro = own.model, own.experts, own.micro_batch_size
            values: Any = model.dtype, model.compute, experts.specialists, experts.rank, micro
            fitted[_profile(client).name] = FittedConfig(*values)
    return replace(config, devices=replace(config.devices, fitted=fitted))


def _joined(config: RunConfig, own: list[ClientConfig]) -> RunConfig:
    """`config` with each client's own values in lists."""
    dtypes: Any = [client.model.dtype for client in own]
    specialists: Any = [client.experts.specialists for client in own]
    ranks: Any = [client.experts.rank for client in own]
    micros = [client.micro_batch for client in own]
    return replace(
        config,
        model=replace(config.model, dtype=dtypes),
        experts=replace(config.experts, specialists=specialists, rank=ranks),
        micro_batch_size=None if set(micros) == {config.batch_size} else micros,
    )
