"""Strategies of Flower's: their classes get replies of the form they know, and nothing else."""

import importlib
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

import torch
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.exception import AggregationError, InconsistentMessageReplies
from flwr.serverapp.strategy import FedAvg
from torch import Tensor

from comigs.aggregation import Tensors
from comigs.config.strategies import ServerStrategy
from comigs.errors import ComigsError
from comigs_server.fleet.records import pack, unpack
from comigs_server.fleet.update import Update

WEIGHT, ROUND = "weight", "server-round"
_LOOPS: dict[str, Any] = {"min_train_nodes": 0, "min_evaluate_nodes": 0, "min_available_nodes": 0}


class FlowerRule:
    """A strategy of `comigs/config/strategies.py` as a rule of the server.

    Args:
        options: of `server.options`.

    Raises:
        TypeError, ValueError: the strategy does not take them.
    """

    def __init__(self, strategy: ServerStrategy, options: Mapping[str, Any]) -> None:
        module, _, name = strategy.path.rpartition(".")
        kind = getattr(importlib.import_module(module), name)
        self._row = strategy
        self._strategy: FedAvg = kind(**_LOOPS, weighted_by_key=WEIGHT, **options)

    def tells(self, number: int, kept: Tensors, nodes: Sequence[int]) -> Mapping[str, Any]:
        """What the strategy's own messages of the round say, e.g. `proximal-mu`."""
        seen = cast(Grid, SimpleNamespace(get_node_ids=lambda: list(nodes)))
        told = ConfigRecord({})
        list(self._strategy.configure_train(number, pack(kept), told, seen))
        return {key: value for key, value in told.items() if key != ROUND}

    def combine(self, number: int, updates: Sequence[Update], kept: Tensors) -> dict[str, Tensor]:
        replies = [_reply(update) for update in sorted(updates, key=lambda u: u.client)]
        try:
            mean, _ = self._strategy.aggregate_train(number, replies)
        except (AggregationError, InconsistentMessageReplies) as error:
            raise ComigsError(f"{self._row.name} failed: {error}") from None
        if mean is None:
            raise ComigsError(f"{self._row.name} cannot combine {len(replies)} updates")
        return unpack(mean)

    def memory(self) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        for part in self._row.memory:
            held: Any = getattr(self._strategy, part, None) or {}
            named = held.items() if isinstance(held, dict) else enumerate(held)
            tensors |= {f"{part}/{key}": torch.from_numpy(value.copy()) for key, value in named}
        return tensors

    def restore(self, memory: Tensors) -> None:
        for part in self._row.memory:
            start = f"{part}/"
            mine = {n[len(start) :]: t.numpy() for n, t in memory.items() if n.startswith(start)}
            counted = all(key.isdigit() for key in mine)
            if mine:
                value = [mine[str(i)] for i in range(len(mine))] if counted else mine
                setattr(self._strategy, part, value)


def _reply(update: Update) -> Message:
    content = RecordDict(
        {"arrays": pack(update.tensors), "metrics": MetricRecord({WEIGHT: update.weight})}
    )
    return Message(content, dst_node_id=0, message_type="train")
