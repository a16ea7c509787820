"""One round: choose, send, receive, close, combine, account."""

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain

import torch
from flwr.serverapp import Grid
from torch import Tensor

from comigs.errors import ComigsError
from comigs.federation.closing import Closing, close_round
from comigs.federation.conditions import devices_in
from comigs.federation.run import Run
from comigs.federation.selection import beginning, participants, those_there, wanted
from comigs.federation.stopping import watch
from comigs.store.events import Abandoned, ClientTrained, Dropped, Failed, Joined, Late
from comigs.store.passing import RoundStarted
from comigs_server.account import account, trained
from comigs_server.buffered import began, land, settle, tell_arrivals
from comigs_server.combine.outliers import outliers, with_share
from comigs_server.combine.rule import Rule
from comigs_server.delivery import orders, sharer, take_in
from comigs_server.fleet.exchange import Answer, Client, collect
from comigs_server.fleet.judge import Accepted, Fault, judge
from comigs_server.fleet.mail import Mail
from comigs_server.fleet.records import bytes_of, node_of
from comigs_server.fleet.registry import Registry
from comigs_server.fleet.secagg import Session, agree, give, sum_up
from comigs_server.fleet.shapes import of_one_shape
from comigs_server.fleet.update import Update
from comigs_server.journal import Journal
from comigs_server.resume import Progress
from comigs_server.steps import Chosen, Received, Round, Sent
from comigs_server.timing.clock import lost_devices
from comigs_server.timing.flights import close_buffered
from comigs_server.timing.late import due, postpone


def train_round(
    grid: Grid,
    run: Run,
    clients: Registry,
    progress: Progress,
    rule: Rule,
    journal: Journal,
    mail: Mail | None = None,
) -> None:
    """Train and aggregate the round after `progress`, and move `progress` on.

    Args:
        mail: where rounds overlap behind a SuperLink, whom earlier ones have put to work.

    Raises:
        ComigsError: when fewer than `server.min_clients` answer, or they cannot be combined.
    """
    begin = time.perf_counter()
    now = Round(grid, run, clients, progress, rule, journal, progress.round + 1, mail)
    chosen = choose(now)
    sent = send(now, chosen)
    asked = len(chosen.ids) - len(sent.lost) + (len(progress.flying) if mail else 0)
    received = receive(now, chosen, sent)
    under_way = mail.at_work if mail else progress.at_work
    failed = asked - len(received.updates) - (len(under_way) if mail else 0)
    coming = len(received.updates) + len(under_way)
    if (failed or run.devices is None) and coming < run.config.server.min_clients:
        why = journal.why(now.number)
        raise ComigsError(
            f"round {now.number}: {len(received.updates)} of {len(chosen.ids)} clients answered, "
            f"server.min_clients is {run.config.server.min_clients}{why}; the state of round "
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
    if mail and now.number == run.config.rounds:
        failed += await_all(now, sent, received)
    progress.current = {i for i, e in received.told.items() if e.since is None} - progress.resting
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
    messages = orders(run, progress, now.number, chosen.clients, told)
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
    if now.mail:
        now.mail.send(messages, chosen.clients, run.config.server.round_timeout)
        down = now.mail.down
    return Sent([m for m in messages if node_of(m) in staying], devices, down, lost, session)


def receive(now: Round, chosen: Chosen, sent: Sent) -> Received:
    """Take the answers as they come; an update of absurd size is a fault, too.

    Behind a SuperLink, where rounds overlap, these are the next `server.buffer` of whoever is at
    work.
    """
    run, timeout = now.run, now.run.config.server.round_timeout
    absent = chosen.absent + (sent.session.failed if sent.session else [])
    coming = (
        now.mail.answers()
        if now.mail
        else collect(now.grid, sent.messages, chosen.clients, timeout)
    )
    full = run.config.server.buffer if now.mail else None
    updates: dict[int, Update] = {}
    told: dict[int, ClientTrained] = {}
    resting: set[int] = set()
    by_id: dict[int, Client] = {}
    for verdict, event in heard(now, chain(absent, coming), sent):
        client = verdict.client.id
        updates[client], told[client], by_id[client] = verdict.update, event, verdict.client
        if verdict.reported.fetches == 0:
            resting.add(client)
        if len(updates) == full:
            break
    norms = {i: event.norm for i, event in told.items() if event.norm is not None}
    for client, reason in outliers(norms, now.run.config.privacy.mechanism != "none").items():
        _failed(now, by_id[client], reason)
        del updates[client], told[client]
    arrivals = {i: chosen.wait + (event.sim_seconds or 0.0) for i, event in told.items()}
    return Received(updates, told, resting & set(updates), arrivals)


def heard(
    now: Round, answers: Iterable[Answer], sent: Sent
) -> Iterator[tuple[Accepted, ClientTrained]]:
    """Judge answers and write what they tell; yield those that are accepted."""
    run, progress = now.run, now.progress
    for answer in answers:
        since = progress.since(answer.client.id, now.number)
        verdict = judge(answer, run, since, sharer(run, progress.before(since)))
        if isinstance(verdict, Fault):
            _failed(now, verdict.client, verdict.reason)
            continue
        client = verdict.client.id
        event = trained(run, now.number, verdict, sent.devices.get(client), sent.down[client])
        event = event if since == now.number else replace(event, since=since)
        now.journal.write(event)
        yield verdict, event


def await_all(now: Round, sent: Sent, received: Received) -> int:
    """After the last step, wait for those at work; return how many of them fail.

    What they trained is not combined, but it is in the models that they will test.
    """
    assert now.mail
    count = len(now.mail.at_work)
    for verdict, event in heard(now, now.mail.answers(), sent):
        count -= 1
        received.told[verdict.client.id] = event
        if verdict.reported.fetches == 0:
            received.resting.add(verdict.client.id)
    now.progress.flying, now.progress.past = {}, {}
    return count


def close(now: Round, chosen: Chosen, received: Received, sent: Sent) -> Closing:
    """Whose updates count: everybody's, or what simulated time decides."""
    if now.mail:
        return settle(now.run, now.clients, now.progress, received.updates, now.mail.at_work)
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
    now.progress.flying.pop(client.id, None)
    now.journal.write(Failed(client.name, reason, client.id, now.number))
