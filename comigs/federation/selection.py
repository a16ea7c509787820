"""Which clients take part in a round, and in the test: drawn from the seed."""

import random
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from comigs.federation.run import Run
from comigs.seeds import derive, generator
from comigs.traces.availability import Ids


def wanted(run: Run, count: int) -> int:
    """Updates that a round of a federation of `count` clients waits for.

    With `server.mode` buffered, how many of them are at work at once.
    """
    return max(1, round(run.config.participation * count))


def beginning(run: Run, ids: Sequence[int], clock: float, busy: Collection[int] = ()) -> float:
    """When a round can begin: at `clock`, or once `server.min_clients` devices are there.

    Args:
        clock: simulated seconds at which the round before closed.
        busy: clients that are still at work; while there are some, nobody is waited for.
    """
    if run.availability is None or busy:
        return clock
    return run.availability.opens(clock, ids, run.config.server.min_clients)


def participants(
    run: Run,
    number: int,
    ids: Sequence[int],
    secret: str = "",
    busy: Collection[int] = (),
    begin: float = 0.0,
) -> list[int]:
    """Ids of the clients asked to train in round `number`, drawn from (seed, round), in order.

    Only devices that are there; `server.over_selection` asks for more than the round needs.

    Args:
        secret: of the server, in the place of the seed, where nobody may foresee the draw.
        busy: clients that are still at work: in `server.mode` buffered they keep their places, in
            sync (`server.late` keep) others are asked instead.
        begin: simulated seconds at which the round begins.
    """
    server = run.config.server
    taken = sum(i in ids for i in busy) if server.mode == "buffered" else 0
    asked = max(0, round(wanted(run, len(ids)) * (1 + server.over_selection)) - taken)
    there = those_there(run, number, ids, begin)
    if busy:
        there = np.setdiff1d(there, list(busy), assume_unique=True)
    rng = random.Random(derive(secret or run.config.seed, "server", number, "participants"))
    drawn = rng.sample(range(len(there)), min(asked, len(there)))
    return sorted(int(there[place]) for place in drawn)


def those_there(run: Run, number: int, ids: Sequence[int], begin: float = 0.0) -> Ids:
    """Ids, in order, of the clients whose devices can take part in a round that begins at `begin`.

    Args:
        ids: in order.
    """
    everybody = np.arange(ids.start, ids.stop) if isinstance(ids, range) else np.array(ids, int)
    away = [one.clients[~one.on(number)] for one in _traced(run)]
    if away:
        everybody = np.setdiff1d(everybody, np.concatenate(away), assume_unique=True)
    return everybody if run.availability is None else run.availability.there(begin, everybody)


class Traced(NamedTuple):
    """The clients with one kind of device.

    Attributes:
        trace: whether it is there, by round.
        begin: by client, the place where its trace begins.
    """

    clients: Ids
    trace: npt.NDArray[np.bool_]
    begin: Ids

    def on(self, number: int) -> npt.NDArray[np.bool_]:
        """By client, whether it is there in a round."""
        return self.trace[(number - 1 + self.begin) % len(self.trace)]


@lru_cache(maxsize=4)
def _traced(run: Run) -> list[Traced]:
    """By kind of device, the clients that are not always there."""
    having: dict[str, list[int]] = {}
    for client, name in enumerate(run.devices or ()):
        having.setdefault(name, []).append(client)
    found = []
    for clients in having.values():
        profile = run.profile(clients[0])
        if profile is None or "0" not in profile.trace:
            continue
        trace = np.array([there == "1" for there in profile.trace])
        begin = [derive(run.config.seed, i, 0, "trace of the device") % len(trace) for i in clients]
        found.append(Traced(np.array(clients), trace, np.array(begin)))
    return found


def drops_out(run: Run, client: int, number: int) -> float | None:
    """The share of its round after which the device is lost; None if it stays.

    Drawn from (seed, client, round), the same for every method.
    """
    if (profile := run.profile(client)) is None:
        return None
    rng = generator(run.config.seed, client, number, "device drops out")
    drawn, share = torch.rand(2, generator=rng).tolist()
    return share if drawn < profile.dropout else None


def takers_of_the_test(run: Run, ids: Sequence[int]) -> list[int]:
    """Ids of the clients that take the test: all, or `data.test_clients` drawn from the seed."""
    count = min(len(ids), run.config.data.test_clients or len(ids))
    rng = random.Random(derive(run.config.seed, "server", "test clients"))
    return sorted(rng.sample(ids, count))
