"""Clients at work over several rounds (FedBuff, arXiv 2106.06639), and what their updates weigh."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from comigs.federation.closing import Closing, close_overlapping, still_at_work
from comigs.messages.update import plus
from comigs_server.fleet.update import Update
from comigs_server.timing.clock import Loss

Tensors = Mapping[str, Tensor]
Current = Callable[[int, Tensors], Tensors]


@dataclass(frozen=True)
class Flight:
    """With `server.mode` buffered, a client at work when a round has closed.

    Attributes:
        change: what its update changed; empty if it sends none, or is lost.
        weight: of the update.
        due: simulated seconds until the server has it, or knows that its device is lost.
        since: the round in which it began.
        lost: whether its device is lost on the way.
    """

    change: Mapping[str, Tensor]
    weight: float
    due: float
    since: int
    lost: bool = False


def discount(tau: int) -> float:
    """The weight of an update from which the server has gone on by `tau` steps."""
    return 1 / math.sqrt(1 + tau)


def close_buffered(
    flying: Mapping[int, Flight], arrivals: Mapping[int, float], losses: Mapping[int, Loss],
    buffer: int,
) -> Closing:  # fmt: skip
    """Close a round at its K-th arrival; with fewer once nobody is at work any more.

    Args:
        flying: by client, who was at work when the round began.
        arrivals, losses: of those who began in it.
        buffer: K.

    Returns:
        `late` are those that are still under way.
    """
    due = {i: flight.due for i, flight in flying.items()} | dict(arrivals)
    due |= {i: loss.seconds for i, loss in losses.items()}
    return close_overlapping(due, lost_of(flying) | set(losses), buffer)


def overtaken(
    flying: Mapping[int, Flight], number: int, closing: Closing, current: Current
) -> dict[int, Update]:
    """By client, the updates of earlier rounds that arrive in round `number`, as of now."""
    updates = {}
    for i in sorted(set(closing.in_time) & set(flying)):
        flight = flying[i]
        scale = discount(number - flight.since)
        change = {name: tensor * scale for name, tensor in flight.change.items()}
        updates[i] = Update(i, plus(change, current(i, flight.change)), flight.weight)
    return updates


def still_flying(flying: Mapping[int, Flight], closing: Closing) -> dict[int, Flight]:
    """Who is at work after a round: whose update is not there, or is not yet known to be lost."""
    due = {i: flight.due for i, flight in flying.items()}
    left = still_at_work(due, lost_of(flying), closing)
    return {i: replace(flying[i], due=seconds) for i, seconds in left.items()}


def lost_of(flying: Mapping[int, Flight]) -> set[int]:
    """Whose devices are lost."""
    return {i for i, flight in flying.items() if flight.lost}
