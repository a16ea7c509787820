"""Which experts each token goes through, and with what weight: the part that every mixture has."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from comigs.config.experts import ExpertsConfig
from comigs.mixture import router
from comigs.mixture.routers import make_router

BLOCK = 16  # rows of bf16 products
Parts = Sequence[tuple[Tensor | None, Tensor | None]]


class Gates(nn.Module):
    """A router over experts, or what stands for it where there is none.

    Attributes:
        router: fp32 (`comigs.mixture.routers`; linear: `router.weight`, E x d), or None.
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
        self.names, self.top_k = names, config.top_k
        self.router: nn.Module | None = None
        if config.routed and len(names) > 1:
            with torch.device(first.get_base_layer().weight.device):
                self.router = make_router(config.router, first.in_features, len(names))
        self.routing: router.Routing | None = None
        self.only: int | None = None
        self.clients: tuple[int, ...] = ()

    def parts(self, x: Tensor, dtype: torch.dtype) -> tuple[list[str], Parts]:
        """Return the experts to run and for each its gate (T_e x 1) and its tokens (T_e)."""
        chosen = self.top_k < len(self.names) and not self.clients  # or weight 0 where not chosen
        if chosen and self.only is None and self.router is not None:
            self.routing = router.route(self.router(x.float()), self.top_k)
            return self.names, [self._part(self.routing, e, dtype) for e in range(len(self.names))]
        names, gates = self.every_gate(x, dtype)
        if gates is None:
            return names, [(None, None)]
        return names, [(gate, None) for gate in gates.split(1, -1)]

    def _part(self, routing: router.Routing, e: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        tokens, slot = (routing.chosen == e).nonzero(as_tuple=True)
        gate = routing.gates.to(dtype)[tokens, slot].unsqueeze(1)
        return _in_blocks(gate, tokens) if dtype == torch.bfloat16 else (gate, tokens)

    def every_gate(self, x: Tensor, dtype: torch.dtype) -> tuple[list[str], Tensor | None]:
        """Return the experts to run, and the gates of all of them, T x E; None: the one's is 1."""
        if self.only is not None:
            return [self.names[self.only]], None
        if self.router is None:
            if len(self.names) == 1:
                return self.names, None
            count = len(self.names)
            return self.names, x.new_full((*x.shape[:-1], count), 1 / count, dtype=dtype)
        self.routing = router.route(self.router(x.float()), self.top_k)
        gates = self.routing.gates.to(dtype)
        if self.top_k < len(self.names):
            zeros = torch.zeros_like(self.routing.logits, dtype=dtype)
            gates = zeros.scatter(-1, self.routing.chosen, gates)
        return self.names, gates


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
