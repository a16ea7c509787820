"""Which clients take part in a round, and in the test: drawn from the seed."""

import random
from collections.abc import Collection, Sequence

import torch

from comigs.federation.run import Run
from comigs.seeds import derive, generator


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
        busy: clients that are still at work (`server.mode` buffered): they keep their places.
        begin: simulated seconds at which the round begins.
    """
    asked = round(wanted(run, len(ids)) * (1 + run.config.server.over_selection)) - len(busy)
    there = [i for i in those_there(run, number, ids, begin) if i not in busy]
    rng = random.Random(derive(secret or run.config.seed, "server", number, "participants"))
    return sorted(rng.sample(there, min(asked, len(there))))


def those_there(run: Run, number: int, ids: Sequence[int], begin: float = 0.0) -> list[int]:
    """Ids of the clients whose devices can take part in a round that begins at `begin`."""
    there = [i for i in ids if is_on(run, i, number)]
    return there if run.availability is None else run.availability.there(begin, there).tolist()


def is_on(run: Run, client: int, number: int) -> bool:
    """Whether a device's trace by rounds, begun at a place of its own, has it there."""
    profile = run.profile(client)
    trace = profile.trace if profile else "1"
    phase = derive(run.config.seed, client, 0, "trace of the device") % len(trace)
    return trace[(number - 1 + phase) % len(trace)] == "1"


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
