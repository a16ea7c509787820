"""Replace each MLP of a causal LM by a mixture of LoRA experts over the frozen MLP.

In families whose MLP has no dense linears (`Family.up` is empty) the mixture is on one linear of
the attention instead (`comigs.mixture.attention`), or, with `experts.native`, on native experts.

The experts are ordinary PEFT adapters, one per expert: `generalist_0`, ..., `specialist_0`, ...
The attention LoRA belongs to the first of them. Ref: CoMiGS, arXiv 2409.13931, section 3.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from comigs.backbone.families import Family, decoder_layers, family_of, on_native_experts
from comigs.backbone.faster import prefer_fast_activation
from comigs.backbone.head import backbone_of
from comigs.backbone.natives import order_of, stack, unstack
from comigs.config.experts import PLAIN, ExpertsConfig, Routes
from comigs.errors import BadInput
from comigs.mixture import router
from comigs.mixture.algebra import Expert, linear, mix, whole
from comigs.mixture.attention import AttentionLora, drops, lora_a, lora_b, low_rank
from comigs.mixture.gates import Gates, link
from comigs.mixture.peftmodel import MixtureModel
from comigs.mixture.routers import rescaled


def expert_names(config: ExpertsConfig) -> list[str]:
    """Adapter names in gate order: generalists first, then specialists."""
    generalists = [f"generalist_{i}" for i in range(config.generalists)]
    return generalists + [f"specialist_{i}" for i in range(cast(int, config.specialists))]


class ExpertMLP(Gates):
    """An MLP whose linears carry one LoRA per expert, mixed per token.

    It takes over the submodules of the MLP under their own names, so that parameter names stay
    those of plain PEFT; the router is one more.
    """

    def __init__(self, mlp: nn.Module, family: Family, config: ExpertsConfig) -> None:
        super().__init__(expert_names(config), config, mlp.get_submodule(family.up[0]))
        router = self._modules.pop("router", None)
        for name, child in mlp.named_children():
            self.add_module(name, child)
        self.router = router  # behind what it routes to
        self.family, self.training = family, mlp.training
        self._act = getattr(mlp, family.act)
        self._mlp = (mlp,)  # a tuple, so that it is no part of the model

    def _linear(self, name: str) -> Any:
        """One of the MLP's linears: a PEFT LoRA layer."""
        return self.get_submodule(name)

    def hidden(self, up: Sequence[Tensor]) -> Tensor:
        """Map the pre-activations of the up-projections, each ... x F, to the hidden layer."""
        gate, *value = up[0].chunk(2, dim=-1) if self.family.fused else up
        return self._act(gate) * value[0] if value else self._act(gate)

    def unmixed(self) -> nn.Module:
        """The MLP that this one took the place of, with the linears that are here now."""
        mlp = self._mlp[0]
        for name, _ in list(mlp.named_children()):
            setattr(mlp, name, self.get_submodule(name))
        return mlp

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Map hidden states ... x d to ... x d, plus `residual` (BLOOM's MLP adds it itself)."""
        self.routing = None
        shape, x = x.shape, x.reshape(*self.clients, -1, x.shape[-1])
        ups = [self._linear(name) for name in self.family.up]
        down = self._linear(self.family.down)
        frozen = [up.get_base_layer()(x) for up in ups]
        if down.disable_adapters:
            y = down.get_base_layer()(self.hidden(frozen))
        else:
            y = self._mixture(x, frozen, ups, down)
        if self.family.dropout:
            y = self.get_submodule(self.family.dropout)(y)
        y = y.view(shape)
        return y if residual is None else residual + y

    def _mixture(self, x: Tensor, frozen: list[Tensor], ups: list[Any], down: Any) -> Tensor:
        dtype = frozen[0].dtype
        names, parts = self.parts(x, dtype)
        lows = low_rank(x, ups, names)
        drop = down.lora_dropout[names[0]]
        total, low = mix(
            self.hidden,
            frozen,
            [
                Expert(
                    [a if tokens is None else a.index_select(0, tokens) for a in lows[i]],
                    [lora_b(up, name, dtype) for up in ups],
                    lora_a(down, name, dtype),
                    gate,
                    tokens,
                )
                for i, (name, (gate, tokens)) in enumerate(zip(names, parts, strict=True))
            ],
            drop if drops(drop) else None,
        )
        y = down.get_base_layer()(total)
        bias = down.get_base_layer().bias
        if bias is not None and self.routing is not None and not self.sums_to_one:
            gates = rescaled(self.routing.gates, self.router)
            y = y + bias * (gates.sum(-1, keepdim=True) - 1).to(dtype)
        spread = [whole(part, at, len(x)) for (_, at), part in zip(parts, low, strict=True)]
        b = [lora_b(down, name, dtype, down.scaling[name]) for name in names]
        return linear(torch.cat(spread, -1), torch.cat(b, -1), y)


class NativeMLPs(ExpertMLP):
    """All native experts of a layer, whose linears carry one LoRA per expert, mixed per token.

    Expert e is the whole native mixture, with s B_e A_e added to the weight of every native expert;
    which of these a token goes through, and with what share, its native router says as before.
    With K of them for each of T tokens, the products between A1 and B2 are of T K rows.
    """

    def unmixed(self) -> nn.Module:
        """The native experts that these took the place of, with the weights that are here now."""
        names = (*self.family.up, self.family.down)
        return stack(self._mlp[0], {name: self._linear(name) for name in names})

    def forward(self, x: Tensor, native: Tensor, shares: Tensor) -> Tensor:  # type: ignore[override]
        """Map hidden states T x d to T x d.

        Args:
            native, shares: of each token, the native experts that it goes through, T x K.
        """
        self.routing = None
        (name,), ways = self.family.up, native.shape[1]
        up, down = self._linear(name), self._linear(self.family.down)
        stacked = up.get_base_layer()
        order = order_of(native.flatten(), len(stacked.weight))
        frozen = stacked.each(x.repeat_interleave(ways, 0), order)
        share = shares.to(frozen.dtype).reshape(*self.clients, -1, 1)
        frozen = frozen.view(*self.clients, -1, frozen.shape[-1])

        def summed(hidden: Tensor) -> Tensor:
            rows = down.get_base_layer().each((hidden * share).flatten(0, -2), order)
            return rows.unflatten(0, (*self.clients, -1, ways)).sum(-2)

        if down.disable_adapters:
            return summed(self.hidden([frozen]))
        own = x.reshape(*self.clients, -1, x.shape[-1])
        hidden, b, low = self._rows(own, frozen, up, down, ways)
        low = (low * share).unflatten(-2, (-1, ways)).sum(-2)
        return linear(low, b, summed(hidden)).view(x.shape)

    def _rows(self, x: Tensor, frozen: Tensor, up: Any, down: Any, ways: int) -> tuple[Tensor, ...]:
        """Return sum_e g_e h_e (T K x F), every B2 side by side, every A2 g_e h_e (T K x E r)."""
        dtype = frozen.dtype
        names, parts = self.parts(x, dtype)
        drop = down.lora_dropout[names[0]]
        experts, every = [], torch.arange(ways, device=x.device)
        for name, (gate, tokens), (low,) in zip(
            names, parts, low_rank(x, [up], names), strict=True
        ):
            low = low if tokens is None else low.index_select(0, tokens)
            experts.append(
                Expert(
                    [low.repeat_interleave(ways, -2)],
                    [lora_b(up, name, dtype)],
                    lora_a(down, name, dtype),
                    None if gate is None else gate.repeat_interleave(ways, -2),
                    None if tokens is None else (tokens.unsqueeze(1) * ways + every).flatten(),
                )
            )
        hidden, lows = mix(self.hidden, [frozen], experts, drop if drops(drop) else None)
        wide = [
            whole(low, each.tokens, len(frozen)) for each, low in zip(experts, lows, strict=True)
        ]
        b = [lora_b(down, name, dtype, down.scaling[name]) for name in names]
        return hidden, torch.cat(b, -1), torch.cat(wide, -1)


def add_experts(
    model: PreTrainedModel,
    config: ExpertsConfig,
    attention_lora: bool = True,
    routes: Routes = PLAIN,
) -> PeftModel:
    """Give every MLP of `model` a mixture of LoRA experts and freeze everything else.

    The model is changed in place and returned wrapped by PEFT, in evaluation mode.

    Args:
        model: a Hugging Face causal LM of a family in `comigs.backbone.families`.
        config: the experts of one client (plain numbers, no lists per client).
        attention_lora: also give the attention linears the first expert's LoRA.
        routes: how routers decide.

    Raises:
        BadInput: for an unknown family or kind of router, or one that cannot decide like that, or a
            config that still has one value per client.
    """
    if isinstance(config.specialists, list) or isinstance(config.rank, list):
        raise BadInput("add_experts needs the experts of one client: config.for_client(i)")
    kind = model.config.model_type
    family = on_native_experts(kind) if config.native else family_of(kind)
    if config.native:
        unstack(model, family)
    layers = decoder_layers(model, family)
    prefer_fast_activation(layers, family)
    names = expert_names(config)
    mixed = [f"{layer.path}.{name}" for layer in layers for name in layer.mixed]
    attention = [f"{layer.path}.{name}" for layer in layers for name in layer.attention]
    first, *rest = [
        LoraConfig(
            r=config.rank,
            lora_alpha=cast(int, config.alpha),
            lora_dropout=config.dropout,
            use_rslora=config.scaling == "rslora",
            target_modules=targets,
            fan_in_fan_out=family.conv1d,
            task_type="CAUSAL_LM",
        )
        for targets in [mixed + attention * attention_lora] + [mixed] * (len(names) - 1)
    ]
    first._register_custom_module({nn.Linear: AttentionLora, Conv1D: AttentionLora})
    with warnings.catch_warnings():
        first.base_model_name_or_path = model.name_or_path or None
        peft_model = MixtureModel(model, first, adapter_name=names[0])
        for name, lora in zip(names[1:], rest, strict=True):
            peft_model.add_adapter(name, lora)
    for layer in layers:
        mlp: Any = layer.module.get_submodule(layer.mlp)
        if family.up:
            block = NativeMLPs if config.native else ExpertMLP
            layer.module.set_submodule(layer.mlp, block(mlp, family, config))
        else:
            mlp.gates = (Gates(names, config, mlp),)
            layer.module.get_submodule(layer.mlp.rpartition(".")[0]).gates = mlp.gates[0]
    link(expert_blocks(peft_model), config.router, routes, backbone_of(peft_model))
    settings = {"experts": asdict(config), "attention_lora": attention_lora}
    peft_model.comigs_settings = settings | ({} if routes == PLAIN else {"routes": asdict(routes)})
    return peft_model.requires_grad_(False).eval()


def expert_blocks(model: nn.Module) -> list[Gates]:
    """The mixtures of `model`, first layer first."""
    return [module for module in model.modules() if isinstance(module, Gates)]


def routings(model: nn.Module) -> list[router.Routing]:
    """How each layer that has a router routed the last forward pass, first layer first."""
    return [block.routing for block in expert_blocks(model) if block.routing is not None]


def balance_loss(
    model: nn.Module,
    importance: float = 0.5,
    counts: Sequence[Tensor] | None = None,
    real: Tensor | None = None,
) -> Tensor:
    """Balance loss of the last forward pass, averaged over layers; 0 without routers.

    One number, or one for each of n clients that share the pass.

    Args:
        importance: iota, the share of the load that the first expert should carry.
        counts: `slot_counts` of the whole batch where the pass was one micro-batch of it.
        real: which of the pass's T tokens count, T or n x T; None: all.
    """
    losses = [
        router.balance_loss(routing, importance, counts[i] if counts else None, real)
        for i, routing in enumerate(routings(model))
    ]
    return torch.stack(losses).mean(0) if losses else torch.zeros(())


def shared_expert(model: nn.Module) -> str | None:
    """The first generalist of a mixture; None without one, or where it is the only expert."""
    names = blocks[0].names if (blocks := expert_blocks(model)) else []
    return names[0] if len(names) > 1 and names[0].startswith("generalist_") else None


@contextmanager
def using_expert(model: nn.Module, name: str) -> Iterator[None]:
    """Within the context, every block uses the expert `name` alone, with weight 1."""
    blocks = expert_blocks(model)
    index = blocks[0].names.index(name)
    for block in blocks:
        block.only = index
    try:
        yield
    finally:
        for block in blocks:
            block.only = None
