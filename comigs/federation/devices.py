"""Which device each client is."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

from comigs.config.profiles import profiles_of
from comigs.config.settings import RunConfig
from comigs.errors import BadInput

LISTED = 10_000  # clients; of more the names would be most of the configuration, or too much


def assign_devices(config: RunConfig, quantities: Sequence[int]) -> RunConfig:
    """Return `config` with `devices.profiles` as a list of names, one for each client.

    A list stays as it is, and numbers do where `stays_numbers` says so.

    Args:
        quantities: how much training data each client has; their number is the number of clients.

    Raises:
        BadInput: for a list of another length than there are clients.
    """
    devices = config.devices
    if devices.profiles is None:
        return config
    if isinstance(devices.profiles, list):
        if len(devices.profiles) != len(quantities):
            raise BadInput(
                f"devices.profiles has {len(devices.profiles)} values; there are "
                f"{len(quantities)} clients"
            )
        return config
    if stays_numbers(config, len(quantities)):
        return config
    names = names_of_devices(config, quantities)
    return replace(config, devices=replace(devices, profiles=names))


def stays_numbers(config: RunConfig, count: int) -> bool:
    """Whether the seed alone tells which of `count` clients has which device, and they are many.

    Their names are then not written down; `Run.devices` draws them.
    """
    drawn = isinstance(config.devices.profiles, dict) and config.devices.order == "independent"
    return drawn and count > LISTED and config.engine.name != "flower"


def names_of_devices(config: RunConfig, quantities: Sequence[int]) -> list[str]:
    """By client the name of its device, for `devices.profiles` of numbers.

    Numbers of profiles that do not add up to the clients are shares, rounded by largest remainder.
    The places are drawn from the seed. With `devices.order: agreeing` clients with more data get
    devices of more FLOP/s (float32), with `opposed` of fewer.

    Args:
        quantities: as `assign_devices`.
    """
    devices = config.devices
    assert isinstance(devices.profiles, dict)
    counts = _counts(devices.profiles, len(quantities))
    names = [name for name, count in counts.items() for _ in range(count)]
    _shuffle(names, config.seed)
    if devices.order != "independent":
        known = profiles_of(devices.define)
        names.sort(key=lambda name: known[name].flops["float32"])
        sign = 1 if devices.order == "agreeing" else -1
        clients = list(range(len(names)))
        _shuffle(clients, config.seed)  # decides between clients with equally much
        clients.sort(key=lambda client: sign * quantities[client])
        names = [name for _, name in sorted(zip(clients, names, strict=True))]
    return names


def _counts(shares: Mapping[str, int], total: int) -> dict[str, int]:
    """Numbers that add up to `total`, in proportion to `shares`, by largest remainder."""
    whole = sum(shares.values())
    counts = {name: share * total // whole for name, share in shares.items()}
    by_rest = sorted(shares, key=lambda name: -(shares[name] * total % whole))
    for name in by_rest[: total - sum(counts.values())]:
        counts[name] += 1
    return counts


def _shuffle(items: list, seed: int) -> None:
    from comigs.seeds import derive

    random.Random(derive(seed, "devices")).shuffle(items)
