"""The Flower strategy of a run: Flower's FedAvg around the method's own aggregator."""

from collections.abc import Iterable

import torch
from flwr.app import Array, ArrayRecord, Message, MetricRecord
from flwr.serverapp.strategy import FedAvg

from comigs.config import RunConfig
from comigs.methods import find_method
from server.aggregation import Aggregator, find_aggregator


class Aggregating(FedAvg):
    """FedAvg whose combination of the clients' arrays is a pure function.

    Unlike Flower's, it accepts clients that share different tensors (unequal devices).
    """

    def __init__(self, aggregate: Aggregator, weighting: str) -> None:
        super().__init__(min_train_nodes=0, min_evaluate_nodes=0, min_available_nodes=0)
        self.aggregate, self.weighting = aggregate, weighting

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Combine the replies' arrays; the order of the replies does not matter."""
        updates, weights = {}, {}
        for reply in replies:
            node = reply.metadata.src_node_id
            arrays = reply.content.array_records["arrays"]
            updates[node] = {k: torch.from_numpy(a.numpy()) for k, a in arrays.items()}
            examples = reply.content.metric_records["metrics"]["num-examples"]
            weights[node] = float(examples) if self.weighting == "samples" else 1.0  # type: ignore[arg-type]
        combined = self.aggregate(updates, weights)
        return ArrayRecord({k: Array(t.numpy()) for k, t in combined.items()}), None


def make_strategy(config: RunConfig) -> Aggregating:
    """The strategy that `config` asks for."""
    aggregate = find_aggregator(find_method(config.method).aggregator)
    return Aggregating(aggregate, config.server.weighting)
