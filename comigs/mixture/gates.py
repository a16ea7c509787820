"""Which experts each token goes through, and with what weight: the part that every mixture has."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from comigs.config.experts import ExpertsConfig, Routes
from comigs.errors import BadInput
from comigs.mixture import router
from comigs.mixture.routers import (
    check_scope,
    follows,
    forget,
    make_router,
    rescaled,
    rescales,
)

BLOCK = 16  # rows of bf16 products
_CACHES = ("past_key_values", "cache_params")  # as Transformers' families call them
Parts = Sequence[tuple[Tensor | None, Tensor | None]]


class Gates(nn.Module):
    """A router over experts, or what stands for it where there is none.

    Attributes:
        router: fp32 (`comigs.mixture.routers`; linear: `router.weight`, E x d), or None.
        temperature: what its logits are divided by.
        leader: the mixture whose decisions are taken instead, or () where it decides itself.
        place: where tokens are, if each is routed by the prefix that it ends; None: by itself.
        routing: how the last forward pass routed its T tokens, for `balance_loss`; None without a
            router, and once `comigs.mixture.forward.forward_of` is left.
        only: index of the one expert to use with weight 1, or None for the mixture.
        clients: () in one client's model; (n,) where n clients share one pass
            (`comigs.mixture.fused`): then hidden states, LoRA weights and routing have n in front.
    """

    def __init__(self, names: list[str], config: ExpertsConfig, first: Any) -> None:
        """Args:
        names: of the experts, in gate order.
        first: the PEFT LoRA layer whose input the router reads.
        """
        super().__init__()
        self.names, self.top_k = names, cast(int, config.top_k)
        self.router: nn.Module | None = None
        if config.routed and len(names) > 1:
            with torch.device(first.get_base_layer().weight.device):
                self.router = make_router(config.router, first.in_features, len(names))
        self.temperature = 1.0
        self.leader: tuple[Gates, ...] = ()  # a tuple, so that it is no part of this module
        self.place: Place | None = None
        self.routing: router.Routing | None = None
        self.only: int | None = None
        self.clients: tuple[int, ...] = ()

    @property
    def routed(self) -> bool:
        """Whether tokens have a router."""
        return self.router is not None or bool(self.leader)

    @property
    def independent(self) -> bool:
        """Whether a token is routed by its own hidden state in this layer and nothing else."""
        return not self.leader and self.place is None and not follows(self.router)

    def decide(self, x: Tensor) -> router.Routing:
        """Route tokens, ... x T x d, and keep how."""
        if self.leader:
            decided = self.leader[0].routing
        else:
            assert self.router
            logits = self.router(x.float())
            if self.temperature != 1:
                logits = logits / self.temperature
            if self.place:
                logits = self.place.means(logits)
            decided = router.route(logits, self.top_k)
        assert decided
        self.routing = decided
        return decided

    @property
    def sums_to_one(self) -> bool:
        """Whether the gates of every token do."""
        return not self.routed or (self.top_k > 1 and not rescales(self.router))

    def forget(self) -> None:
        """Let go what the last pass has left."""
        self.routing = None
        forget(self.router)

    def parts(self, x: Tensor, dtype: torch.dtype) -> tuple[list[str], Parts]:
        """Return the experts to run and for each its gate (T_e x 1) and its tokens (T_e)."""
        chosen = self.top_k < len(self.names) and not self.clients  # or weight 0 where not chosen
        if chosen and self.only is None and self.routed:
            routing = self.decide(x)
            return self.names, [self._part(routing, e, dtype) for e in range(len(self.names))]
        names, gates = self.every_gate(x, dtype)
        if gates is None:
            return names, [(None, None)]
        return names, [(gate, None) for gate in gates.split(1, -1)]

    def _part(self, routing: router.Routing, e: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        tokens, slot = (routing.chosen == e).nonzero(as_tuple=True)
        gates = rescaled(routing.gates, self.router).to(dtype)
        gate = gates[tokens, slot].unsqueeze(1)
        return _in_blocks(gate, tokens) if dtype == torch.bfloat16 else (gate, tokens)

    def every_gate(self, x: Tensor, dtype: torch.dtype) -> tuple[list[str], Tensor | None]:
        """Return the experts to run, and the gates of all of them, T x E; None: the one's is 1."""
        if self.only is not None:
            return [self.names[self.only]], None
        if not self.routed:
            if len(self.names) == 1:
                return self.names, None
            count = len(self.names)
            return self.names, x.new_full((*x.shape[:-1], count), 1 / count, dtype=dtype)
        routing = self.decide(x)
        gates = rescaled(routing.gates, self.router).to(dtype)
        if self.top_k < len(self.names):
            zeros = torch.zeros_like(routing.logits, dtype=dtype)
            gates = zeros.scatter(-1, routing.chosen, gates)
        return self.names, gates


class Place:
    """Where the tokens of the pass under way are: what a causal LM's backbone was called with."""

    def __init__(self) -> None:
        self._length = 0
        self._positions: Tensor | None = None
        self._cached = False

    def __call__(self, module: nn.Module, args: tuple[Any, ...], more: dict[str, Any]) -> None:
        """A hook before the forward pass of the backbone."""
        self._cached = any(more.get(name) is not None for name in _CACHES)
        self._length = (args[0] if args else more["input_ids"]).shape[1]
        self._positions = more.get("position_ids")

    def means(self, logits: Tensor) -> Tensor:
        """`prefix_means` of the pass's logits, ... x T x E.

        Raises:
            BadInput: with a cache, in which tokens may be that the pass does not see.
        """
        if self._cached:
            raise BadInput(
                "router.unit is 'sequence', which reads a text from its start in every pass; "
                "generate with use_cache=False"
            )
        return router.prefix_means(logits, self._length, self._positions)


def link(blocks: Sequence[Gates], kind: str, routes: Routes, backbone: nn.Module) -> None:
    """Have the mixtures of a model, first layer first, decide as `routes` says.

    Raises:
        BadInput: routers of this kind cannot (`check_scope`).
    """
    if not blocks[0].routed:
        return
    check_scope(kind, routes.scope)
    place = Place() if routes.unit == "sequence" else None
    if place:
        backbone.register_forward_pre_hook(place, with_kwargs=True)
    for block in blocks:
        block.temperature, block.place = routes.temperature, place
    for before, block in pairwise(blocks):
        if routes.scope == "global":
            block.router, block.leader = None, (blocks[0],)
        elif follows(block.router):
            block.router.follow(before.router)


def own_routers(model: nn.Module) -> set[str]:
    """Names in `model` of the routers' parameters; those that the base has itself are none."""
    return {
        f"{path}.router.{name}"
        for path, gates in model.named_modules()
        if isinstance(gates, Gates) and gates.router is not None
        for name, _ in gates.router.named_parameters()
    }


def _in_blocks(gate: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Fill up to a multiple of BLOCK tokens with token 0 at gate 0, which changes no sum.

    For bf16 products torch compiles a kernel for every number of rows that it meets, and keeps it:
    milliseconds and half a megabyte for each number of tokens that ever chose an expert.
    """
    missing = -len(tokens) % BLOCK
    return F.pad(gate, (0, 0, 0, missing)), F.pad(tokens, (0, missing))
