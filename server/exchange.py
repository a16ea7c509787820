"""Send one message to each client and collect the replies as they come."""

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from torch import Tensor

from comigs.config import RunConfig
from comigs.configload import to_dict
from comigs.errors import ComigsError


@dataclass(frozen=True)
class Client:
    """A client as it introduced itself.

    Attributes:
        id: its number, Flower's partition-id.
        node: its Flower node id.
        name: name of its text.
        rounds: rounds of which it holds an intact state.
        shapes: shape of each tensor it shares.
    """

    id: int
    node: int
    name: str
    rounds: frozenset[int]
    shapes: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Answer:
    """What came back from one client: a reply, or the reason why there is none."""

    client: Client
    reply: Message | None
    reason: str = ""


def order(config: RunConfig) -> ConfigRecord:
    """The ConfigRecord of a message: it carries the whole configuration."""
    return ConfigRecord({"config": json.dumps(to_dict(config))})


def address(
    drafts: Iterable[Message],
    clients: Iterable[Client],
    state_rounds: Mapping[int, int],
    share_of: Callable[[Client], Mapping[str, Tensor]],
) -> list[Message]:
    """Make a strategy's messages each client's own: its tensors, and the state to start from."""
    by_node = {client.node: client for client in clients}
    messages = sorted(drafts, key=lambda message: by_node[message.metadata.dst_node_id].id)
    for message in messages:
        client = by_node[message.metadata.dst_node_id]
        record = ConfigRecord(dict(message.content.config_records["config"]))
        record["state-round"] = state_rounds.get(client.id, 0)
        message.content = RecordDict({"arrays": pack(share_of(client)), "config": record})
    return messages


def collect(grid: Grid, messages: Sequence[Message], clients: Iterable[Client]) -> Iterator[Answer]:
    """Send `messages` and yield an answer to each, in order of arrival."""
    by_node = {client.node: client for client in clients}
    waiting = dict(zip(grid.push_messages(messages), messages, strict=True))
    while waiting:
        replies = list(grid.pull_messages(list(waiting)))
        for reply in replies:
            asked = waiting.pop(reply.metadata.reply_to_message_id)
            client = by_node[asked.metadata.dst_node_id]
            if reply.has_error():
                yield Answer(client, None, reply.error.reason or "no reason given")
            else:
                yield Answer(client, reply)
        if not replies:
            time.sleep(0.002)


def introduce(grid: Grid, config: RunConfig) -> dict[int, Client]:
    """Ask every node who it is. Returns the clients by id.

    Raises:
        ComigsError: when a node cannot answer: a run starts with all its clients.
    """
    content = RecordDict({"config": order(config)})
    strangers = [Client(n, n, f"node {n}", frozenset(), {}) for n in grid.get_node_ids()]
    messages = [Message(content, dst_node_id=s.node, message_type="query") for s in strangers]
    clients = {}
    for answer in collect(grid, messages, strangers):
        if answer.reply is None:
            raise ComigsError(f"{answer.client.name} cannot start: {answer.reason}")
        about = json.loads(str(answer.reply.content.config_records["hello"]["json"]))
        shapes = {name: tuple(shape) for name, shape in about["shapes"].items()}
        clients[about["client"]] = Client(
            about["client"], answer.client.node, about["name"], frozenset(about["rounds"]), shapes
        )
    return dict(sorted(clients.items()))


def fault_of(update: Mapping[str, Tensor], client: Client, prunes: bool = False) -> str | None:
    """Why an update cannot be used, or None: the server checks what the payload promises.

    Args:
        prunes: whether the client may lower its LoRA rank.
    """
    shapes = _pruned(update, client.shapes) if prunes else client.shapes
    if extra := sorted(set(update) - set(client.shapes)):
        return f"sent {extra[0]!r}, which it does not share"
    if missing := sorted(set(client.shapes) - set(update)):
        return f"did not send {missing[0]!r}"
    for name, tensor in update.items():
        if tuple(tensor.shape) != shapes[name]:
            return f"sent {name!r} with shape {tuple(tensor.shape)}, not {shapes[name]}"
        if tensor.dtype != torch.float32:
            return f"sent {name!r} as {tensor.dtype}, not float32"
        if not torch.isfinite(tensor).all():
            return f"sent {name!r} with NaN or infinity"
    return None


def _pruned(
    update: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]
) -> Mapping[str, tuple[int, ...]]:
    """`shapes` at the rank of the update's first pair, if that is lower."""
    first = next((n for n in sorted(shapes) if ".lora_A." in n and n in update), None)
    if first is None or update[first].ndim != 2:
        return shapes
    rank = max(1, min(update[first].shape[0], shapes[first][0]))
    return {n: (rank, s[1]) if ".lora_A." in n else (s[0], rank) for n, s in shapes.items()}


def fault_of_metrics(metrics: Mapping[str, object]) -> str | None:
    """Why the metrics of an update cannot be used, or None."""
    for key in ("num-examples", "loss", "tokens", "train_seconds", "eval_seconds", "seconds"):
        value, least = metrics.get(key), 1 if key == "num-examples" else 0
        if not isinstance(value, (int, float)) or not least <= value < math.inf:
            return f"sent {key} = {value!r}"
    return None


def unpack(arrays: ArrayRecord | None) -> dict[str, Tensor]:
    """Tensors of an ArrayRecord by name."""
    return {name: torch.from_numpy(array.numpy()) for name, array in (arrays or {}).items()}


def pack(tensors: Mapping[str, Tensor]) -> ArrayRecord:
    """The reverse of `unpack`, in the order of names: Flower pairs arrays by position."""
    return ArrayRecord({name: Array(tensor.numpy()) for name, tensor in sorted(tensors.items())})


def tensor_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Bytes of the tensors' values, without framing."""
    return sum(t.numel() * t.element_size() for t in tensors.values())
