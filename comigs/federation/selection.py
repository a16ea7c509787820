"""Which clients take part in a round, and in the test: drawn from the seed."""

import random
from collections.abc import Sequence

import torch

from comigs.config.settings import RunConfig
from comigs.federation.devices import profile_of
from comigs.seeds import derive, generator


def wanted(config: RunConfig, count: int) -> int:
    """Updates that a round of a federation of `count` clients waits for."""
    return max(1, round(config.participation * count))


def participants(config: RunConfig, number: int, ids: Sequence[int], secret: str = "") -> list[int]:
    """Ids of the clients asked to train in round `number`, drawn from (seed, round), in order.

    Only devices that are there; `server.over_selection` asks for more than the round needs.

    Args:
        secret: of the server, in the place of the seed, where nobody may foresee the draw.
    """
    asked = round(wanted(config, len(ids)) * (1 + config.server.over_selection))
    there = those_there(config, number, ids)
    rng = random.Random(derive(secret or config.seed, "server", number, "participants"))
    return sorted(rng.sample(there, min(asked, len(there))))


def those_there(config: RunConfig, number: int, ids: Sequence[int]) -> list[int]:
    """Ids of the clients whose devices can take part in a round."""
    return [i for i in ids if is_on(config, i, number)]


def is_on(config: RunConfig, client: int, number: int) -> bool:
    """Whether the device can take part in a round: its trace, begun at a place of its own."""
    profile = profile_of(config, client)
    trace = profile.trace if profile else "1"
    phase = derive(config.seed, client, 0, "trace of the device") % len(trace)
    return trace[(number - 1 + phase) % len(trace)] == "1"


def drops_out(config: RunConfig, client: int, number: int) -> float | None:
    """The share of its round after which the device is lost; None if it stays.

    Drawn from (seed, client, round), the same for every method.
    """
    if (profile := profile_of(config, client)) is None:
        return None
    rng = generator(config.seed, client, number, "device drops out")
    drawn, share = torch.rand(2, generator=rng).tolist()
    return share if drawn < profile.dropout else None


def answering(config: RunConfig, number: int, ids: Sequence[int]) -> list[int]:
    """The participants of a round whose devices stay."""
    chosen = participants(config, number, ids)
    return [client for client in chosen if drops_out(config, client, number) is None]


def takers_of_the_test(config: RunConfig, ids: Sequence[int]) -> list[int]:
    """Ids of the clients that take the test: all, or `data.test_clients` drawn from the seed."""
    count = min(len(ids), config.data.test_clients or len(ids))
    rng = random.Random(derive(config.seed, "server", "test clients"))
    return sorted(rng.sample(ids, count))
