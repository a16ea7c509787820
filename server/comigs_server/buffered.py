"""Buffered rounds (FedBuff, arXiv 2106.06639): the server takes a step after every K arrivals.

A round is one such step. When it begins, the places of those who have arrived are filled anew, and
all that start in it fetch the same tensors; each works at its own speed, over as many rounds as it
takes: in simulated time, or in real time behind a SuperLink. What an update changed is then added
to what the server has by that time, times 1 / sqrt(1 + tau), the paper's choice, where tau is the
number of steps the server took meanwhile. In simulated time an update is known when its client
begins, and the difference is kept; in real time the tensors that it began from are, until it comes.
"""

from collections.abc import Collection, Mapping

from comigs.federation.closing import Closing
from comigs.federation.run import Run
from comigs.local.reference import reference
from comigs.messages.update import minus
from comigs.store.events import Arrived, Failed
from comigs.store.passing import AskedAgain
from comigs_server.delivery import orders, sharer
from comigs_server.fleet.registry import Registry
from comigs_server.fleet.update import Update
from comigs_server.journal import Journal
from comigs_server.resume import Progress
from comigs_server.steps import Round
from comigs_server.timing.clock import Loss
from comigs_server.timing.flights import Current, Flight, Tensors, overtaken, still_flying


def began(progress: Progress, number: int, closing: Closing) -> dict[int, int]:
    """By client whose update arrives in round `number`, the round in which it began."""
    return {i: progress.since(i, number) for i in closing.in_time}


def tell_arrivals(
    journal: Journal, clients: Registry, number: int, since: Mapping[int, int]
) -> None:
    """Write whose updates round `number` takes in.

    Args:
        since: by client, the round in which it began.
    """
    for i, begun in since.items():
        journal.write(Arrived(number, i, clients.names[i], begun))


def current_of(run: Run, clients: Registry, progress: Progress, number: int) -> Current:
    """What the server has in round `number`, as a client would get it."""
    share_of = sharer(run, progress)

    def current(client: int, tensors: Tensors) -> Tensors:
        [one] = clients.require([client])
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        return reference(run, client, number, share_of(one), shapes)

    return current


def settle(
    run: Run,
    clients: Registry,
    progress: Progress,
    updates: Mapping[int, Update],
    at_work: Collection[int],
) -> Closing:
    """Behind a SuperLink: close a round whose arrivals are `updates`, and note who is at work.

    What an update of an earlier round has changed is known now that it is there.
    """
    number, flying = progress.round + 1, progress.flying
    for i in set(updates) & set(flying):
        since, one = flying[i].since, updates[i]
        start = current_of(run, clients, progress.before(since), since)(i, one.tensors)
        flying[i] = Flight(minus(one.tensors, start), one.weight, 0.0, since)
    for i in set(at_work) - set(flying):
        flying[i] = Flight({}, 1.0, 0.0, number)
    past = progress.past | {number: progress.shared}
    progress.past = {since: past[since] for since in sorted({flying[i].since for i in at_work})}
    return Closing(0.0, list(updates), sorted(at_work))


def ask_again(now: Round) -> None:
    """Repeat the orders of those who were at work when the server stopped.

    A round that a device trains again, from the same state and tensors, has the same result.
    """
    progress, mail = now.progress, now.mail
    if mail is None or not progress.flying:
        return
    there, _ = now.clients.meet(progress.flying)
    for since in sorted({flight.since for flight in progress.flying.values()}):
        mine = [client for client in there if progress.flying[client.id].since == since]
        then = progress.before(since)
        told = now.rule.tells(since, then.shared, [client.node for client in mine])
        messages = orders(now.run, then, since, mine, told)
        mail.send(messages, mine, now.run.config.server.round_timeout)
    for gone in set(progress.flying) - mail.at_work:
        del progress.flying[gone]
        reason = "it was at work when the server stopped, and is not there"
        now.journal.write(Failed(f"client {gone}", reason, gone, now.number))
    now.journal.tell(AskedAgain([client.name for client in there]))


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
    current = current_of(run, clients, progress, number)
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
