"""The round loop: resume, train, aggregate, save; and the final evaluation."""

import json
import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp.exception import AggregationError, InconsistentMessageReplies
from flwr.serverapp.strategy import FedAvg
from torch import Tensor

from comigs.config import RunConfig
from comigs.errors import ComigsError
from comigs.local import start_of
from comigs.methods import find_method
from comigs.ranks import lora_scale
from comigs.state import write_state
from comigs.traffic import FROM_THE_START, drawn
from server.aggregation import find_aggregator
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
from server.strategy import make_strategy, restore_memory, strategy_memory


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
    restore_memory(strategy, progress.memory)
    if config.server.strategy in FROM_THE_START and not progress.shared:
        progress.shared = start_of(config)
    while progress.round < rounds:
        _train_round(grid, config, clients, progress, strategy, journal)
        tensors = {"shared": progress.shared}
        if memory := strategy_memory(strategy):
            tensors["strategy"] = memory
        write_state(folder / "server", progress.round, tensors, progress.meta(config))
    _evaluate(grid, config, clients, progress, strategy, journal)
    journal.write("end", seconds=progress.seconds)


def participants(config: RunConfig, number: int, clients: Mapping[int, Client]) -> list[Client]:
    """The clients that train in a round, drawn from (seed, round)."""
    return [clients[i] for i in drawn(config, number, len(clients))]


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
    strategy: FedAvg,
    journal: Journal,
) -> None:
    """Train and aggregate the round after `progress`, and move `progress` on."""
    begin = time.perf_counter()
    number = progress.round + 1
    chosen = participants(config, number, clients)
    journal.watch({"event": "round started", "round": number, "clients": len(chosen)})
    nodes: Any = _Nodes(chosen)
    drafts = strategy.configure_train(number, pack(progress.shared), order(config), nodes)
    messages = address(drafts, chosen, progress.client_rounds, _sharer(config, progress))
    down = {m.metadata.dst_node_id: tensor_bytes(_arrays(m)) for m in messages}
    good: dict[int, Message] = {}
    events: list[Event] = []
    for answer in collect(grid, messages, chosen):
        fault, event = _judge(answer, config)
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
            f"round {number}: {len(good)} of {len(chosen)} clients answered, server.min_clients is "
            f"{config.server.min_clients}; the state of round {progress.round} is saved"
        )
    try:
        arrays, _ = strategy.aggregate_train(number, [good[i] for i in sorted(good)])
    except (AggregationError, InconsistentMessageReplies) as error:
        raise ComigsError(f"round {number}: {config.server.strategy} failed: {error}") from None
    if arrays is None:
        raise ComigsError(
            f"round {number}: {config.server.strategy} cannot combine {len(good)} updates"
        )
    progress.shared |= {name: tensor.float() for name, tensor in unpack(arrays).items()}
    wall = time.perf_counter() - begin
    for event in events:
        progress.client_rounds[event["client"]] = number
        total = progress.totals.setdefault(event["client"], Totals())
        total.bytes_up += event["bytes_up"]
        total.bytes_down += event["bytes_down"]
        total.seconds += event["seconds"]
    progress.round, progress.seconds = number, progress.seconds + wall
    journal.write("round", round=number, **_summary(events, len(chosen), wall))


def _sharer(config: RunConfig, progress: Progress) -> Callable[[Client], dict[str, Tensor]]:
    """What each client gets of the tensors that the server keeps."""
    deliver = find_aggregator(find_method(config.method).aggregator).deliver

    def share_of(client: Client) -> dict[str, Tensor]:
        fresh = progress.client_rounds.get(client.id) == progress.round
        scale = partial(lora_scale, config.experts)
        return deliver(progress.shared, client.shapes, scale, fresh)

    return share_of


def _arrays(message: Message) -> dict[str, Tensor]:
    return unpack(message.content.array_records["arrays"])


def _judge(answer: Answer, config: RunConfig) -> tuple[bool, Event]:
    """Return whether the answer is a failure, and its event."""
    client = answer.client
    event: Event = {"client": client.id, "name": client.name}
    if answer.reply is None:
        return True, event | {"reason": answer.reason}
    try:
        update = _arrays(answer.reply)
        metrics = dict(answer.reply.content.metric_records["metrics"])
    except (KeyError, TypeError, ValueError) as error:
        reason = f"its reply cannot be used ({type(error).__name__}: {error})"
        return True, event | {"reason": reason}
    prunes = find_method(config.method).prune is not None
    if fault := fault_of(update, client, prunes) or fault_of_metrics(metrics):
        return True, event | {"reason": fault}
    own = {"event": "", "round": 0} | event  # a client does not say who or when it is
    said = {key: value for key, value in metrics.items() if key not in own}
    return False, event | said | {"bytes_up": tensor_bytes(update)}


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
    strategy: FedAvg,
    journal: Journal,
) -> None:
    """Every client evaluates the final model on its test split."""
    everyone = list(clients.values())
    nodes: Any = _Nodes(everyone)
    journal.watch({"event": "evaluation started", "clients": len(everyone)})
    arrays: ArrayRecord = pack(progress.shared)
    drafts = strategy.configure_evaluate(progress.round, arrays, order(config), nodes)
    messages = address(drafts, everyone, progress.client_rounds, _sharer(config, progress))
    down = {m.metadata.dst_node_id: tensor_bytes(_arrays(m)) for m in messages}
    for answer in collect(grid, messages, everyone):
        client = answer.client
        if answer.reply is None:
            journal.write("failure", client=client.id, name=client.name, reason=answer.reason)
            continue
        total = progress.totals.get(client.id, Totals())
        for row in json.loads(str(answer.reply.content.config_records["final"]["json"])):
            journal.write(
                "final",
                client=client.id,
                **row,
                bytes_up=total.bytes_up,
                bytes_down=total.bytes_down + down[client.node],
                seconds=total.seconds,
                communicated=sum(math.prod(shape) for shape in client.shapes.values()),
            )
