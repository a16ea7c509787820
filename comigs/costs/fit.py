"""What fits on a device: refuse what does not, or find the largest that does."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

from comigs.config.experts import ExpertsConfig
from comigs.config.profiles import Profile
from comigs.config.settings import ClientConfig, RunConfig
from comigs.costs.memory import peak_memory
from comigs.data.tokens import roster, stream
from comigs.errors import BadInput
from comigs.federation.clients import experts_of
from comigs.federation.devices import assign_devices, profile_of
from comigs.methods import find_method


def place_devices(config: RunConfig) -> RunConfig:
    """Return `config` with one device for each client, tied to its tokens if that is asked for."""
    if config.devices.profiles is None:
        return config
    tied = config.devices.order != "independent"
    clients = range(len(roster(config)))
    return assign_devices(config, [len(stream(config, i, "train")) if tied else 1 for i in clients])


def fit_devices(config: RunConfig, mixed_ranks: bool) -> RunConfig:
    """Return `config` with one device for each client, and with what each device can hold.

    What fits is at most `1 - devices.margin` of a device's memory. With `devices.fit: derive` the
    configured numbers are the upper limits. Given up first is what costs least: the size of the
    micro-batch (no number changes), then float32 for the frozen base, then specialists, last the
    rank, by halves. The number of specialists is kept where the method needs it equal everywhere.
    A resolved configuration resolves to itself.

    Args:
        mixed_ranks: whether the method can average LoRA matrices of different ranks.

    Raises:
        BadInput: a client that what is asked for, or the least there is, does not fit on.
    """
    config = place_devices(config)
    if config.devices.profiles is None:
        return config
    method = find_method(config.method)
    if method.pooled or not method.trains:
        return config
    fitted: dict[tuple[object, ...], ClientConfig] = {}
    own: list[ClientConfig] = []
    for client in range(len(roster(config))):
        wanted, profile = config.for_client(client), cast(Profile, profile_of(config, client))
        kind = (profile.name, wanted.model, wanted.experts, wanted.micro_batch_size)
        if kind not in fitted:
            fitted[kind] = _fit(wanted, client, profile, mixed_ranks)
        own.append(fitted[kind])
    return config if config.devices.fit == "check" else _joined(config, own)


def usable(config: RunConfig, profile: Profile) -> int:
    """Bytes that training may take on a device: its memory without the margin."""
    return int(profile.memory * (1 - config.devices.margin))


def _fit(wanted: ClientConfig, client: int, profile: Profile, mixed_ranks: bool) -> ClientConfig:
    have = usable(wanted, profile)
    choices = [wanted] if wanted.devices.fit == "check" else _choices(wanted, mixed_ranks)
    for choice in choices:
        need = peak_memory(choice, client).total
        if need <= have:
            return choice
    name = roster(wanted)[client]
    least = "at the very least " if wanted.devices.fit == "derive" else ""
    raise BadInput(
        f"client {client} ({name}) on {profile.name} needs {least}{_mb(need)}; "
        f"its {_mb(profile.memory)} less devices.margin are {_mb(have)}"
    )


def _mb(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"


def _choices(wanted: ClientConfig, mixed_ranks: bool) -> Iterator[ClientConfig]:
    """What a client could train instead, the configured first, the least last."""
    experts, batch = wanted.experts, wanted.batch_size
    micros = [m for m in range(wanted.micro_batch, 0, -1) if batch % m == 0]
    if wanted.router.grad == "first_order":
        micros = [batch]
    dtypes = dict.fromkeys([wanted.model.dtype, "bfloat16"])
    for rank in _ranks(wanted, mixed_ranks):
        for specialists in _specialists(wanted):
            for dtype in dtypes:
                for micro in micros:
                    yield replace(
                        wanted,
                        experts=replace(experts, specialists=specialists, rank=rank),
                        model=replace(wanted.model, dtype=dtype),
                        micro_batch_size=None if micro == batch else micro,
                    )


def _specialists(wanted: ClientConfig) -> list[int]:
    experts, most = wanted.experts, cast(int, wanted.experts.specialists)
    counts = [most]
    for fewer in range(most - 1, -1, -1):
        total = experts.generalists + fewer
        if total == 1 or total >= max(2, experts.top_k):
            counts.append(fewer)
    both = [_layout(wanted, n) for n in counts[:2]]
    accepts = find_method(wanted.method).accepts
    unequal = len(counts) == 1 or accepts(wanted, both) or accepts(wanted, both[1:])
    return counts[:1] if unequal else counts


def _ranks(wanted: ClientConfig, mixed_ranks: bool) -> list[int]:
    ranks = [cast(int, wanted.experts.rank)]
    if mixed_ranks or not experts_of(wanted, 0).generalists:
        while ranks[-1] > 1:
            ranks.append(ranks[-1] // 2)
    return ranks


def _layout(wanted: ClientConfig, specialists: int) -> ExpertsConfig:
    return find_method(wanted.method).experts(replace(wanted.experts, specialists=specialists))


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
