"""How the server combines a round's updates: the method's own rule, or a strategy of Flower's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from torch import Tensor

from comigs.aggregation import Tensors
from comigs.config.strategies import find_strategy
from comigs.federation.run import Run
from comigs.mixture.ranks import lora_scale
from comigs.threads import threads
from comigs_server.combine.flower import FlowerRule
from comigs_server.combine.privacy import private_mean
from comigs_server.fleet.update import Update


class Rule(Protocol):
    """Combines the updates of a round, whatever order they came in."""

    def tells(self, number: int, kept: Tensors, nodes: Sequence[int]) -> Mapping[str, Any]:
        """What each client is told about round `number`, beside its order.

        Args:
            kept: the server's tensors that the round begins from.
            nodes: Flower's ids of the clients that take part.
        """

    def combine(self, number: int, updates: Sequence[Update], kept: Tensors) -> dict[str, Tensor]:
        """The server's tensors after the round.

        Raises:
            ComigsError: the updates cannot be combined.
        """

    def memory(self) -> dict[str, Tensor]:
        """What it must still know in the next round, for the server's checkpoint."""

    def restore(self, memory: Tensors) -> None:
        """Put back what `memory` returned."""


def make_rule(run: Run, secret: str = "") -> Rule:
    """The rule that the run asks for (checked by `comigs_server.checks.strategy`).

    Args:
        secret: of the server, for a private mean.
    """
    config = run.config
    strategy = find_strategy(config.server.strategy)
    if config.privacy.mechanism == "client":
        return PrivateMean(run, secret)
    if strategy.own_rule:
        return MethodsRule(run)
    return FlowerRule(strategy, config.server.options)


class _Forgetful:
    """A pure function of the round: it tells nothing more, and keeps nothing."""

    def tells(self, number: int, kept: Tensors, nodes: Sequence[int]) -> Mapping[str, Any]:
        return {}

    def memory(self) -> dict[str, Tensor]:
        return {}

    def restore(self, memory: Tensors) -> None:
        pass


@dataclass
class MethodsRule(_Forgetful):
    """The aggregator of the method."""

    run: Run

    def combine(self, number: int, updates: Sequence[Update], kept: Tensors) -> dict[str, Tensor]:
        scale = partial(lora_scale, self.run.config.experts)
        tensors = {update.client: update.tensors for update in updates}
        weights = {update.client: update.weight for update in updates}
        with threads(1):  # the same bits whatever engine the server runs beside
            return self.run.aggregator.combine(tensors, weights, scale, kept)


@dataclass
class PrivateMean(_Forgetful):
    """The mean with client-level differential privacy."""

    run: Run
    secret: str

    def combine(self, number: int, updates: Sequence[Update], kept: Tensors) -> dict[str, Tensor]:
        tensors = {update.client: update.tensors for update in updates}
        with threads(1):  # the same bits whatever engine the server runs beside
            return private_mean(self.run, number, tensors, kept, self.secret)
