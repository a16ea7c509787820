"""What a method is: a share mask, an aggregator, a way to personalise, and how its parts train."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

from comigs.config.experts import ExpertsConfig
from comigs.config.settings import RunConfig

if TYPE_CHECKING:  # listing the methods must not wait for torch
    from torch import Tensor, nn

    from comigs.methods.arrival import Arrival

    Tensors = Mapping[str, Tensor]


Shapes = Mapping[str, tuple[int, ...]]


def generalists(name: str) -> bool:
    """Share mask: generalist experts, with the attention LoRA that belongs to the first."""
    return ".generalist_" in name


def everything(name: str) -> bool:
    return True


def nothing(name: str) -> bool:
    return False


def as_configured(experts: ExpertsConfig) -> ExpertsConfig:
    return experts


def all_generalists(experts: ExpertsConfig) -> ExpertsConfig:
    """The same number of experts, every one of them a generalist."""
    return replace(experts, generalists=experts.total, specialists=0)


def all_specialists(experts: ExpertsConfig) -> ExpertsConfig:
    """The same number of experts, every one of them a specialist."""
    return replace(experts, generalists=0, specialists=experts.total)


def unrouted_generalists(experts: ExpertsConfig) -> ExpertsConfig:
    """Generalists whose outputs are averaged without a router."""
    return replace(all_generalists(experts), routed=False)


def unrouted_specialists(experts: ExpertsConfig) -> ExpertsConfig:
    """Specialists whose outputs are averaged without a router."""
    return replace(all_specialists(experts), routed=False)


def without_dropout(config: RunConfig, experts: Sequence[ExpertsConfig]) -> str | None:
    """Corrections of the base weights pass no LoRA dropout."""
    return "experts.dropout must be 0" if config.experts.dropout else None


def same_experts(config: RunConfig, experts: Sequence[ExpertsConfig]) -> str | None:
    """Whole models are mixed, so that all must have the same shape."""
    if len({(e.generalists, e.specialists, e.rank) for e in experts}) > 1:
        return "every client must have the same number of experts and the same rank"
    return None


class Travels(NamedTuple):
    """What travels between a client and the server: its update, and the shared tensors to it."""

    up: bool
    down: bool


def one_of_each(config: RunConfig, experts: Sequence[ExpertsConfig]) -> str | None:
    """There is one expert that is shared and one that is not."""
    if any((e.generalists, e.specialists) != (1, 1) for e in experts):
        return "experts.generalists and experts.specialists must be 1"
    return None


@dataclass(frozen=True)
class Within:
    """A phase in which one expert trains while all of them run."""

    expert: str


@dataclass(frozen=True)
class Twin:
    """That a device trains two models of one shape in turn: a global one w, and one of its own.

    Local steps 1, 3, 5, ... of a run train w, which travels; those between train the other, which
    the device predicts with. That is alpha v + (1 - alpha) w; where alpha is 1 for ever, v itself.

    Attributes:
        alpha: at the start.
        mix: given alpha, v, w and the gradient at alpha v + (1 - alpha) w, the next alpha; None
            where it stays 1.
    """

    alpha: float = 1.0
    mix: "Callable[[float, Tensors, Tensors, Tensors], float] | None" = None


GLOBAL, LOCAL = "global/", "local/"  # before the names of w and v in `Arrival.tensors`
ALPHA = "alpha"  # in `Arrival.kept`


def pull(strength: float, parameters: "Mapping[str, nn.Parameter]", towards: "Tensors") -> "Tensor":
    """strength / 2 ||theta - towards||^2 over the trained tensors."""
    import torch

    gaps = [(tensor - towards[name]).square().sum() for name, tensor in parameters.items()]
    return strength / 2 * torch.stack(gaps).sum()


def mixture(alpha: float, own: "Tensors", shared: "Tensors") -> "dict[str, Tensor]":
    """alpha v + (1 - alpha) w."""
    import torch

    return {name: torch.lerp(shared[name], v, alpha) for name, v in own.items()}


@dataclass(frozen=True)
class Method:
    """One row of the comparison.

    Attributes:
        name: as in `method: <name>`.
        paper: where it comes from.
        summary: one line for `comigs methods`.
        shares: share mask: does the tensor of this name travel? (names: `comigs.mixture.adapters`)
        aggregator: file in comigs/aggregation that combines what travels.
        experts: maps the configured experts of one client to the method's layout.
        trains: whether anything is trained.
        pooled: whether everybody's text is trained on in one place.
        learns: which tensors are trained at all; the others keep their start.
        router: how routers learn: as `router.*` says, in the same way but on training text, or
            jointly with the experts, in the same steps.
        phases: what the local steps train in turn: one expert alone, one within the mixture, or
            (None) the whole mixture.
        twin: whether each device trains a global model in turn with its own (router: joint).
        receive: puts what the server sent into the client's model, before a round and at the end;
            None to copy it. Returns metrics.
        tells: whether `receive` returns the metric of peers where `log.metrics` asks for it.
        finish: personalises the final model once more, at the very end.
        restarts: whether a client begins a new LoRA in every round in which something arrives.
        rests: given what the method keeps and the round that ends, whether the client's update
            travels, and whether what the server sends for the next round does; None: always.
        peers: whether each device evaluates every other's model on its validation text in a round.
        looks: tokens of its own text that a device evaluates, besides, before a round.
        studies: of all tensors' names, those whose gradient every such look takes.
        counts: whether it is counted how often tokens of expert steps choose each expert.
        besides: given the shapes of a client's shared tensors, by name, those of what travels up
            beside them: tensors that `receive` or training (`counts`) left in `Arrival.tensors`,
            or else 0.
        feedback: whether what a codec did not send of an update still means the same in the next
            round, so that it is added there; not where the server changes the basis, or where an
            update is the difference to the client's own last one and makes up for it anyway.
        penalty: added to the loss of expert steps; given the trained tensors by name, and what
            the shared ones of all clients are measured from in this round: what the server sent,
            or the common start.
        prune: given a round's received and trained tensors, both of the client's present rank and
            scale, the rank from now on.
        accepts: given the experts of each kind of client, why the method's mathematics does not
            allow a configuration; None if it does.
    """

    name: str
    paper: str
    summary: str
    shares: Callable[[str], bool] = generalists
    aggregator: str = "mean"
    experts: Callable[[ExpertsConfig], ExpertsConfig] = as_configured
    trains: bool = True
    pooled: bool = False
    learns: Callable[[str], bool] = everything
    router: Literal["configured", "train", "joint"] = "configured"
    phases: tuple[str | Within | None, ...] = (None,)
    twin: Twin | None = None
    receive: "Callable[[Arrival], dict[str, float]] | None" = None
    tells: bool = False
    finish: "Callable[[Arrival], dict[str, float]] | None" = None
    restarts: bool = False
    rests: Callable[[Mapping[str, float], int], Travels] | None = None
    peers: bool = False
    looks: Callable[[RunConfig], int] = lambda config: 0
    studies: Callable[[Iterable[str]], Collection[str]] = lambda names: ()
    counts: bool = False
    besides: Callable[[Shapes], Shapes] = lambda shapes: {}
    feedback: bool = True
    penalty: "Callable[[Mapping[str, nn.Parameter], Tensors], Tensor] | None" = None
    prune: "Callable[[Tensors, Tensors], int] | None" = None
    accepts: Callable[[RunConfig, Sequence[ExpertsConfig]], str | None] = lambda config, all: None

    def travelling(self, tensors: Shapes) -> dict[str, tuple[int, ...]]:
        """Of a client's tensors, by shape, what an update holds: those shared, and `besides`."""
        shared = {name: shape for name, shape in tensors.items() if self.shares(name)}
        return shared | dict(self.besides(shared))
