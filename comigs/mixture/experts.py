"""Replace each MLP of a causal LM by a mixture of LoRA experts over the frozen MLP.

The experts are ordinary PEFT adapters, one per expert: `generalist_0`, ..., `specialist_0`, ...
The attention LoRA belongs to the first of them. Ref: CoMiGS, arXiv 2409.13931, section 3.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, cast

import torch
import torch.nn.functional as F
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from comigs.backbone.activation import prefer_fast_activation
from comigs.backbone.families import Family, decoder_layers, family_of
from comigs.config.experts import ExpertsConfig
from comigs.errors import BadInput
from comigs.mixture import router
from comigs.mixture.algebra import Expert, linear, mix
from comigs.mixture.attention import AttentionLora
from comigs.mixture.deltas import deltas_of
from comigs.mixture.routers import make_router

BLOCK = 16  # rows of bf16 products


def expert_names(config: ExpertsConfig) -> list[str]:
    """Adapter names in gate order: generalists first, then specialists."""
    generalists = [f"generalist_{i}" for i in range(config.generalists)]
    return generalists + [f"specialist_{i}" for i in range(cast(int, config.specialists))]


class ExpertMLP(nn.Module):
    """An MLP whose linears carry one LoRA per expert, mixed per token.

    It takes over the submodules of the MLP under their own names, so that parameter names stay
    those of plain PEFT; the router is one more, fp32 (`comigs.mixture.routers`; linear:
    `router.weight`, E x d).

    Attributes:
        routing: how the last forward pass routed its T tokens, for `balance_loss`; None without a
            router, and once `comigs.mixture.forward.forward_of` is left.
        only: index of the one expert to use with weight 1, or None for the mixture.
        clients: () in one client's model; (n,) where n clients share one pass
            (`comigs.mixture.fused`): then hidden states, LoRA weights and routing have n in front.
    """

    def __init__(self, mlp: nn.Module, family: Family, config: ExpertsConfig) -> None:
        super().__init__()
        for name, child in mlp.named_children():
            self.add_module(name, child)
        self.family, self.names, self.top_k = family, expert_names(config), config.top_k
        self.training = mlp.training
        self._act = getattr(mlp, family.act)
        self.router: nn.Module | None = None
        if config.routed and len(self.names) > 1:
            first = self._linear(family.up[0])
            with torch.device(first.get_base_layer().weight.device):
                self.router = make_router(config.router, first.in_features, len(self.names))
        self.routing: router.Routing | None = None
        self.only: int | None = None
        self.clients: tuple[int, ...] = ()

    def _linear(self, name: str) -> Any:
        """One of the MLP's linears: a PEFT LoRA layer."""
        return self.get_submodule(name)

    def hidden(self, up: Sequence[Tensor]) -> Tensor:
        """Map the pre-activations of the up-projections, each ... x F, to the hidden layer."""
        gate, *value = up[0].chunk(2, dim=-1) if self.family.fused else up
        return self._act(gate) * value[0] if value else self._act(gate)

    def forward(self, x: Tensor) -> Tensor:
        """Map hidden states ... x d to ... x d."""
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
        return y.view(shape)

    def _mixture(self, x: Tensor, frozen: list[Tensor], ups: list[Any], down: Any) -> Tensor:
        dtype = frozen[0].dtype
        names, parts = self._gates(x, dtype)
        lows = _low_rank(x, ups, names)
        drop = down.lora_dropout[names[0]]
        total, low = mix(
            self.hidden,
            frozen,
            [
                Expert(
                    [a if tokens is None else a.index_select(0, tokens) for a in lows[i]],
                    [_b(up, name, dtype) for up in ups],
                    _a(down, name, dtype),
                    gate,
                    tokens,
                )
                for i, (name, (gate, tokens)) in enumerate(zip(names, parts, strict=True))
            ],
            drop if _drops(drop) else None,
        )
        y = down.get_base_layer()(total)
        bias = down.get_base_layer().bias
        if bias is not None and self.routing is not None and self.top_k == 1:
            y = y + bias * (self.routing.gates - 1).to(dtype)
        spread = [
            part
            if tokens is None
            else part.new_zeros(len(x), part.shape[1]).index_add(0, tokens, part)
            for (_, tokens), part in zip(parts, low, strict=True)
        ]
        b = [_b(down, name, dtype, down.scaling[name]) for name in names]
        return linear(torch.cat(spread, -1), torch.cat(b, -1), y)

    def _gates(
        self, x: Tensor, dtype: torch.dtype
    ) -> tuple[list[str], Sequence[tuple[Tensor | None, Tensor | None]]]:
        """Return the experts to run and for each its gate (T_e x 1) and its tokens (T_e)."""
        if self.only is not None:
            return [self.names[self.only]], [(None, None)]
        if self.router is None:
            if len(self.names) == 1:
                return self.names, [(None, None)]
            share = x.new_full((*x.shape[:-1], 1), 1 / len(self.names), dtype=dtype)
            return self.names, [(share, None)] * len(self.names)
        self.routing = router.route(self.router(x.float()), self.top_k)
        gates = self.routing.gates.to(dtype)
        if self.top_k == len(self.names):
            return self.names, [(gates[..., e : e + 1], None) for e in range(self.top_k)]
        if self.clients:  # each client's tokens choose on their own: weight 0 where not chosen
            zeros = torch.zeros_like(self.routing.logits, dtype=dtype)
            gates = zeros.scatter(-1, self.routing.chosen, gates)
            return self.names, [(gate, None) for gate in gates.split(1, -1)]
        parts = []
        for e in range(len(self.names)):
            tokens, slot = (self.routing.chosen == e).nonzero(as_tuple=True)
            gate = gates[tokens, slot].unsqueeze(1)
            parts.append(_in_blocks(gate, tokens) if dtype == torch.bfloat16 else (gate, tokens))
        return self.names, parts


def _in_blocks(gate: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Fill up to a multiple of BLOCK tokens with token 0 at gate 0, which changes no sum.

    For bf16 products torch compiles a kernel for every number of rows that it meets, and keeps it:
    milliseconds and half a megabyte for each number of tokens that ever chose an expert.
    """
    missing = -len(tokens) % BLOCK
    return F.pad(gate, (0, 0, 0, missing)), F.pad(tokens, (0, missing))


def _drops(drop: nn.Module) -> bool:
    return isinstance(drop, nn.Dropout) and drop.training


def _a(layer: Any, name: str, dtype: torch.dtype, scale: float = 1) -> Tensor:
    """scale A of one expert's LoRA on `layer`, above the A of its frozen correction, if any."""
    weight = layer.lora_A[name].weight.to(dtype)
    weight = weight * scale if scale != 1 else weight
    delta = deltas_of(layer).get(name)
    return weight if delta is None else torch.cat([weight, delta[0].to(dtype)], -2)


def _b(layer: Any, name: str, dtype: torch.dtype, scale: float = 1) -> Tensor:
    """scale B of one expert's LoRA on `layer`, beside the B of its frozen correction, if any."""
    weight = layer.lora_B[name].weight.to(dtype)
    weight = weight * scale if scale != 1 else weight
    delta = deltas_of(layer).get(name)
    return weight if delta is None else torch.cat([weight, delta[1].to(dtype)], -1)


def _low_rank(x: Tensor, ups: list[Any], names: list[str]) -> list[list[Tensor]]:
    """Return s A x (T x r) per expert and up-projection, all in one product."""
    pairs = [(up, name) for name in names for up in ups]
    weights = [_a(up, name, x.dtype, up.scaling[name]) for up, name in pairs]
    if any(_drops(up.lora_dropout[name]) for up, name in pairs):
        drops = [up.lora_dropout[name](x) for up, name in pairs]
        flat = [linear(xi, w) for xi, w in zip(drops, weights, strict=True)]
    else:
        flat = list(linear(x, torch.cat(weights, -2)).split([w.shape[-2] for w in weights], -1))
    return [flat[i : i + len(ups)] for i in range(0, len(flat), len(ups))]


def add_experts(
    model: PreTrainedModel, config: ExpertsConfig, attention_lora: bool = True
) -> PeftModel:
    """Give every MLP of `model` a mixture of LoRA experts and freeze everything else.

    The model is changed in place and returned wrapped by PEFT, in evaluation mode.

    Args:
        model: a Hugging Face causal LM of a family in `comigs.backbone.families`.
        config: the experts of one client (plain numbers, no lists per client).
        attention_lora: also give the attention linears the first expert's LoRA.

    Raises:
        BadInput: for an unknown family or kind of router, or a config that still has one value per
            client.
    """
    if isinstance(config.specialists, list) or isinstance(config.rank, list):
        raise BadInput("add_experts needs the experts of one client: config.for_client(i)")
    family = family_of(model.config.model_type)
    layers = decoder_layers(model, family)
    prefer_fast_activation((layer for _, layer in layers), family)
    names = expert_names(config)
    mlp = [f"{family.mlp}.{linear}" for linear in (*family.up, family.down)]
    attention = list(family.attention) if attention_lora else []
    first, *rest = [
        LoraConfig(
            r=config.rank,
            lora_alpha=cast(int, config.alpha),
            lora_dropout=config.dropout,
            use_rslora=config.scaling == "rslora",
            target_modules=[f"{path}.{name}" for path, _ in layers for name in targets],
            fan_in_fan_out=family.conv1d,
            task_type="CAUSAL_LM",
        )
        for targets in [mlp + attention] + [mlp] * (len(names) - 1)
    ]
    first._register_custom_module({nn.Linear: AttentionLora, Conv1D: AttentionLora})
    with warnings.catch_warnings():
        peft_model = get_peft_model(model, first, adapter_name=names[0])
        for name, lora in zip(names[1:], rest, strict=True):
            peft_model.add_adapter(name, lora)
    for _, layer in layers:
        setattr(layer, family.mlp, ExpertMLP(layer.get_submodule(family.mlp), family, config))
    peft_model.comigs_settings = {"experts": asdict(config), "attention_lora": attention_lora}
    return peft_model.requires_grad_(False).eval()


def expert_blocks(model: nn.Module) -> list[ExpertMLP]:
    """The mixture blocks of `model`, first layer first."""
    return [module for module in model.modules() if isinstance(module, ExpertMLP)]


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
