"""The Flower strategy of a run: the method's own aggregator, or one of Flower's strategies."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import flwr.serverapp.strategy as flower
import torch
from flwr.app import ArrayRecord, Message, MetricRecord
from flwr.serverapp.strategy import FedAvg
from torch import Tensor

from comigs.aggregation import Tensors, Updates, find_aggregator
from comigs.config.bounds import shown
from comigs.config.settings import ExpertsConfig, RunConfig
from comigs.errors import BadInput
from comigs.methods import find_method
from comigs.mixture.ranks import lora_scale
from comigs_server.combine.privacy import private_mean
from comigs_server.fleet.exchange import pack, unpack

RATE, SHARE, COUNT = (1e-12, 1e6), (0.0, 0.999999), (0, 10**6)  # whole numbers: counts
OPTIONS: dict[str, dict[str, tuple[float, float]]] = {
    # of `server.options`, with their least and greatest values; Flower's other parameters belong to
    # the round loop
    "FedAvg": {},
    "FedProx": {"proximal_mu": (0.0, 1e6)},
    "FedAdam": {"eta": RATE, "beta_1": SHARE, "beta_2": SHARE, "tau": RATE},
    "FedYogi": {"eta": RATE, "beta_1": SHARE, "beta_2": SHARE, "tau": RATE},
    "FedAvgM": {"server_learning_rate": RATE, "server_momentum": SHARE},
    "FedMedian": {},
    "FedTrimmedAvg": {"beta": (0.0, 0.499999)},
    "Krum": {"num_malicious_nodes": COUNT},
    "MultiKrum": {"num_malicious_nodes": COUNT, "num_nodes_to_select": (1, 10**6)},
    "Bulyan": {"num_malicious_nodes": COUNT},
}
NEEDED = {"Krum": (2, 3), "MultiKrum": (2, 3), "Bulyan": (4, 3)}  # a bad + b clients in a round
_LOOPS: dict[str, Any] = {"min_train_nodes": 0, "min_evaluate_nodes": 0, "min_available_nodes": 0}
# A pure function of the round, the updates, their weights and what the server has kept so far.
Combine = Callable[[int, Updates, Mapping[int, float], Tensors], dict[str, Tensor]]
_MEMORY = ("m_t", "v_t", "momentum_vector")  # what a strategy carries from round to round


class Aggregating(FedAvg):
    """FedAvg whose combination of the clients' arrays is a pure function.

    Unlike Flower's, it accepts clients that share different tensors (unequal devices).
    """

    def __init__(self, combine: Combine) -> None:
        super().__init__(**_LOOPS)
        self.combine = combine
        self.kept: Mapping[str, Tensor] = {}

    def configure_train(self, server_round, arrays, config, grid):  # type: ignore[no-untyped-def]
        """Remember what the server has kept; what each client gets of it is `address`'s work."""
        self.kept = unpack(arrays)
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Combine the replies' arrays; the order of the replies does not matter."""
        updates, weights = {}, {}
        for reply in replies:
            metrics = reply.content.metric_records["metrics"]
            client = int(metrics["client"])  # type: ignore[arg-type]
            updates[client] = unpack(reply.content.array_records["arrays"])
            weights[client] = float(metrics["weight"])  # type: ignore[arg-type]
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # the same bits whatever engine the server runs beside
        try:
            return pack(self.combine(server_round, updates, weights, self.kept)), None
        finally:
            torch.set_num_threads(threads)


def make_strategy(config: RunConfig, secret: str = "") -> FedAvg:
    """The strategy that `config` asks for (checked by `check_strategy`).

    Args:
        secret: of the server, for a private mean.
    """
    if config.privacy.mechanism == "client":
        return Aggregating(
            lambda number, sent, _, kept: private_mean(config, number, sent, kept, secret)
        )
    if config.server.strategy == "FedAvg":
        combine = find_aggregator(find_method(config.method).aggregator).combine
        scale = partial(lora_scale, config.experts)
        return Aggregating(lambda _, updates, weights, kept: combine(updates, weights, scale, kept))
    kind = getattr(flower, config.server.strategy)
    return kind(**_LOOPS, weighted_by_key="weight", **config.server.options)


def check_strategy(config: RunConfig, experts: Sequence[ExpertsConfig], taking_part: int) -> None:
    """Refuse what the strategy cannot do.

    Args:
        experts: of each client, in the layout of the method.
        taking_part: clients that train in a round.

    Raises:
        BadInput: which setting, and why.
    """
    name, options = config.server.strategy, config.server.options
    known = OPTIONS[name]
    for key, value in options.items():
        if key not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise BadInput(f"server.options has {key!r}, which {name} does not know; {has}")
        _check_option(key, value, *known[key])
    if name == "FedAvg":
        return
    if find_method(config.method).aggregator != "mean":
        raise BadInput(
            f"server.strategy is {name!r}, but method {config.method!r} combines updates in its "
            "own way; leave it at FedAvg"
        )
    if not any(e.generalists for e in experts) or not find_method(config.method).trains:
        raise BadInput(f"server.strategy is {name!r}, but method {config.method!r} shares nothing")
    if len({(e.generalists, e.rank) for e in experts}) > 1:
        raise BadInput(
            f"server.strategy is {name!r}, which needs clients that share the same tensors; "
            "here they differ in experts.specialists or experts.rank"
        )
    bad = options.get("num_malicious_nodes", 0)
    times, more = NEEDED.get(name, (0, 0))
    if (bad or name == "Bulyan") and taking_part < times * bad + more:
        raise BadInput(
            f"server.strategy {name} with num_malicious_nodes {bad} needs {times * bad + more} "
            f"clients in a round; only {taking_part} take part"
        )
    if (chosen := options.get("num_nodes_to_select", 1)) > taking_part:
        raise BadInput(
            f"server.options.num_nodes_to_select is {chosen}; only {taking_part} clients take part "
            "in a round"
        )
    try:
        make_strategy(config)
    except (TypeError, ValueError) as error:
        raise BadInput(f"server.options does not suit {name}: {error}") from None


def _check_option(key: str, value: Any, least: float, most: float) -> None:
    whole = isinstance(most, int)
    number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not (number and least <= value <= most):
        kind = "a whole number" if whole else "a number"
        raise BadInput(
            f"server.options.{key} is {shown(value)}; it must be {kind} from {least:g} to {most:g}"
        )


def strategy_memory(strategy: FedAvg) -> dict[str, Tensor]:
    """What `strategy` must still know in the next round, for the server's checkpoint."""
    tensors: dict[str, Tensor] = {}
    for part in _MEMORY:
        held: Any = getattr(strategy, part, None) or {}
        named = held.items() if isinstance(held, dict) else enumerate(held)
        tensors |= {f"{part}/{key}": torch.from_numpy(value.copy()) for key, value in named}
    return tensors


def restore_memory(strategy: FedAvg, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `strategy_memory` returned."""
    for part in _MEMORY:
        mine = {n.split("/", 1)[1]: t.numpy() for n, t in tensors.items() if n.startswith(part)}
        if mine and part == "momentum_vector":
            setattr(strategy, part, [mine[str(i)] for i in range(len(mine))])
        elif mine:
            setattr(strategy, part, mine)
