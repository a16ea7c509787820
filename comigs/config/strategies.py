"""The table of the server's strategies: a new one is one row here.

The configuration, the checks, the traffic formula and `comigs_server.combine` read it; all but
FedAvg are classes of Flower's, ours, or of any installed package, by their path.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from comigs.errors import BadInput
from comigs.schema.bounds import shown
from comigs.schema.build import suggest

RATE, SHARE, COUNT = (1e-12, 1e6), (0.0, 0.999999), (0, 10**6)  # whole numbers: counts
ADAPTIVE = {"eta": RATE, "beta_1": SHARE, "beta_2": SHARE, "tau": RATE}


@dataclass(frozen=True)
class ServerStrategy:
    """How updates of clients that share the same tensors become the server's next tensors.

    Attributes:
        path: module and class of the strategy; empty: the rule of the method itself, which alone
            may combine clients of unequal shapes or ranks, and alone has a private mean.
        options: of `server.options`, with their least and greatest values; the class's other
            parameters belong to the round loop.
        memory: attributes that it carries from round to round.
        from_start: whether it needs the tensors of round 0, which clients then fetch.
        weighs: whether clients' weights change what it makes.
        of_means: whether a sum of the updates is all it needs, so that secure aggregation does.
        needs: (a, b): a round must have a * num_malicious_nodes + b clients.
        needs_always: whether that holds without malicious clients, too.
    """

    name: str
    path: str = ""
    options: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    memory: tuple[str, ...] = ()
    from_start: bool = False
    weighs: bool = True
    of_means: bool = True
    needs: tuple[int, int] = (0, 0)
    needs_always: bool = False

    @property
    def own_rule(self) -> bool:
        """Whether the method's own rule combines."""
        return not self.path

    def least_clients(self, bad: int) -> int:
        """Clients that a round must have where `bad` of them may be malicious."""
        return self.needs[0] * bad + self.needs[1] if bad or self.needs_always else 0

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Raise BadInput that names an option of another strategy, or out of its bounds."""
        for key, value in options.items():
            if key not in self.options:
                has = f"it has {', '.join(self.options)}" if self.options else "it has none"
                raise BadInput(
                    f"server.options has {key!r}, which {self.name} does not know; {has}",
                    "server.options",
                )
            least, most = self.options[key]
            whole = isinstance(most, int)
            number = isinstance(value, int if whole else (int, float))
            if not number or isinstance(value, bool) or not least <= value <= most:
                kind = "a whole number" if whole else "a number"
                raise BadInput(
                    f"server.options.{key} is {shown(value)}; it must be {kind} from {least:g} to "
                    f"{most:g}",
                    f"server.options.{key}",
                )


def _flower(name: str, options: Mapping[str, tuple[float, float]], **more: Any) -> ServerStrategy:
    return ServerStrategy(name, f"flwr.serverapp.strategy.{name}", options, **more)


STRATEGIES = {
    strategy.name: strategy
    for strategy in (
        ServerStrategy("FedAvg"),
        _flower("FedProx", {"proximal_mu": (0.0, 1e6)}),
        _flower("FedAdam", ADAPTIVE, memory=("m_t", "v_t"), from_start=True),
        _flower("FedYogi", ADAPTIVE, memory=("m_t", "v_t"), from_start=True),
        _flower(
            "FedAvgM",
            {"server_learning_rate": RATE, "server_momentum": SHARE},
            memory=("momentum_vector",),
            from_start=True,
        ),
        *(
            ServerStrategy(
                name,
                f"comigs_server.combine.fedhyper.{name}",
                memory=("change", "step"),
                from_start=True,
            )
            for name in ("FedHyper", "FedHyperSL")
        ),
        _flower("FedMedian", {}, weighs=False, of_means=False),
        _flower("FedTrimmedAvg", {"beta": (0.0, 0.499999)}, weighs=False, of_means=False),
        _flower(
            "Krum",
            {"num_malicious_nodes": COUNT},
            weighs=False,
            of_means=False,
            needs=(2, 3),
        ),
        _flower(
            "MultiKrum",
            {"num_malicious_nodes": COUNT, "num_nodes_to_select": (1, 10**6)},
            of_means=False,
            needs=(2, 3),
        ),
        _flower(
            "Bulyan",
            {"num_malicious_nodes": COUNT},
            weighs=False,
            of_means=False,
            needs=(4, 3),
            needs_always=True,
        ),
    )
}


def find_strategy(name: str) -> ServerStrategy:
    """Return a strategy by name.

    Raises:
        BadInput: when there is none of that name.
    """
    if name not in STRATEGIES:
        raise BadInput(
            f"server.strategy is {shown(name)}; expected {' or '.join(STRATEGIES)}"
            + suggest(name, STRATEGIES),
            "server.strategy",
        )
    return STRATEGIES[name]
