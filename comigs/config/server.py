"""The configuration's `server` and `engine` sections: rounds, and where clients run."""

from dataclasses import dataclass, field
from typing import Any, Literal

from comigs.config.strategies import find_strategy
from comigs.errors import BadInput
from comigs.schema.rules import at_least, positive, require


@dataclass(frozen=True)
class ServerConfig:
    strategy: str = "FedAvg"
    """Strategy for the shared tensors: FedAvg is the method's own rule, the others are Flower's."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of the strategy, e.g. {eta: 0.01}."""
    weighting: Literal["uniform", "samples"] = "uniform"
    """Weights of clients in the average."""
    max_share: float | None = 0.5
    """Of weighting samples: no client has a greater share of a round; null: any share."""
    min_clients: int = 1
    """A round with fewer answers stops the run."""
    round_timeout: float | None = None
    """Seconds that a client may take for a round; null: any time."""
    mode: Literal["sync", "buffered"] = "sync"
    """Rounds wait for their clients, or (buffered) a round is `buffer` arrivals, however old."""
    buffer: int | None = None
    """Of mode buffered: arrivals after which the server takes a step."""
    tiers: int | None = None
    """Edge aggregators between the devices and the server; null: none."""
    over_selection: float = 0.0
    """Extra share of clients that are asked; the first updates count."""
    deadline: float | None = None
    """Simulated seconds until a round closes; null: it waits for the slowest."""
    late: Literal["discard", "keep"] = "discard"
    """What becomes of late updates; kept ones count in the round they arrive in."""
    max_norm: float | None = None
    """A client whose update is longer (L2) fails the round; null: only absurd lengths do."""

    def __post_init__(self) -> None:
        find_strategy(self.strategy)
        if self.max_share is not None:
            require(
                0 < self.max_share <= 1, "server.max_share", self.max_share, "in (0, 1], or null"
            )
        at_least("server.min_clients", self.min_clients, 1)
        positive("server.round_timeout", self.round_timeout)
        at_least("server.over_selection", self.over_selection, 0)
        positive("server.deadline", self.deadline)
        positive("server.max_norm", self.max_norm)
        at_least("server.buffer", self.buffer, 1)
        at_least("server.tiers", self.tiers, 1)
        self._check_mode()

    def _check_mode(self) -> None:
        if self.mode == "sync":
            if self.buffer is not None:
                raise BadInput(
                    f"server.buffer is {self.buffer}, which needs server.mode buffered",
                    "server.buffer",
                )
            return
        if self.buffer is None:
            raise BadInput(
                "server.buffer is null; server.mode buffered needs the number of arrivals after "
                "which the server takes a step",
                "server.buffer",
            )
        if self.min_clients > self.buffer:
            raise BadInput(
                f"server.min_clients is {self.min_clients}; with server.mode buffered a round has "
                f"server.buffer ({self.buffer}) updates",
                "server.min_clients",
            )
        for key, default in (("over_selection", 0.0), ("deadline", None), ("late", "discard")):
            if (value := getattr(self, key)) != default:
                raise BadInput(
                    f"server.{key} is {value!r}, which needs server.mode sync: in mode buffered no "
                    "update is late",
                    f"server.{key}",
                )


@dataclass(frozen=True)
class EngineConfig:
    name: Literal["inline", "ray", "flower", "auto"] = "inline"
    """Where clients run: this process, worker processes (ray; auto: if sooner), real devices."""
    workers: int | None = None
    """Processes of the ray engine; null: one for each core."""
    fuse: int | Literal["auto"] = "auto"
    """Clients of equal shape that train in one pass, at most; auto: several if many and small."""

    def __post_init__(self) -> None:
        at_least("engine.workers", self.workers, 1)
        if self.fuse != "auto":
            at_least("engine.fuse", self.fuse, 1)
        if self.fuse not in ("auto", 1) and self.name == "flower":
            raise BadInput(
                f"engine.fuse is {self.fuse}; a device has one client: it works with engine.name "
                "inline or ray",
                "engine.fuse",
            )
