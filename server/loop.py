"""The round loop: resume, train, aggregate, save; and the final evaluation."""

import random
import time
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from flwr.app import Message
from flwr.serverapp import Grid
from flwr.serverapp.exception import AggregationError, InconsistentMessageReplies
from flwr.serverapp.strategy import FedAvg

from comigs.config import RunConfig
from comigs.errors import ComigsError
from comigs.local import start_of
from comigs.methods import find_method
from comigs.seeds import derive
from comigs.state import write_state
from server.delivery import nodes_of, sharer
from server.evaluation import evaluate
from server.exchange import address, collect, message_bytes, order, pack, unpack
from server.journal import Event, Journal
from server.judge import judge
from server.registry import Registry
from server.resume import Progress, Totals, resume_point
from server.strategy import FROM_THE_START, make_strategy, restore_memory, strategy_memory


def run_rounds(grid: Grid, config: RunConfig, folder: Path, journal: Journal) -> None:
    """Run or continue a federation until its last round and evaluate every client.

    Args:
        grid: Flower's way to the clients.
        folder: the run folder; the server's checkpoints go to `folder/server`.

    Raises:
        ComigsError: when fewer than `server.min_clients` answer; the last good round is saved.
    """
    clients = Registry(grid, config)
    progress = resume_point(config, folder / "server", clients, journal)
    names = list(clients.names)
    rounds = config.rounds if find_method(config.method).trains else 0
    journal.write("start", method=config.method, clients=names, rounds=rounds, round=progress.round)
    strategy = make_strategy(config)
    restore_memory(strategy, progress.memory)
    if config.server.strategy in FROM_THE_START and not progress.shared:
        progress.shared = start_of(config)
    while progress.round < rounds:
        _train_round(grid, config, clients, progress, strategy, journal)
        tensors = {"shared": progress.shared}
        if memory := strategy_memory(strategy):
            tensors["strategy"] = memory
        write_state(folder / "server", progress.round, tensors, progress.meta(config))
    evaluate(grid, config, clients, progress, strategy, journal)
    journal.write("end", seconds=progress.seconds)


def participants(config: RunConfig, number: int, ids: Sequence[int]) -> list[int]:
    """Ids of the clients that train in a round, drawn from (seed, round)."""
    count = max(1, round(config.participation * len(ids)))
    rng = random.Random(derive(config.seed, "server", number, "participants"))
    return sorted(rng.sample(ids, count))


def _train_round(
    grid: Grid,
    config: RunConfig,
    clients: Registry,
    progress: Progress,
    strategy: FedAvg,
    journal: Journal,
) -> None:
    """Train and aggregate the round after `progress`, and move `progress` on."""
    begin = time.perf_counter()
    number = progress.round + 1
    ids = participants(config, number, clients.ids)
    journal.watch({"event": "round started", "round": number, "clients": len(ids)})
    chosen, unreachable = clients.meet(ids)
    drafts = strategy.configure_train(
        number, pack(progress.shared), order(config), nodes_of(chosen)
    )
    messages = address(drafts, chosen, progress.client_rounds, sharer(config, progress))
    down = {m.metadata.dst_node_id: message_bytes(m) for m in messages}
    good: dict[int, Message] = {}
    events: list[Event] = []
    for answer in chain(unreachable, collect(grid, messages, chosen)):
        fault, event = judge(answer, config)
        if not fault:
            event["bytes_down"] = down[answer.client.node]
        journal.write("failure" if fault else "client", round=number, **event)
        if answer.reply is not None and not fault:
            record = answer.reply.content.metric_records["metrics"]
            record["client"] = answer.client.id
            by_samples = config.server.weighting == "samples"
            record["weight"] = float(event["num-examples"]) if by_samples else 1.0
            good[answer.client.id] = answer.reply
            events.append(event)
    if len(good) < config.server.min_clients:
        raise ComigsError(
            f"round {number}: {len(good)} of {len(ids)} clients answered, server.min_clients is "
            f"{config.server.min_clients}; the state of round {progress.round} is saved"
        )
    try:
        mean, _ = strategy.aggregate_train(number, [good[i] for i in sorted(good)])
    except (AggregationError, InconsistentMessageReplies) as error:
        raise ComigsError(f"round {number}: {config.server.strategy} failed: {error}") from None
    if mean is None:
        raise ComigsError(
            f"round {number}: {config.server.strategy} cannot combine {len(good)} updates"
        )
    progress.shared |= {name: tensor.float() for name, tensor in unpack(mean).items()}
    wall = time.perf_counter() - begin
    for event in events:
        progress.client_rounds[event["client"]] = number
        total = progress.totals.setdefault(event["client"], Totals())
        total.bytes_up += event["bytes_up"]
        total.bytes_down += event["bytes_down"]
        total.seconds += event["seconds"]
    progress.round, progress.seconds = number, progress.seconds + wall
    journal.write("round", round=number, **_summary(events, len(ids), wall))


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
