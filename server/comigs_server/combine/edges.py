"""Means of means (`server.tiers`): each edge sends the server one mean, with the weight of all."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from comigs.aggregation import Tensors
from comigs.aggregation.mean import weighted_mean
from comigs.federation.edges import edges_of
from comigs.federation.run import Run
from comigs.threads import threads
from comigs_server.combine.rule import Rule
from comigs_server.fleet.update import Update


class AtEdges:
    """A rule of means behind edges.

    Args:
        rule: combines what the edges send, as if they were clients.
    """

    def __init__(self, run: Run, rule: Rule) -> None:
        self._run, self._rule = run, rule

    def tells(self, number: int, kept: Tensors, nodes: Sequence[int]) -> Mapping[str, Any]:
        return self._rule.tells(number, kept, nodes)

    def combine(self, number: int, updates: Sequence[Update], kept: Tensors) -> dict[str, Tensor]:
        return self._rule.combine(number, means_at_edges(self._run, updates), kept)

    def memory(self) -> dict[str, Tensor]:
        return self._rule.memory()

    def restore(self, memory: Tensors) -> None:
        self._rule.restore(memory)


def means_at_edges(run: Run, updates: Sequence[Update]) -> list[Update]:
    """Of each edge the mean of its clients' updates, in float32 as it travels, and their weight.

    Args:
        updates: all of the same tensors.
    """
    of, means = {update.client: update for update in updates}, []
    with threads(1):  # the same bits whatever engine the server runs beside
        for edge, members in sorted(edges_of(run, of).items()):
            weights = {i: of[i].weight for i in members}
            tensors = {
                name: weighted_mean({i: of[i].tensors[name] for i in members}, weights)
                for name in of[members[0]].tensors
            }
            means.append(Update(edge, tensors, sum(weights.values())))
    return means
