"""Updates that came after their round had closed: discarded, or kept for a later round."""

from collections.abc import Mapping
from dataclasses import dataclass

from flwr.app import Message, MetricRecord, RecordDict
from torch import Tensor

from comigs.config.settings import RunConfig
from comigs_server.clock import Closing
from comigs_server.fleet.exchange import pack, unpack
from comigs_server.journal import Event


@dataclass(frozen=True)
class Late:
    """An update under way: its tensors, its weight, and simulated seconds until it is there."""

    tensors: dict[str, Tensor]
    weight: float
    due: float


def due(late: Mapping[int, Late], closing: Closing) -> dict[int, Message]:
    """The late updates that arrive within the round that closes, as replies by client."""
    return {i: _reply(i, u) for i, u in late.items() if u.due <= closing.seconds}


def postpone(
    config: RunConfig,
    late: Mapping[int, Late],
    good: Mapping[int, Message],
    events: Mapping[int, Event],
    closing: Closing,
) -> dict[int, Late]:
    """What is still under way after the round; a client's new update replaces its old one."""
    if config.server.late == "discard":
        return {}
    kept = {
        i: Late(u.tensors, u.weight, u.due - closing.seconds)
        for i, u in late.items()
        if u.due > closing.seconds and i not in good
    }
    for client in closing.late:
        content = good[client].content
        tensors = unpack(content.array_records["arrays"])
        weight = float(content.metric_records["metrics"]["weight"])  # type: ignore[arg-type]
        kept[client] = Late(tensors, weight, events[client]["sim_seconds"] - closing.seconds)
    return kept


def _reply(client: int, update: Late) -> Message:
    metrics = MetricRecord({"client": client, "weight": update.weight})
    content = RecordDict({"arrays": pack(update.tensors), "metrics": metrics})
    return Message(content, dst_node_id=0, message_type="train")
