"""Whether codec, privacy and faults suit the method and the server's strategy."""

from collections.abc import Sequence

from comigs.accountant import check_accountant
from comigs.config import ExpertsConfig, RunConfig
from comigs.errors import BadInput
from comigs.methods import find_method


def check_privacy(config: RunConfig, experts: Sequence[ExpertsConfig]) -> None:
    """Refuse what cannot be combined.

    Args:
        experts: of each client, in the layout of the method.

    Raises:
        BadInput: which setting, and why.
    """
    averages = find_method(config.method).aggregator == "mean"
    if config.payload.codec == "topk-int8" and not averages:
        raise BadInput(
            f"payload.codec is 'topk-int8', but method {config.method!r} does not send back what "
            "it averages; use int8"
        )
    if config.privacy.mechanism == "client":
        _check_mechanism(config, experts)
    for client in config.faults.poisoned or []:
        if client >= len(experts):
            raise BadInput(f"faults.poisoned has client {client}; there are 0..{len(experts) - 1}")


def _check_mechanism(config: RunConfig, experts: Sequence[ExpertsConfig]) -> None:
    """A clipped plain mean over clients that all share the same tensors."""
    start, server, method = (
        "privacy.mechanism is 'client', which needs",
        config.server,
        config.method,
    )
    kind = find_method(method)
    if kind.aggregator != "mean" or not any(e.generalists for e in experts) or not kind.trains:
        raise BadInput(f"{start} a method that averages; method {method!r} does not")
    if server.strategy != "FedAvg":
        raise BadInput(f"{start} server.strategy FedAvg; it is {server.strategy!r}")
    if server.weighting != "uniform":
        raise BadInput(f"{start} server.weighting uniform; it is {server.weighting!r}")
    if server.late != "discard" or server.over_selection:
        raise BadInput(f"{start} server.late discard and server.over_selection 0")
    if len({(e.generalists, e.rank) for e in experts}) > 1:
        raise BadInput(
            f"{start} clients that share the same tensors; here they differ in experts.specialists "
            "or experts.rank"
        )
    check_accountant()
