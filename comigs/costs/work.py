"""What one client's training costs, before anything is loaded: parameters and FLOPs."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from statistics import mean
from typing import cast

from comigs.config.experts import ExpertsConfig, RouterConfig
from comigs.costs.flops import Pass
from comigs.costs.shapes import Layer, adapter_shapes, shapes_of, skeleton
from comigs.federation.layers import drawn, layer_of, layers_of
from comigs.federation.run import Client
from comigs.methods.base import Method, Within
from comigs.mixture.adapters import is_router
from comigs.mixture.experts import expert_names
from comigs.mixture.routers import router_shapes


@dataclass(frozen=True)
class TokenFlops:
    """FLOPs per token at `data.seq_len`, as `torch.utils.flop_counter` counts them.

    Attributes:
        expert: of an expert step; the mean over a method's phases.
        router: of a router step of its own; 0 where there is none.
        forward: of an evaluation.
        look: of an evaluation that belongs to the method, with the gradient it takes.
    """

    expert: float
    router: float
    forward: float
    look: float


@dataclass(frozen=True)
class Parameters:
    """Numbers of parameters; the attention LoRA belongs to the first expert."""

    base: int
    generalist: int
    specialists: int
    router: int


def token_flops(client: Client, number: int = 1) -> TokenFlops:
    """FLOPs per token of the steps that `client` makes in round `number`.

    Rounds differ with `train.layers` alone. Without what FLoRA and FedEx-LoRA add to the base
    weights from the second round on.
    """
    own = client.config
    layers: frozenset[int] | None = None
    if own.train.layers is not None and client.method.trains:
        layers = drawn(own, client.number, number, layers_of(adapter_shapes(client)))
    return _token_flops(
        own.model.name,
        own.model.attention_lora,
        client.experts,
        client.method,
        own.router,
        own.data.seq_len,
        own.micro_batch < own.batch_size,
        own.train.checkpointing,
        layers,
    )


def mean_flops(client: Client, rounds: Collection[int]) -> TokenFlops:
    """`token_flops` on average over some rounds; of the first where there are none."""
    few = set(rounds) if client.config.train.layers is not None else ()
    each = [token_flops(client, number) for number in few or [1]]
    parts = ("expert", "router", "forward", "look")
    return TokenFlops(*(mean(getattr(one, part) for one in each) for part in parts))


@lru_cache(maxsize=1024)
def _token_flops(
    model: str,
    attention_lora: bool,
    experts: ExpertsConfig,
    method: Method,
    router: RouterConfig,
    seq_len: int,
    in_parts: bool,
    checkpoints: bool,
    layers: frozenset[int] | None,
) -> TokenFlops:
    base = skeleton(model, experts.native)
    if not method.trains:
        forward = Pass(base, (), None, 0, 0, None, seq_len).forward()
        return TokenFlops(0.0, 0.0, forward, forward)
    names, rank = expert_names(experts), cast(int, experts.rank)
    routed = experts.routed and len(names) > 1
    slots = cast(int, experts.top_k) if routed else len(names)

    def weights(layer: Layer) -> int:
        if router.scope == "global" and layer is not base.layers[0]:
            return 0
        return sum(map(prod, router_shapes(experts.router, layer.width, len(names)).values()))

    carrier = names[0] if attention_lora else None
    decides = weights if routed else None
    whole = Pass(base, names, carrier, slots, rank, decides, seq_len, checkpoints=checkpoints)
    forward = whole.forward()
    again = forward if in_parts and router.balance and routed and slots < len(names) else 0.0

    def moves(name: str) -> bool:
        return layers is None or layer_of(name) in layers

    def expert_step(phase: str | Within | None) -> float:
        only = phase.expert if isinstance(phase, Within) else phase

        def learns(name: str) -> bool:
            if not moves(name):
                return False
            if is_router(name):
                return method.router == "joint" and router.trainable
            return method.learns(name) and (only is None or f".{only}." in name)

        mixture = whole
        if isinstance(phase, str):
            mixture = replace(whole, experts=[phase], slots=1, router=None)
        mixture = replace(mixture, recomputes=not experts.dropout)
        return mixture.forward() + mixture.backward(learns)

    expert = mean(expert_step(phase) for phase in method.phases) + again
    if router.grad == "first_order":  # see comigs/training/hypergradient.py
        one = forward + whole.backward(is_router, held=lambda n: is_router(n) or moves(n))
        router_step = 3 * one + 3 * router.inner_steps * expert
    else:
        router_step = forward + whole.backward(is_router) + again
    learns_alone = routed and router.trainable and method.router != "joint"
    studied = method.studies(shapes_of(model, attention_lora, experts, router.routes))
    look = forward + (whole.backward(studied.__contains__) if studied else 0.0)
    return TokenFlops(expert, router_step if learns_alone else 0.0, forward, look)


def parameter_counts(client: Client) -> Parameters:
    """Exact numbers of parameters of one client's model in the method's layout."""
    sizes = {name: prod(shape) for name, shape in adapter_shapes(client).items()}
    base = skeleton(client.config.model.name, client.experts.native).parameters
    if not client.method.trains:
        return Parameters(base, 0, 0, 0)
    return Parameters(
        base,
        sum(size for name, size in sizes.items() if ".generalist_" in name),
        sum(size for name, size in sizes.items() if ".specialist_" in name),
        sum(size for name, size in sizes.items() if is_router(name)),
    )
