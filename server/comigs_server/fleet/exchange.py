"""Send one message to each client and collect the replies as they come."""

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from torch import Tensor

from comigs.config.load import to_dict
from comigs.config.settings import RunConfig
from comigs.errors import flat
from comigs_server.fleet.post import Post
from comigs_server.grids.embedded import EmbeddedGrid
from comigs_server.grids.superlink import Outcome, bundled, opened


@dataclass(frozen=True)
class Client:
    """A client as it introduced itself.

    Attributes:
        id: its number, Flower's partition-id.
        node: its Flower node id.
        name: name of its text.
        rounds: rounds of which it holds an intact state.
        shapes: shape of each tensor it shares.
        examples: tokens of its training text, where averages are weighted by them.
    """

    id: int
    node: int
    name: str
    rounds: frozenset[int]
    shapes: Mapping[str, tuple[int, ...]]
    examples: int | None = None


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
    packed: dict[tuple[int, ...], tuple[Mapping[str, Tensor], ArrayRecord]] = {}
    for message in messages:
        client = by_node[message.metadata.dst_node_id]
        record = ConfigRecord(dict(message.content.config_records["config"]))
        record["state-round"] = state_rounds.get(client.id, 0)
        share = share_of(client)
        same = tuple(map(id, share.values()))  # clients that get the same have one copy in common
        if same not in packed:
            packed[same] = share, pack(share)
        message.content = RecordDict({"arrays": packed[same][1], "config": record})
    return messages


def collect(
    grid: Grid,
    messages: Sequence[Message],
    clients: Iterable[Client],
    timeout: float | None = None,
) -> Iterator[Answer]:
    """Send `messages` and yield an answer to each, in order of arrival.

    Args:
        timeout: seconds to wait behind a SuperLink; embedded grids know when a client hangs.
    """
    by_node = {client.node: client for client in clients}
    if not isinstance(grid, EmbeddedGrid):
        for node, outcome in Post(grid).exchange(list(bundled(messages)), timeout):
            client = by_node[node]
            yield _answer(client, opened(outcome, client.shapes))
        return
    waiting = dict(zip(grid.push_messages(messages), messages, strict=True))
    while waiting:
        replies = list(grid.pull_messages(list(waiting)))
        for reply in replies:
            asked = waiting.pop(reply.metadata.reply_to_message_id)
            yield _answer(by_node[asked.metadata.dst_node_id], reply)
        if not replies:
            time.sleep(0.002)


def _answer(client: Client, outcome: Outcome) -> Answer:
    if isinstance(outcome, str):
        return Answer(client, None, flat(outcome))
    if outcome.has_error():
        return Answer(client, None, flat(outcome.error.reason or "") or "no reason given")
    return Answer(client, outcome)


def unpack(arrays: ArrayRecord | None) -> dict[str, Tensor]:
    """Tensors of an ArrayRecord by name."""
    return {name: torch.from_numpy(array.numpy()) for name, array in (arrays or {}).items()}


def pack(tensors: Mapping[str, Tensor]) -> ArrayRecord:
    """The reverse of `unpack`, in the order of names: Flower pairs arrays by position."""
    return ArrayRecord({name: Array(tensor.numpy()) for name, tensor in sorted(tensors.items())})


def message_bytes(message: Message) -> int:
    """Bytes of the tensors' values in a message, without framing."""
    arrays = message.content.array_records["arrays"].values()
    return sum(math.prod(array.shape) * np.dtype(array.dtype).itemsize for array in arrays)


def tensor_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Bytes of the tensors' values, without framing."""
    return sum(t.numel() * t.element_size() for t in tensors.values())
