"""Flower's records at the edge: what becomes a message, and what is read out of a reply."""

import math
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from torch import Tensor

from comigs.federation.run import Run
from comigs.messages.fields import unknown
from comigs.messages.order import Listed
from comigs.messages.reply import Broken
from comigs_server.fleet.exchange import Client

Arrays = Mapping[str, Array]
Told = Mapping[str, Any]  # what a client is told beside the configuration


def pack(tensors: Mapping[str, Tensor]) -> ArrayRecord:
    """Tensors as an ArrayRecord, in the order of names: Flower pairs arrays by position."""
    return ArrayRecord({name: Array(tensor.numpy()) for name, tensor in sorted(tensors.items())})


def unpack(arrays: Arrays) -> dict[str, Tensor]:
    """The reverse of `pack`."""
    return {name: torch.from_numpy(array.numpy()) for name, array in arrays.items()}


def query_messages(run: Run, nodes: Iterable[int]) -> list[Message]:
    """Ask nodes who they are."""
    content = RecordDict({"config": order_record(run, {})})
    return [Message(content, dst_node_id=node, message_type="query") for node in nodes]


def tensor_messages(
    kind: str,
    run: Run,
    clients: Iterable[Client],
    share_of: Callable[[Client], Mapping[str, Tensor]],
    told: Callable[[Client], Told],
) -> list[Message]:
    """One message to each client, with its tensors: `train`, or `evaluate` for the final test."""
    packed: dict[tuple[int, ...], tuple[Mapping[str, Tensor], ArrayRecord]] = {}
    messages = []
    for client in sorted(clients, key=lambda client: client.id):
        share = share_of(client)
        same = tuple(map(id, share.values()))  # clients that get the same have one copy in common
        if same not in packed:
            packed[same] = share, pack(share)
        content = RecordDict({"arrays": packed[same][1], "config": order_record(run, told(client))})
        messages.append(Message(content, dst_node_id=client.node, message_type=kind))
    return messages


def secagg_messages(
    stage: str, run: Run, number: int, records: Mapping[Client, Told]
) -> list[Message]:
    """Messages of a stage of secure aggregation in round `number`."""
    return [
        Message(
            RecordDict(
                {"config": order_record(run, {"server-round": number}), "secagg": _plain(told)}
            ),
            client.node,
            f"train.{stage}",
        )
        for client, told in records.items()
    ]


def add_secagg(message: Message, told: Told) -> None:
    """Let a train message carry a record of secure aggregation."""
    message.content["secagg"] = _plain(told)


def node_of(message: Message) -> int:
    return message.metadata.dst_node_id


def bytes_of(message: Message) -> int:
    """Bytes of the tensors' values in a message, without framing."""
    arrays = message.content.array_records["arrays"].values()
    return sum(math.prod(array.shape) * np.dtype(array.dtype).itemsize for array in arrays)


def parts_of(reply: Message) -> tuple[Arrays, dict[str, Any]]:
    """Arrays, not decoded, and metrics of a reply to a train message.

    Raises:
        Broken: it holds something else, too.
    """
    if (stranger := unknown(reply.content, frozenset({"arrays", "metrics"}))) is not None:
        raise Broken(f"holds {stranger[:60]!r}")
    metrics = dict(reply.content.metric_records["metrics"])
    return dict(reply.content.array_records["arrays"]), metrics


def text_of(reply: Message, record: str) -> object:
    """The JSON text of a reply to a query (`hello`) or a test (`final`)."""
    return reply.content.config_records[record]["json"]


def listed_in(reply: Message) -> Listed:
    """Keys or shares of secure aggregation."""
    return Listed.model_validate(dict(reply.content.config_records["secagg"]))


def order_record(run: Run, told: Told = MappingProxyType({})) -> ConfigRecord:
    """Every message carries the whole configuration."""
    return ConfigRecord({"config": run.text, **told})


def _plain(told: Told) -> ConfigRecord:
    return ConfigRecord(dict(told))
