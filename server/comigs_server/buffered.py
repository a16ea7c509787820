"""Buffered rounds (FedBuff, arXiv 2106.06639): the server takes a step after every K arrivals.

A round is one such step. When it begins, the places of those who have arrived are filled anew, and
all that start in it fetch the same tensors; each works at its own speed, over as many rounds as it
takes. What an update changed is then added to what the server has by that time, times
1 / sqrt(1 + tau), the paper's choice, where tau is the number of steps the server took meanwhile.
Of an update under way only the difference is kept, so that no old tensors are needed.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

from torch import Tensor

from comigs.federation.closing import Closing, close_overlapping, still_at_work
from comigs.federation.run import Run
from comigs.local.reference import reference
from comigs.messages.update import minus, plus
from comigs.store.events import Arrived
from comigs_server.clock import Loss
from comigs_server.delivery import sharer
from comigs_server.fleet.registry import Registry
from comigs_server.fleet.update import Update
from comigs_server.journal import Journal
from comigs_server.late import Flight
from comigs_server.resume import Progress

Tensors = Mapping[str, Tensor]
Current = Callable[[int, Tensors], Tensors]


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


def began(progress: Progress, number: int, closing: Closing) -> dict[int, int]:
    """By client whose update arrives in round `number`, the round in which it began."""
    flying = progress.flying
    return {i: flying[i].since if i in flying else number for i in closing.in_time}


def tell_arrivals(
    journal: Journal, clients: Registry, number: int, since: Mapping[int, int]
) -> None:
    """Write whose updates round `number` takes in.

    Args:
        since: by client, the round in which it began.
    """
    for i, begun in since.items():
        journal.write(Arrived(number, i, clients.names[i], begun))


def land(
    run: Run,
    clients: Registry,
    progress: Progress,
    number: int,
    new: Mapping[int, Update],
    arrivals: Mapping[int, float],
    losses: Mapping[int, Loss],
    closing: Closing,
) -> dict[int, Update]:
    """Take in what arrives in round `number`, and note in `progress` who is at work after it.

    Args:
        new: by client, the updates of those who began in the round.
        arrivals, losses: seconds from the start of the round to them, and to losses.
    """
    share_of = sharer(run, progress)

    def current(client: int, tensors: Tensors) -> Tensors:
        """What the server has of these tensors now, as the client would get them."""
        [one] = clients.require([client])
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        return reference(run, client, number, share_of(one), shapes)

    landed = {i: one for i, one in new.items() if i in closing.in_time}
    landed |= overtaken(progress.flying, number, closing, current)
    flying = dict(progress.flying)
    for i, loss in losses.items():
        flying[i] = Flight({}, 1.0, loss.seconds, number, lost=True)
    for i in set(new) - set(landed):
        change = minus(new[i].tensors, current(i, new[i].tensors))
        flying[i] = Flight(change, new[i].weight, arrivals[i], number)
    progress.flying = still_flying(flying, closing)
    return landed


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
