"""One round: who takes part, what comes back in time, and what the server makes of it."""

import time
from collections.abc import Mapping
from itertools import chain

import torch
from flwr.app import Message
from flwr.serverapp import Grid
from flwr.serverapp.exception import AggregationError, InconsistentMessageReplies
from flwr.serverapp.strategy import FedAvg
from torch import Tensor

from comigs.aggregation import find_aggregator
from comigs.config.settings import RunConfig
from comigs.errors import ComigsError
from comigs.federation.selection import participants, those_there, wanted
from comigs.methods import find_method
from comigs_server.clock import Closing, Loss, close_round, is_simulated, lost_devices, times_of
from comigs_server.combine.accountant import epsilon
from comigs_server.combine.outliers import outliers, with_share
from comigs_server.delivery import nodes_of, sharer
from comigs_server.fleet.exchange import address, collect, message_bytes, order, pack, unpack
from comigs_server.fleet.judge import judge
from comigs_server.fleet.registry import Registry
from comigs_server.fleet.secagg import agree, give, sum_up
from comigs_server.fleet.shapes import of_one_shape
from comigs_server.journal import Event, Journal
from comigs_server.late import due, postpone
from comigs_server.resume import Progress, Totals


def train_round(
    grid: Grid,
    config: RunConfig,
    clients: Registry,
    progress: Progress,
    strategy: FedAvg,
    journal: Journal,
) -> None:
    """Train and aggregate the round after `progress`, and move `progress` on.

    Raises:
        ComigsError: when fewer than `server.min_clients` answer, or they cannot be combined.
    """
    begin, timeout = time.perf_counter(), config.server.round_timeout
    number = progress.round + 1
    strangers = clients.look()
    ids = participants(config, number, clients.ids, progress.secret)
    draw = len(those_there(config, number, clients.ids)), len(ids)
    journal.watch({"event": "round started", "round": number, "clients": len(ids)})
    chosen, unreachable = clients.meet(ids)
    chosen, odd = of_one_shape(config, chosen, progress.shared)
    unreachable = unreachable + odd
    drafts = strategy.configure_train(
        number, pack(progress.shared), order(config), nodes_of(chosen)
    )
    share_of = sharer(config, progress)
    messages = address(drafts, chosen, progress.client_rounds, share_of)
    down = {m.metadata.dst_node_id: message_bytes(m) for m in messages}
    lost = lost_devices(config, number, {c.id: down[c.node] for c in chosen})
    for one in (c for c in chosen if c.id in lost):
        loss = lost[one.id]
        told = {"client": one.id, "name": one.name, "device": loss.device, "reason": loss.reason}
        journal.write("dropped", round=number, **told)
    session = agree(grid, config, number, chosen) if config.privacy.secure != "none" else None
    if session:
        messages = give(session, messages, chosen)
        unreachable = unreachable + session.failed
    alive = {c.node for c in chosen if c.id not in lost}
    messages = [m for m in messages if m.metadata.dst_node_id in alive]
    good: dict[int, Message] = {}
    events: dict[int, Event] = {}
    for answer in chain(strangers, unreachable, collect(grid, messages, chosen, timeout)):
        fault, event = judge(answer, config, number, share_of)
        if not fault:
            event["bytes_down"] = down[answer.client.node]
            event |= times_of(config, event)
        journal.write("failure" if fault else "client", round=number, **event)
        if answer.reply is not None and not fault:
            record = answer.reply.content.metric_records["metrics"]
            record["client"] = answer.client.id
            by_samples = config.server.weighting == "samples"
            record["weight"] = float(event["num-examples"]) if by_samples else 1.0
            good[answer.client.id] = answer.reply
            events[answer.client.id] = event
    norms = {i: event["norm"] for i, event in events.items() if "norm" in event}
    for client, reason in outliers(norms).items():
        name = events.pop(client)["name"]
        journal.write("failure", round=number, client=client, name=name, reason=reason)
        del good[client]
    failed = len(ids) - len(good) - len(lost)
    if failed and len(good) < config.server.min_clients:
        raise ComigsError(
            f"round {number}: {len(good)} of {len(ids)} clients answered, server.min_clients is "
            f"{config.server.min_clients}; the state of round {progress.round} is saved"
        )
    closing = _close(config, events, lost, wanted(config, len(clients.ids)))
    for client in closing.late:
        reason = f"late: {events[client]['sim_seconds']:.0f} s, closed at {closing.seconds:.0f} s"
        about = {key: events[client][key] for key in ("client", "name", "device")}
        journal.write("late", round=number, **about, reason=reason)
    updates = due(progress.late, closing) | {i: good[i] for i in closing.in_time}
    progress.late = postpone(config, progress.late, good, events, closing)
    abandoned = len(updates) < config.server.min_clients
    if session and not abandoned:
        known = len(session.failed)
        try:
            updates = {0: sum_up(grid, config, session, updates, chosen, share_of)}
        except ComigsError as error:  # who gives no right share must not end the run
            abandoned = True
            journal.write("abandoned", round=number, reason=str(error))
        for answer in session.failed[known:]:
            event = {"client": answer.client.id, "name": answer.client.name}
            journal.write("failure", round=number, **event, reason=answer.reason)
    if config.server.weighting == "samples":
        _share_out(updates, config.server.max_share)
    rule = find_aggregator(find_method(config.method).aggregator)
    fresh = {} if abandoned else _aggregate(config, progress, strategy, number, updates)
    progress.shared = rule.lasting(progress.shared) | fresh
    wall = time.perf_counter() - begin
    for client, event in events.items():
        progress.client_rounds[client] = number
        total = progress.totals.setdefault(client, Totals())
        total.bytes_up += event["bytes_up"]
        total.bytes_down += event["bytes_down"]
        total.seconds += event["seconds"]
    progress.round, progress.seconds = number, progress.seconds + wall
    summary = _summary(list(events.values()), failed, wall)
    progress.draws.append(draw)
    if config.privacy.mechanism == "client":
        summary["epsilon"] = epsilon(config.privacy, progress.draws)
    if is_simulated(config):
        summary |= _simulated(events, lost, closing, progress) | {"abandoned": abandoned}
    journal.write("round", round=number, **summary)


def _close(
    config: RunConfig, events: Mapping[int, Event], lost: Mapping[int, Loss], wanted: int
) -> Closing:
    """Whose updates count: everybody's, or what simulated time decides."""
    if not is_simulated(config):
        return Closing(0.0, sorted(events), [])
    arrivals = {client: event["sim_seconds"] for client, event in events.items()}
    losses = {client: loss.seconds for client, loss in lost.items()}
    return close_round(arrivals, losses, wanted, config.server.deadline)


def _share_out(updates: Mapping[int, Message], most: float | None) -> None:
    """Give the updates weights of which none takes the mean over."""
    records = {i: u.content.metric_records["metrics"] for i, u in updates.items()}
    told = {i: float(record["weight"]) for i, record in records.items()}  # type: ignore[arg-type]
    for client, weight in with_share(told, most).items():
        records[client]["weight"] = weight


def _aggregate(
    config: RunConfig,
    progress: Progress,
    strategy: FedAvg,
    number: int,
    updates: Mapping[int, Message],
) -> dict[str, Tensor]:
    """What the round's updates make together."""
    try:
        mean, _ = strategy.aggregate_train(number, [updates[i] for i in sorted(updates)])
    except (AggregationError, InconsistentMessageReplies) as error:
        raise ComigsError(f"round {number}: {config.server.strategy} failed: {error}") from None
    if mean is None:
        raise ComigsError(
            f"round {number}: {config.server.strategy} cannot combine {len(updates)} updates"
        )
    tensors = {name: tensor.float() for name, tensor in unpack(mean).items()}
    if broken := [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]:
        raise ComigsError(
            f"round {number}: {config.server.strategy} made NaN or infinity of {broken[0]!r}; the "
            f"state of round {progress.round} is saved"
        )
    return tensors


def _summary(events: list[Event], failed: int, wall: float) -> Event:
    def mean(key: str) -> float | None:
        values = [event[key] for event in events if key in event]
        return sum(values) / len(values) if values else None

    return {
        "clients": len(events),
        "failed": failed,
        "loss": mean("loss"),
        "valid_ppl": mean("valid_ppl"),
        "seconds": wall,
        "compute_seconds": sum(e["train_seconds"] + e["eval_seconds"] for e in events),
        "tokens_per_second": sum(e["tokens"] for e in events) / wall,
        "bytes_up": sum(e["bytes_up"] for e in events),
        "bytes_down": sum(e["bytes_down"] for e in events),
    }


def _simulated(
    events: Mapping[int, Event], lost: Mapping[int, Loss], closing: Closing, progress: Progress
) -> Event:
    joules = sum(e["sim_joules"] for e in events.values()) + sum(x.joules for x in lost.values())
    progress.sim_seconds += closing.seconds
    progress.sim_joules += joules
    return {
        "sim_seconds": closing.seconds,
        "sim_clock": progress.sim_seconds,
        "sim_joules": joules,
        "late": len(closing.late),
        "dropped": len(lost),
    }
