"""Whether rounds may overlap (`server.mode` buffered), or have edges (`server.tiers`)."""

from collections.abc import Sequence

from comigs.config.experts import ExpertsConfig
from comigs.config.settings import RunConfig
from comigs.config.strategies import find_strategy
from comigs.errors import BadInput
from comigs.federation.run import Run


def check_tiers(run: Run, experts: Sequence[ExpertsConfig], count: int) -> None:
    """Refuse what edges cannot do: they make a mean of updates that have the same tensors.

    Args:
        experts: of each kind of client, in the layout of the method.
        count: of clients.

    Raises:
        BadInput: which setting does not go with edges, and why.
    """
    config, method, tiers = run.config, run.method, run.config.server.tiers
    if tiers is None:
        return
    start = f"server.tiers is {tiers}, which needs"
    if tiers > count:
        raise BadInput(f"server.tiers is {tiers}; there are {count} clients")
    _check_shares(run, experts, start)
    if not run.aggregator.averages or run.may_rest:
        raise BadInput(
            f"{start} a method whose clients all send what is averaged; method {method.name!r} "
            "combines updates in another way"
        )
    if len({(e.generalists, e.rank) for e in experts}) > 1:
        raise BadInput(
            f"{start} clients that share the same tensors; here they differ in experts.specialists "
            "or experts.rank"
        )
    _check_means(run, start)
    others = {
        "server.mode": (config.server.mode, "sync"),
        "server.late": (config.server.late, "discard"),
        "privacy.mechanism": (config.privacy.mechanism, "none"),
        "privacy.secure": (config.privacy.secure, "none"),
    }
    for key, (value, needed) in others.items():
        if value != needed:
            raise BadInput(f"{start} {key} {needed}; it is {value!r}")


def check_mode(run: Run, experts: Sequence[ExpertsConfig], at_work: int) -> int:
    """How many updates a buffered round combines.

    Args:
        experts: of each kind of client, in the layout of the method.
        at_work: clients that are at work at once.

    Raises:
        BadInput: which setting does not go with buffered rounds, and why.
    """
    config, method = run.config, run.method
    start = "server.mode is 'buffered', which needs"
    _check_shares(run, experts, start)
    if not run.aggregator.averages or method.restarts:
        raise BadInput(
            f"{start} a method that averages; method {method.name!r} combines updates of one and "
            "the same round in its own way"
        )
    _check_means(run, start)
    if config.privacy.mechanism != "none":
        raise BadInput(
            f"{start} privacy.mechanism none: how often a client counts depends on its speed, "
            "which no accountant here knows"
        )
    if config.privacy.secure != "none":
        raise BadInput(
            f"{start} privacy.secure none: masks cancel only between clients of one round"
        )
    buffer = config.server.buffer or 1
    if buffer > at_work:
        raise BadInput(
            f"server.buffer is {buffer}; only {at_work} clients are at work at once (participation)"
        )
    return buffer


def check_arrivals(config: RunConfig) -> None:
    """Refuse, behind a SuperLink, what needs the arrivals of simulated time.

    Raises:
        BadInput: which setting does not go with arrivals of real time, and why.
    """
    start = "server.mode is 'buffered', and with engine.name flower devices arrive in their own"
    if config.devices.profiles:
        raise BadInput(f"{start} time: devices.profiles must be null, not that of simulated ones")
    if config.stop.patience is not None:
        raise BadInput(
            f"{start} order: stop.patience is {config.stop.patience}, but what they tell is of the "
            "models of different rounds; set it to null"
        )


def _check_shares(run: Run, experts: Sequence[ExpertsConfig], start: str) -> None:
    method = run.method
    if method.pooled or not method.trains or not any(e.generalists for e in experts):
        raise BadInput(f"{start} a method that shares something; method {method.name!r} does not")


def _check_means(run: Run, start: str) -> None:
    strategy = run.config.server.strategy
    if not find_strategy(strategy).of_means:
        raise BadInput(f"{start} a strategy of means; server.strategy is {strategy!r}")
