"""The configuration's `experts` and `router` sections: the mixture of a client."""

from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

from comigs.config.model import PerClient, own
from comigs.errors import BadInput
from comigs.schema.rules import at_least, positive, require


@dataclass(frozen=True)
class ExpertsConfig:
    generalists: int = 1
    """Experts that the server averages over clients."""
    specialists: PerClient = 1
    """Experts that stay on the client. One value, or one for each client."""
    top_k: PerClient = 2
    """Experts that a token goes to. One value, or one for each client."""
    rank: PerClient = 8
    """LoRA rank r. One value, or one for each client."""
    alpha: float = 16.0
    """LoRA's alpha."""
    scaling: Literal["rslora", "standard"] = "rslora"
    """Factor of a LoRA's output: alpha / sqrt(r) for rslora, alpha / r for standard."""
    dropout: float = 0.0
    """Dropout on the input of each LoRA, in training."""
    routed: bool = True
    """Whether there is a router; without one every expert has weight 1/E."""
    router: str = "linear"
    """Kind of router: a file of comigs/mixture/routers."""
    native: bool = False
    """In models with native experts and no dense MLP: on every one of those (see docs/extend)."""

    def __post_init__(self) -> None:
        at_least("experts.generalists", self.generalists, 0)
        at_least("experts.specialists", self.specialists, 0)
        at_least("experts.rank", self.rank, 1)
        positive("experts.alpha", self.alpha)
        require(0 <= self.dropout < 1, "experts.dropout", self.dropout, "in [0, 1)")
        at_least("experts.top_k", self.top_k, 1)
        counts, chosen = (
            each if isinstance(each, list) else [each] for each in (self.specialists, self.top_k)
        )
        if len(counts) == 1 or len(chosen) == 1:
            pairs = list(product(counts, chosen))
        else:
            pairs = list(zip(counts, chosen, strict=False))  # lengths: `RunConfig`
        for specialists, top_k in pairs:
            total = self.generalists + specialists
            require(total >= 1, "experts.generalists + specialists", total, "at least 1")
            if total > 1 and top_k > total:
                raise BadInput(
                    f"experts.top_k is {top_k}; a client has only {total} experts",
                    "experts.top_k",
                )

    def for_client(self, client: int) -> "ExpertsConfig":
        """The experts of one client, with plain numbers."""
        return replace(
            self,
            specialists=own(self.specialists, client),
            top_k=own(self.top_k, client),
            rank=own(self.rank, client),
        )

    @property
    def total(self) -> int:
        """Experts of one client (call `for_client` first)."""
        assert isinstance(self.specialists, int)
        return self.generalists + self.specialists


@dataclass(frozen=True)
class Routes:
    """What a model's routers are built by, beside their kind (`RouterConfig.routes`)."""

    unit: Literal["token", "sequence"] = "token"
    scope: Literal["layer", "global"] = "layer"
    temperature: float = 1.0


PLAIN = Routes()
"""Each token in each layer."""


@dataclass(frozen=True)
class RouterConfig:
    unit: Literal["token", "sequence"] = "token"
    """What is routed: each token, or what its example holds up to it (the mean of the logits)."""
    scope: Literal["layer", "global"] = "layer"
    """Who decides: a router in each layer, or that of the first one for all."""
    temperature: float = 1.0
    """Logits are divided by it: experts have more equal weights above 1, less equal ones below."""
    trainable: bool = True
    """Whether routers learn; otherwise they stay as drawn."""
    every: int = 30
    """Local steps between router updates, counted over all rounds (tau)."""
    steps: int = 10
    """Router steps of an update."""
    data: Literal["valid", "train"] = "valid"
    """Text that routers learn on."""
    lr: float | None = None
    """Learning rate of routers, constant; null: that of train.lr."""
    grad: Literal["alternating", "first_order"] = "alternating"
    """Gradient of the upper level: alternating minimisation, or first order (see docs/methods)."""
    nu: float = 0.1
    """Of first_order: weight of the validation loss in the inner problem."""
    inner_steps: int = 3
    """Of first_order: steps of the inner problem."""
    balance: float = 0.01
    """Weight of the balance loss (lambda)."""
    generalist_importance: float = 0.5
    """Share of the load meant for the first expert (iota)."""

    def __post_init__(self) -> None:
        good = 0.001 <= self.temperature <= 1000
        require(good, "router.temperature", self.temperature, "from 0.001 to 1000")
        at_least("router.every", self.every, 1)
        at_least("router.steps", self.steps, 1)
        positive("router.lr", self.lr)
        positive("router.nu", self.nu)
        at_least("router.inner_steps", self.inner_steps, 1)
        at_least("router.balance", self.balance, 0)
        iota = self.generalist_importance
        require(0 < iota < 1, "router.generalist_importance", iota, "between 0 and 1")

    @property
    def routes(self) -> Routes:
        return Routes(self.unit, self.scope, self.temperature)
