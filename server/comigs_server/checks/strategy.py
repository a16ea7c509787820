"""Whether the server's strategy suits the method and its clients."""

from collections.abc import Sequence

from comigs.config.experts import ExpertsConfig
from comigs.config.strategies import find_strategy
from comigs.errors import BadInput
from comigs.federation.run import Run
from comigs_server.combine.rule import make_rule


def check_strategy(run: Run, experts: Sequence[ExpertsConfig], taking_part: int) -> None:
    """Refuse what the strategy cannot do.

    Args:
        experts: of each kind of client, in the layout of the method.
        taking_part: clients that train in a round.

    Raises:
        BadInput: which setting, and why.
    """
    strategy, options = find_strategy(run.config.server.strategy), run.config.server.options
    strategy.check_options(options)
    if run.config.server.weighting != "uniform" and not (run.aggregator.weighs and strategy.weighs):
        what = f"method {run.method.name!r}" if strategy.own_rule else strategy.name
        raise BadInput(
            f"server.weighting is {run.config.server.weighting!r}, but to {what} all clients count "
            "alike; leave it at uniform",
            "server.weighting",
        )
    if strategy.own_rule:
        return
    start = f"server.strategy is {strategy.name!r}"
    method = run.method
    if not run.aggregator.averages:
        raise BadInput(
            f"{start}, but method {method.name!r} combines updates in its own way; leave it at "
            "FedAvg"
        )
    if not any(e.generalists for e in experts) or not method.trains:
        raise BadInput(f"{start}, but method {method.name!r} shares nothing")
    if len({(e.generalists, e.rank) for e in experts}) > 1:
        raise BadInput(
            f"{start}, which needs clients that share the same tensors; here they differ in "
            "experts.specialists or experts.rank"
        )
    bad = options.get("num_malicious_nodes", 0)
    if taking_part < (least := strategy.least_clients(bad)):
        raise BadInput(
            f"server.strategy {strategy.name} with num_malicious_nodes {bad} needs {least} clients "
            f"in a round; only {taking_part} take part"
        )
    if (chosen := options.get("num_nodes_to_select", 1)) > taking_part:
        raise BadInput(
            f"server.options.num_nodes_to_select is {chosen}; only {taking_part} clients take part "
            "in a round"
        )
    try:
        make_rule(run)
    except (TypeError, ValueError) as error:
        raise BadInput(f"server.options does not suit {strategy.name}: {error}") from None
