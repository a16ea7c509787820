"""Whether codec, privacy and faults suit the method and the server's strategy."""

from collections.abc import Sequence

from comigs.aggregation import everything, own_names
from comigs.config.experts import ExpertsConfig
from comigs.config.strategies import find_strategy
from comigs.errors import BadInput
from comigs.federation.run import Run
from comigs.messages.sparse import SPARSE
from comigs_server.combine.accountant import check_accountant
from comigs_server.fleet.secagg import threshold_of


def check_privacy(run: Run, experts: Sequence[ExpertsConfig], count: int, taking_part: int) -> None:
    """Refuse what cannot be combined.

    Args:
        experts: of each kind of client, in the layout of the method.
        count: of clients.
        taking_part: clients that train in a round.

    Raises:
        BadInput: which setting, and why.
    """
    config = run.config
    codec = config.payload.codec
    if codec in SPARSE and not run.aggregator.averages:
        raise BadInput(
            f"payload.codec is {codec!r}, but method {config.method!r} does not send "
            "back what it averages; use int8"
        )
    if config.payload.down != "none":
        _check_down(run, experts)
    if config.privacy.mechanism == "client":
        _check_mechanism(run, experts)
    if config.privacy.secure != "none":
        _check_secure(run, experts, taking_part)
    for client in config.faults.poisoned or []:
        if client >= count:
            raise BadInput(f"faults.poisoned has client {client}; there are 0..{count - 1}")


def _check_down(run: Run, experts: Sequence[ExpertsConfig]) -> None:
    """One difference for all clients, to tensors that all of them have."""
    start = f"payload.down is {run.config.payload.down!r}, which needs"
    rule = run.aggregator
    if rule.deliver is not own_names or rule.view is not everything or run.method.restarts:
        raise BadInput(
            f"{start} a method that sends the same tensors to all; {run.method.name!r} does not"
        )
    if len({(e.generalists, e.rank) for e in experts}) > 1:
        raise BadInput(
            f"{start} clients that share the same tensors; here they differ in experts.specialists "
            "or experts.rank"
        )


def _check_mechanism(run: Run, experts: Sequence[ExpertsConfig]) -> None:
    """A clipped plain mean over clients that all share the same tensors."""
    config, start = run.config, "privacy.mechanism is 'client', which needs"
    if not find_strategy(config.server.strategy).own_rule:
        raise BadInput(f"{start} server.strategy FedAvg; it is {config.server.strategy!r}")
    _check_mean(run, experts, start)
    if config.server.max_norm is not None and config.privacy.where == "server":
        raise BadInput(
            f"{start} server.max_norm null where the server cuts updates: it would leave some out "
            "for what their text makes of them; or privacy.where client"
        )
    if config.data.mixes:
        raise BadInput(
            f"{start} data.target in_distribution: with 'mixture' every client's router learns on "
            "everybody's validation text, so that one client's text moves the others' updates"
        )
    check_accountant()


def _check_secure(run: Run, experts: Sequence[ExpertsConfig], taking_part: int) -> None:
    """A plain sum of numbers of which the server sees none."""
    config = run.config
    start = f"privacy.secure is {config.privacy.secure!r}, which needs"
    if not find_strategy(config.server.strategy).of_means:
        raise BadInput(f"{start} a strategy of means; server.strategy is {config.server.strategy}")
    if config.payload.codec != "none":
        raise BadInput(f"{start} payload.codec none; it is {config.payload.codec!r}")
    if config.server.max_norm is not None:
        raise BadInput(f"{start} server.max_norm null, since the server sees no single update")
    if config.privacy.mechanism != "none":
        raise BadInput(f"{start} privacy.mechanism none: fixed point is not in its accounting yet")
    if config.ray.address is not None:
        raise BadInput(f"{start} clients that keep their folders; ray.address must be null")
    least = threshold_of(config.privacy, taking_part)
    if taking_part < least:
        raise BadInput(f"{start} {least} clients in a round; only {taking_part} take part")
    if 2 * least <= taking_part:
        raise BadInput(
            f"privacy.threshold is {least}; {taking_part} clients take part in a round, and "
            f"devices want more than half: at least {taking_part // 2 + 1}, or null"
        )
    _check_mean(run, experts, start)


def _check_mean(run: Run, experts: Sequence[ExpertsConfig], start: str) -> None:
    server, method = run.config.server, run.method
    if not run.aggregator.averages or not any(e.generalists for e in experts) or not method.trains:
        raise BadInput(f"{start} a method that averages; method {method.name!r} does not")
    if server.weighting != "uniform":
        raise BadInput(f"{start} server.weighting uniform; it is {server.weighting!r}")
    if server.late != "discard" or server.over_selection:
        raise BadInput(f"{start} server.late discard and server.over_selection 0")
    if len({(e.generalists, e.rank) for e in experts}) > 1:
        raise BadInput(
            f"{start} clients that share the same tensors; here they differ in experts.specialists "
            "or experts.rank"
        )
