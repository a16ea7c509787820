"""n clients in one forward pass: their batches go through each frozen weight once.

The clients' models have equal shapes and stand on the same frozen tensors. Every small weight of
theirs (LoRA, router) is stacked when it is used, so that products with them are batched and each
client's gradient arrives at its own tensor. Batches come client after client: n B x L.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from comigs.errors import BadInput
from comigs.mixture.algebra import linear
from comigs.mixture.attention import add_lora, add_mixture
from comigs.mixture.deltas import deltas_of
from comigs.mixture.gates import Gates
from comigs.mixture.models import bare_copy
from comigs.mixture.routers import forget, rescales


class StackedLinear(nn.Module):
    """The same small linear of n models, each for its own client's tokens: n x T x d."""

    def __init__(self, linears: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.linears = tuple(linears)  # a tuple, so that they stay parts of their own models only

    @property
    def weight(self) -> Tensor:
        return torch.stack([linear.weight for linear in self.linears])

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight)


class StackedRouters(nn.Module):
    """The routers of n models, each for its own client's tokens: n x T x d to n x T x E."""

    def __init__(self, routers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.routers = tuple(routers)

    def __getattr__(self, name: str) -> Any:
        if name == "gain" and rescales(self.routers[0]):
            return torch.stack([cast(Tensor, router.gain) for router in self.routers])
        return super().__getattr__(name)

    def forget(self) -> None:
        """Let go what a pass has left (`comigs.mixture.routers`)."""
        for router in self.routers:
            forget(router)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([router(own) for router, own in zip(self.routers, x, strict=True)])


class StackedLora(nn.Module):
    """The same LoRA layer of n models: the frozen linear applied once, the LoRA batched.

    It offers what `ExpertMLP` reads of a PEFT layer, and is called for attention linears.

    Attributes:
        gates: of a mixture of experts on this linear, for n clients; or ().
    """

    disable_adapters = False

    def __init__(self, layers: Sequence[LoraLayer], gates: tuple[Gates, ...] = ()) -> None:
        super().__init__()
        first, self.gates = layers[0], gates
        if any(isinstance(drop, nn.Dropout) for drop in first.lora_dropout.values()):
            raise BadInput("clients in one pass need experts.dropout 0")
        self.n = len(layers)
        self.base_layer = first.get_base_layer()
        self.scaling, self.lora_dropout = first.scaling, first.lora_dropout
        self.lora_A, self.lora_B = (
            {name: StackedLinear([half[name] for half in halves]) for name in halves[0]}
            for halves in ([x.lora_A for x in layers], [x.lora_B for x in layers])
        )
        corrections = [deltas_of(layer) for layer in layers]
        for name in corrections[0]:
            a, b = zip(*(each[name] for each in corrections), strict=True)
            deltas_of(self)[name] = (torch.stack(a), torch.stack(b))

    def get_base_layer(self) -> nn.Module:
        return self.base_layer

    def forward(self, x: Tensor) -> Tensor:
        """Map the clients' ... x d to ... x out with the LoRA of each."""
        if self.gates:
            return add_mixture(self, self.gates[0], x, self.base_layer(x))
        return add_lora(self, self.scaling, x, self.base_layer(x), (self.n,))


def join(models: Sequence[PeftModel]) -> nn.Module:
    """One model that runs the clients of `models` together; a single model as it is.

    It holds no weights of its own: what the clients' models hold when it is called is used, except
    for frozen corrections (`comigs.mixture.deltas`), which are taken now.

    Args:
        models: of equal shapes, over the same base.
    """
    if len(models) == 1:
        return models[0]
    trees = [model.get_base_model() for model in models]
    joined = bare_copy(trees[0])
    for path, module in list(joined.named_modules()):
        twins = [tree.get_submodule(path) for tree in trees] if _is_clients(module) else []
        if isinstance(module, Gates):
            module.clients = (len(models),)
            if module.router is not None:
                routers = [twin.router for twin in twins]
                plain = all(type(router) is nn.Linear and router.bias is None for router in routers)
                module.router = StackedLinear(routers) if plain else StackedRouters(routers)
        elif twins:
            joined.set_submodule(path, StackedLora(twins, getattr(module, "gates", ())))
    return joined


def _is_clients(module: nn.Module) -> bool:
    return isinstance(module, (Gates, LoraLayer))
