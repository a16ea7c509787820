"""One round: choose, send, receive, close, combine, account."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain

import torch
from flwr.app import Message
from flwr.serverapp import Grid
from torch import Tensor

from comigs.config.profiles import Profile
from comigs.errors import ComigsError
from comigs.federation.closing import Closing, close_round
from comigs.federation.conditions import devices_in
from comigs.federation.run import Run
from comigs.federation.selection import beginning, participants, those_there, wanted
from comigs.federation.stopping import watch
from comigs.store.events import Abandoned, ClientTrained, Dropped, Failed, Joined, Late
from comigs.store.passing import RoundStarted
from comigs_server.account import account, trained
from comigs_server.buffered import began, close_buffered, land, tell_arrivals
from comigs_server.clock import Loss, lost_devices
from comigs_server.combine.accountant import Draw
from comigs_server.combine.outliers import outliers, with_share
from comigs_server.combine.rule import Rule
from comigs_server.delivery import kept_round, parcels, sharer, take_in, takes_changes
from comigs_server.fleet.exchange import Answer, Client, collect
from comigs_server.fleet.judge import Fault, judge
from comigs_server.fleet.records import bytes_of, node_of, tensor_messages
from comigs_server.fleet.registry import Registry
from comigs_server.fleet.secagg import Session, agree, give, sum_up
from comigs_server.fleet.shapes import of_one_shape
from comigs_server.fleet.update import Update
from comigs_server.journal import Journal
from comigs_server.late import due, postpone
from comigs_server.resume import Progress


@dataclass(frozen=True)
class Round:
    """What the steps of one round have in common; `progress` is the state after the one before."""

    grid: Grid
    run: Run
    clients: Registry
    progress: Progress
    rule: Rule
    journal: Journal
    number: int


@dataclass(frozen=True)
class Chosen:
    """Who was drawn, who of them is there, and answers of those who are not.

    Attributes:
        draw: how many could be drawn, and how many were.
        begin: simulated seconds at which they are asked; wait: since the round before has closed.
    """

    ids: list[int]
    clients: list[Client]
    absent: list[Answer]
    draw: Draw
    begin: float
    wait: float


@dataclass(frozen=True)
class Sent:
    """The messages under way; by client, device, bytes and losses; the secure session if any."""

    messages: list[Message]
    devices: Mapping[int, Profile]
    down: Mapping[int, int]
    lost: Mapping[int, Loss]
    session: Session | None


@dataclass(frozen=True)
class Received:
    """By client, the accepted updates and what was told about them.

    Attributes:
        resting: ids of those who want no shared tensors for the next round.
        arrivals: simulated seconds from the close of the round before to the update.
    """

    updates: dict[int, Update]
    told: dict[int, ClientTrained]
    resting: set[int]
    arrivals: dict[int, float]


def train_round(
    grid: Grid,
    run: Run,
    clients: Registry,
    progress: Progress,
    rule: Rule,
    journal: Journal,
) -> None:
    """Train and aggregate the round after `progress`, and move `progress` on.

    Raises:
        ComigsError: when fewer than `server.min_clients` answer, or they cannot be combined.
    """
    begin = time.perf_counter()
    now = Round(grid, run, clients, progress, rule, journal, progress.round + 1)
    chosen = choose(now)
    sent = send(now, chosen)
    received = receive(now, chosen, sent)
    failed = len(chosen.ids) - len(received.updates) - len(sent.lost)
    coming = len(received.updates) + len(progress.at_work)
    if failed and coming < run.config.server.min_clients:
        raise ComigsError(
            f"round {now.number}: {len(received.updates)} of {len(chosen.ids)} clients answered, "
            f"server.min_clients is {run.config.server.min_clients}; the state of round "
            f"{progress.round} is saved"
        )
    closing = close(now, chosen, received, sent)
    since = began(progress, now.number, closing)
    if run.config.server.mode == "buffered":
        tell_arrivals(journal, clients, now.number, since)
    fresh = combine(now, chosen, sent, received, closing)
    told = {i: e.valid_ppl for i, e in received.told.items() if e.valid_ppl is not None}
    states, stop = progress.client_rounds, run.config.stop
    progress.watched = watch(stop, progress.watched, progress.round, told, states)
    take_in(run, progress, fresh or {})
    progress.current = set(received.told) - progress.resting
    progress.resting = progress.resting - set(received.told) | received.resting
    progress.draws.append(chosen.draw)
    wall = time.perf_counter() - begin
    costs = received.told, sent.lost, closing, failed, fresh is None, wall, since, chosen.wait
    journal.write(account(run, progress, *costs))


def choose(now: Round) -> Chosen:
    """Draw who takes part; look who is there, and whose tensors can be combined."""
    run, clients = now.run, now.clients
    progress, known = now.progress, len(clients.names)
    strangers = clients.look()
    if len(clients.names) > known:  # in the order in which they came
        for newcomer in sorted(set(list(clients.names)[known:]) - set(progress.client_rounds)):
            now.journal.write(Joined(now.number, newcomer, clients.names[newcomer]))
    clock, busy = progress.sim_seconds, progress.at_work
    begin = beginning(run, clients.ids, clock, busy)
    ids = participants(run, now.number, clients.ids, progress.secret, busy, begin)
    draw = len(those_there(run, now.number, clients.ids, begin)), len(ids)
    now.journal.tell(RoundStarted(now.number, len(ids)))
    there, unreachable = clients.meet(ids)
    there, odd = of_one_shape(run, there, progress.shared)
    return Chosen(ids, there, [*strangers, *unreachable, *odd], draw, begin, begin - clock)


def send(now: Round, chosen: Chosen) -> Sent:
    """Make the messages of those whose devices stay, after secure aggregation has its keys."""
    run, progress = now.run, now.progress
    told = now.rule.tells(now.number, progress.shared, [c.node for c in chosen.clients])
    messages = tensor_messages(
        "train",
        run,
        chosen.clients,
        parcels(run, progress),
        lambda client: {
            "server-round": now.number,
            "state-round": progress.client_rounds.get(client.id, 0),
            "changes": takes_changes(run, progress, client),
            **kept_round(progress, client),
            **told,
        },
    )
    size = {node_of(message): bytes_of(message) for message in messages}
    down = {client.id: size[client.node] for client in chosen.clients}
    devices = devices_in(run, now.number, down)
    lost = lost_devices(run, now.number, devices, down, chosen.begin, chosen.wait)
    for one in (client for client in chosen.clients if client.id in lost):
        loss = lost[one.id]
        now.journal.write(Dropped(now.number, one.id, one.name, loss.device, loss.reason))
    session = None
    if run.config.privacy.secure != "none":
        session = agree(now.grid, run, now.number, chosen.clients)
        messages = give(session, messages, chosen.clients)
    staying = {client.node for client in chosen.clients if client.id not in lost}
    return Sent([m for m in messages if node_of(m) in staying], devices, down, lost, session)


def receive(now: Round, chosen: Chosen, sent: Sent) -> Received:
    """Judge the answers as they come; an update of absurd size is a fault, too."""
    run, share_of = now.run, sharer(now.run, now.progress)
    absent = chosen.absent + (sent.session.failed if sent.session else [])
    coming = collect(now.grid, sent.messages, chosen.clients, run.config.server.round_timeout)
    updates: dict[int, Update] = {}
    told: dict[int, ClientTrained] = {}
    resting: set[int] = set()
    for answer in chain(absent, coming):
        verdict = judge(answer, run, now.number, share_of)
        if isinstance(verdict, Fault):
            _failed(now, verdict.client, verdict.reason)
            continue
        client = verdict.client.id
        event = trained(run, now.number, verdict, sent.devices.get(client), sent.down[client])
        now.journal.write(event)
        updates[client], told[client] = verdict.update, event
        if verdict.reported.fetches == 0:
            resting.add(client)
    norms = {i: event.norm for i, event in told.items() if event.norm is not None}
    by_id = {client.id: client for client in chosen.clients}
    for client, reason in outliers(norms).items():
        _failed(now, by_id[client], reason)
        del updates[client], told[client]
    arrivals = {i: chosen.wait + (event.sim_seconds or 0.0) for i, event in told.items()}
    return Received(updates, told, resting & set(updates), arrivals)


def close(now: Round, chosen: Chosen, received: Received, sent: Sent) -> Closing:
    """Whose updates count: everybody's, or what simulated time decides."""
    if now.run.devices is None:
        return Closing(0.0, sorted(received.told), [])
    arrivals, server = received.arrivals, now.run.config.server
    if server.mode == "buffered":
        return close_buffered(now.progress.flying, arrivals, sent.lost, server.buffer or 1)
    losses = {client: loss.seconds for client, loss in sent.lost.items()}
    count = wanted(now.run, len(now.clients.ids))
    deadline = None if server.deadline is None else chosen.wait + server.deadline
    under_way = [late.due for late in now.progress.late.values()]
    closing = close_round(arrivals, losses, count, deadline, under_way)
    for client in closing.late:
        told = received.told[client]
        reason = f"late: {arrivals[client]:.0f} s, closed at {closing.seconds:.0f} s"
        now.journal.write(Late(now.number, client, told.name, told.device or "", reason))
    return closing


def combine(
    now: Round, chosen: Chosen, sent: Sent, received: Received, closing: Closing
) -> dict[str, Tensor] | None:
    """What the updates in time, and late ones of earlier rounds, make together.

    Returns:
        Nothing where all that came rest; None where too few came.
    """
    run, progress = now.run, now.progress
    config = run.config
    if config.server.mode == "buffered":
        new, arrivals = received.updates, received.arrivals
        updates = land(run, now.clients, progress, now.number, new, arrivals, sent.lost, closing)
    else:
        in_time = {i: received.updates[i] for i in closing.in_time}
        updates = due(progress.late, closing) | in_time
    if config.server.late == "keep":
        progress.late = postpone(progress.late, received.updates, received.arrivals, closing)
    if len(updates) < config.server.min_clients:
        return None
    if run.may_rest:
        updates = {i: update for i, update in updates.items() if update.tensors}
        if not updates:
            return {}
    if sent.session:
        summed = _sum_securely(now, chosen, sent.session, updates)
        if summed is None:
            return None
        updates = {0: summed}
    elif config.server.weighting == "samples":
        told = {i: update.weight for i, update in updates.items()}
        shares = with_share(told, config.server.max_share)
        updates = {i: Update(i, u.tensors, shares[i]) for i, u in updates.items()}
    try:
        made = now.rule.combine(now.number, [updates[i] for i in sorted(updates)], progress.shared)
    except ComigsError as error:
        raise ComigsError(f"round {now.number}: {error}") from None
    tensors = {name: tensor.float().clone() for name, tensor in sorted(made.items())}
    if broken := [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]:
        raise ComigsError(
            f"round {now.number}: {config.server.strategy} made NaN or infinity of {broken[0]!r}; "
            f"the state of round {progress.round} is saved"
        )
    return tensors


def _sum_securely(
    now: Round, chosen: Chosen, session: Session, updates: Mapping[int, Update]
) -> Update | None:
    known, share_of = len(session.failed), sharer(now.run, now.progress)
    summed = None
    try:
        summed = sum_up(now.grid, now.run, session, updates, chosen.clients, share_of)
    except ComigsError as error:  # who gives no right share must not end the run
        now.journal.write(Abandoned(now.number, str(error)))
    for answer in session.failed[known:]:
        _failed(now, answer.client, answer.reason)
    return summed


def _failed(now: Round, client: Client, reason: str) -> None:
    now.journal.write(Failed(client.name, reason, client.id, now.number))
