"""The round loop: resume, train, aggregate, save; and the final evaluation."""

import json
import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from comigs.config import RunConfig
from comigs.errors import ComigsError
from comigs.methods import find_method
from comigs.seeds import derive
from comigs.state import write_state
from server.exchange import (
    Answer,
    Client,
    address,
    collect,
    fault_of,
    fault_of_metrics,
    introduce,
    order,
    pack,
    tensor_bytes,
    unpack,
)
from server.journal import Event, Journal
from server.resume import Progress, Totals, resume_point
from server.strategy import make_strategy


def run_rounds(grid: Grid, config: RunConfig, folder: Path, journal: Journal) -> None:
    """Run or continue a federation until its last round and evaluate every client.

    Args:
        grid: Flower's way to the clients.
        folder: the run folder; the server's checkpoints go to `folder/server`.

    Raises:
        ComigsError: when fewer than `server.min_clients` answer; the last good round is saved.
    """
    clients = introduce(grid, config)
    progress = resume_point(config, folder / "server", clients, journal)
    names = [client.name for client in clients.values()]
    rounds = config.rounds if find_method(config.method).trains else 0
    journal.write("start", method=config.method, clients=names, rounds=rounds, round=progress.round)
    strategy = make_strategy(config)
    while progress.round < rounds:
        _train_round(grid, config, clients, progress, strategy, journal)
        write_state(
            folder / "server", progress.round, {"shared": progress.shared}, progress.meta(config)
        )
    _evaluate(grid, config, clients, progress, strategy, journal)
    journal.write("end", seconds=progress.seconds)


def participants(config: RunConfig, number: int, clients: Mapping[int, Client]) -> list[Client]:
    """The clients that train in a round, drawn from (seed, round)."""
    count = max(1, round(config.participation * len(clients)))
    rng = random.Random(derive(config.seed, "server", number, "participants"))
    return [clients[i] for i in sorted(rng.sample(sorted(clients), count))]


class _Nodes:
    """What a strategy sees of the grid: only the nodes that take part."""

    def __init__(self, clients: list[Client]) -> None:
        self.nodes = [client.node for client in clients]

    def get_node_ids(self) -> list[int]:
        return self.nodes


def _train_round(
    grid: Grid,
    config: RunConfig,
    clients: Mapping[int, Client],
    progress: Progress,
    strategy: Strategy,
    journal: Journal,
) -> None:
    """Train and aggregate the round after `progress`, and move `progress` on."""
    begin = time.perf_counter()
    number = progress.round + 1
    chosen = participants(config, number, clients)
    journal.watch({"event": "round started", "round": number, "clients": len(chosen)})
    nodes: Any = _Nodes(chosen)
    drafts = strategy.configure_train(number, pack(progress.shared), order(config), nodes)
    messages = address(drafts, chosen, progress.client_rounds)
    good: dict[int, Message] = {}
    events: list[Event] = []
    for answer in collect(grid, messages, chosen):
        fault, event = _judge(answer, progress)
        journal.write("failure" if fault else "client", round=number, **event)
        if answer.reply is not None and not fault:
            good[answer.client.id] = answer.reply
            events.append(event)
    if len(good) < config.server.min_clients:
        raise ComigsError(
            f"round {number}: {len(good)} of {len(chosen)} clients answered, server.min_clients is "
            f"{config.server.min_clients}; the state of round {progress.round} is saved"
        )
    arrays, _ = strategy.aggregate_train(number, [good[i] for i in sorted(good)])
    progress.shared |= unpack(arrays)
    wall = time.perf_counter() - begin
    for event in events:
        progress.client_rounds[event["client"]] = number
        total = progress.totals.setdefault(event["client"], Totals())
        total.bytes_up += event["bytes_up"]
        total.bytes_down += event["bytes_down"]
        total.seconds += event["seconds"]
    progress.round, progress.seconds = number, progress.seconds + wall
    journal.write("round", round=number, **_summary(events, len(chosen), wall))


def _judge(answer: Answer, progress: Progress) -> tuple[bool, Event]:
    """Return whether the answer is a failure, and its event."""
    client = answer.client
    event: Event = {"client": client.id, "name": client.name}
    if answer.reply is None:
        return True, event | {"reason": answer.reason}
    try:
        update = unpack(answer.reply.content.array_records["arrays"])
        metrics = dict(answer.reply.content.metric_records["metrics"])
    except (KeyError, TypeError, ValueError) as error:
        reason = f"its reply cannot be used ({type(error).__name__}: {error})"
        return True, event | {"reason": reason}
    if fault := fault_of(update, client) or fault_of_metrics(metrics):
        return True, event | {"reason": fault}
    sent = {name: t for name, t in progress.shared.items() if name in client.shapes}
    return False, event | metrics | {
        "bytes_up": tensor_bytes(update),
        "bytes_down": tensor_bytes(sent),
    }


def _summary(events: list[Event], asked: int, wall: float) -> Event:
    compute = sum(e["train_seconds"] + e["eval_seconds"] for e in events)
    ppl = [e["valid_ppl"] for e in events if "valid_ppl" in e]
    return {
        "clients": len(events),
        "failed": asked - len(events),
        "loss": sum(e["loss"] for e in events) / len(events),
        "valid_ppl": sum(ppl) / len(ppl) if ppl else None,
        "seconds": wall,
        "compute_seconds": compute,
        "tokens_per_second": sum(e["tokens"] for e in events) / wall,
        "bytes_up": sum(e["bytes_up"] for e in events),
        "bytes_down": sum(e["bytes_down"] for e in events),
    }


def _evaluate(
    grid: Grid,
    config: RunConfig,
    clients: Mapping[int, Client],
    progress: Progress,
    strategy: Strategy,
    journal: Journal,
) -> None:
    """Every client evaluates the final model on its test split."""
    everyone = list(clients.values())
    nodes: Any = _Nodes(everyone)
    journal.watch({"event": "evaluation started", "clients": len(everyone)})
    arrays: ArrayRecord = pack(progress.shared)
    drafts = strategy.configure_evaluate(progress.round, arrays, order(config), nodes)
    messages = address(drafts, everyone, progress.client_rounds)
    for answer in collect(grid, messages, everyone):
        client = answer.client
        if answer.reply is None:
            journal.write("failure", client=client.id, name=client.name, reason=answer.reason)
            continue
        total = progress.totals.get(client.id, Totals())
        shared = {name: t for name, t in progress.shared.items() if name in client.shapes}
        for row in json.loads(str(answer.reply.content.config_records["final"]["json"])):
            journal.write(
                "final",
                client=client.id,
                **row,
                bytes_up=total.bytes_up,
                bytes_down=total.bytes_down + tensor_bytes(shared),
                seconds=total.seconds,
                communicated=sum(t.numel() for t in shared.values()),
            )
