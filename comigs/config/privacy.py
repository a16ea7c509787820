"""The configuration's `payload`, `privacy` and `faults` sections: what becomes of what travels."""

from dataclasses import dataclass
from typing import Literal

from comigs.schema.rules import at_least, each_once, positive, require

Codec = Literal["none", "bf16", "int8", "topk-int8", "int8-topk", "topk-int4", "int4-topk"]


@dataclass(frozen=True)
class PayloadConfig:
    """How what travels is packed (`comigs.messages.codecs`)."""

    codec: Codec = "none"
    """How an update is packed."""
    keep: float = 0.1
    """Of codecs with topk: share of each tensor's elements that is sent."""
    down: Literal["none", "bf16", "int8"] = "none"
    """How the server's answer is packed, for clients that have what it sent a round before."""

    def __post_init__(self) -> None:
        require(0 < self.keep <= 1, "payload.keep", self.keep, "in (0, 1]")

    @property
    def downward(self) -> "PayloadConfig":
        """The same for what the server sends."""
        return PayloadConfig(self.down)


@dataclass(frozen=True)
class PrivacyConfig:
    """Differential privacy of the shared tensors, client by client, or a sum under masks."""

    mechanism: Literal["none", "client"] = "none"
    """Differential privacy of the shared tensors; client: DP-FedAvg."""
    clip: float = 1.0
    """L2 norm that a client's update is cut to."""
    noise: float = 1.0
    """Multiplier: the mean of n updates gets noise of std noise * clip / n."""
    delta: float = 1e-5
    """Delta at which epsilon is told."""
    where: Literal["server", "client"] = "server"
    """Where updates are cut; client: on the device, too, before it sends."""
    secure: Literal["none", "secagg"] = "none"
    """Secure aggregation; secagg: the server learns only the sum of updates."""
    range: float = 4.0
    """Of secagg: a client with an element beyond it in its update fails."""
    threshold: int | None = None
    """Of secagg: clients that must stay to the end; null: more than half."""

    def __post_init__(self) -> None:
        for key, value in {"clip": self.clip, "range": self.range}.items():
            require(1e-9 <= value <= 1e9, f"privacy.{key}", value, "between 1e-9 and 1e9")
        good = self.noise == 0 or 1e-3 <= self.noise <= 1e6
        require(good, "privacy.noise", self.noise, "0, or between 0.001 and 1e6")
        at_least("privacy.threshold", self.threshold, 2)
        require(1e-15 <= self.delta < 1, "privacy.delta", self.delta, "from 1e-15 up, and below 1")


@dataclass(frozen=True)
class FaultsConfig:
    """Clients of a simulation that send poison (`comigs.local.faults`)."""

    poisoned: list[int] | None = None
    """Ids of clients that send poison; null: none."""
    kind: Literal["noise", "flip"] = "flip"
    """The poison: random, or the update turned round."""
    scale: float = 10.0
    """Norm of the poison, in norms of the client's update."""

    def __post_init__(self) -> None:
        at_least("faults.poisoned", self.poisoned, 0)
        each_once("faults.poisoned", self.poisoned)
        positive("faults.scale", self.scale)
