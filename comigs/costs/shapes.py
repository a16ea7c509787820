"""Shapes of a base model and of a client's adapters, known without loading any weights."""

import copy
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from comigs.backbone.base import load_settings
from comigs.backbone.families import Family, decoder_layers, family_of, on_native_experts
from comigs.backbone.families import Layer as Place
from comigs.backbone.natives import unstack
from comigs.backbone.stored import stacks_experts
from comigs.config.experts import ExpertsConfig, Routes
from comigs.errors import BadInput, one_line
from comigs.federation.run import Client
from comigs.mixture.experts import expert_names
from comigs.mixture.routers import router_shapes

_PARALLEL = ("use_parallel_residual", "parallel_attn", "new_decoder_architecture")  # in configs


class Linear(NamedTuple):
    """A linear layer by its name in the bare model."""

    name: str
    inputs: int
    outputs: int


@dataclass(frozen=True)
class Layer:
    """One decoder layer.

    Attributes:
        router: path of the mixture's router.
        up, down: linears with every expert's LoRA; only `down` where the mixture is on one linear.
        attention: linears with the first expert's LoRA, that of the output, if any, apart in `out`.
        heads: width of all heads of softmax attention; 0 without it.
        mixer: what mixes tokens otherwise, on torch's `meta` device, or None.
        rest: FLOPs of the products of one token with all other weights, native experts among them.
        ways: native experts that a token goes through, where the mixture is on each; or 1.
    """

    router: str
    up: tuple[Linear, ...]
    down: Linear
    attention: tuple[Linear, ...]
    out: Linear | None
    heads: int
    mixer: nn.Module | None
    rest: float
    ways: int = 1

    @property
    def width(self) -> int:
        """Of what the router reads."""
        return (*self.up, self.down)[0].inputs


@dataclass(frozen=True)
class Skeleton:
    """A base model without its weights.

    Attributes:
        parameters: number of weights, tied ones once.
        width, vocabulary: inputs and outputs of the head.
        eager: whether attention is plain products, not torch's fused kernel.
        parallel: whether an MLP reads the same input as its layer's attention (GPT-NeoX).
        rest: FLOPs of the products of one token with weights outside the layers and the head.
        stacked: whether it has native experts, which are not quantised.
    """

    layers: tuple[Layer, ...]
    parameters: int
    width: int
    vocabulary: int
    eager: bool
    parallel: bool
    rest: float
    stacked: bool

    @property
    def period(self) -> int:
        """After how many layers the shapes come again; the number of layers where they do not."""
        shapes = [_shape(layer) for layer in self.layers]
        count = len(shapes)
        fits = (n for n in range(1, count) if shapes[n:] == shapes[:-n])
        return next(fits, count)


def _shape(layer: Layer) -> tuple[object, ...]:
    linears = (*layer.up, layer.down, *layer.attention)
    return *((x.inputs, x.outputs) for x in linears), layer.heads, layer.rest


@lru_cache(maxsize=8)
def skeleton(model_name: str, native: bool = False) -> Skeleton:
    """Build the model on torch's `meta` device from its config file alone.

    Args:
        native: `experts.native`.

    Raises:
        BadInput: when there is no such model, or its family is unknown.
    """
    config = load_settings(model_name)
    kind = config.model_type
    family = on_native_experts(kind) if native else family_of(kind)
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(copy.deepcopy(config)).requires_grad_(False)
    except Exception as error:  # of whatever kind: it is about what is in the folder
        reason = one_line(error)[:300]
        raise BadInput(f"model.name {model_name!r}: its config is unusable ({reason})") from None

    head: nn.Module = model.get_output_embeddings()
    vocabulary, width = head.weight.shape  # type: ignore[misc]
    if native:
        unstack(model, family)
    places = decoder_layers(model, family)
    inside = {id(module) for place in places for module in place.module.modules()}
    outside = [m for m in model.modules() if id(m) not in inside and m is not head]
    return Skeleton(
        tuple(_layer(place, family, config) for place in places),
        sum(p.numel() for p in model.parameters()),
        width,
        vocabulary,
        model.config._attn_implementation == "eager",
        family.parallel or any(getattr(config, name, False) for name in _PARALLEL),
        sum(_products(module, 1.0) for module in outside),
        stacks_experts(model),
    )


def _layer(place: Place, family: Family, config: Any) -> Layer:
    def linear(name: str) -> Linear:
        weight = cast(Tensor, place.module.get_submodule(name).weight)
        outputs, inputs = weight.shape[-2:]
        if family.conv1d:
            inputs, outputs = outputs, inputs
        return Linear(f"{place.path}.{name}", inputs, outputs)

    *up, down = (linear(name) for name in place.mixed)
    attention = [linear(name) for name in place.attention]
    out = attention.pop() if family.up else None
    mixer = place.mlp if out is None else out.name.removeprefix(f"{place.path}.")
    mixer = mixer.rpartition(".")[0]
    softmax = mixer.startswith(("attn", "attention", "self_att"))
    known = {place.module.get_submodule(name) for name in (*place.mixed, *place.attention)}
    share = 1.0 if family.every_expert else _share(config)
    return Layer(
        f"{place.path}.{place.mlp if family.up else mixer + '.gates'}.router",
        tuple(up),
        down,
        tuple(attention),
        out,
        (out or down).inputs if softmax else 0,
        None if softmax else place.module.get_submodule(mixer),
        sum(_products(m, share) for m in place.module.modules() if m not in known),
        config.num_experts_per_tok if place.mlp == family.native else 1,
    )


def _share(config: Any) -> float:
    """Of its native experts, how many a token goes through."""
    experts = getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None)
    return getattr(config, "num_experts_per_tok", 1) / experts if experts else 1.0


def _products(module: nn.Module, share: float) -> float:
    """FLOPs of one token's products with a module's own weights, `share` of stacked experts'."""
    if isinstance(module, nn.Embedding | nn.Conv1d):
        return 0.0
    own = list(module.parameters(recurse=False))
    return sum(2.0 * w.numel() * {2: 1.0, 3: share}.get(w.ndim, 0.0) for w in own)


def adapter_shapes(client: Client) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of `comigs.mixture.adapters.adapter_parameters`, by name."""
    model = client.config.model
    routes = client.config.router.routes
    return shapes_of(model.name, model.attention_lora, client.experts, routes)


@lru_cache(maxsize=64)
def shapes_of(
    model: str, attention_lora: bool, experts: ExpertsConfig, routes: Routes
) -> dict[str, tuple[int, ...]]:
    """`adapter_shapes` of whoever has these experts and routers."""
    names, rank = expert_names(experts), experts.rank
    assert isinstance(rank, int)
    shapes: dict[str, tuple[int, ...]] = {}

    def add(linear: Linear, expert: str) -> None:
        shapes[f"{linear.name}.lora_A.{expert}.weight"] = (rank, linear.inputs)
        shapes[f"{linear.name}.lora_B.{expert}.weight"] = (linear.outputs, rank)

    layers = skeleton(model, experts.native).layers
    for layer in layers:
        carriers = layer.attention if layer.out is None else (*layer.attention, layer.out)
        for linear in carriers if attention_lora else ():
            add(linear, names[0])
        for linear in (*layer.up, layer.down):
            for name in names:
                add(linear, name)
        first = layer.router == layers[0].router
        if experts.routed and len(names) > 1 and (first or routes.scope == "layer"):
            own = router_shapes(experts.router, layer.width, len(names), first)
            shapes |= {f"{layer.router}.{name}": shape for name, shape in own.items()}
    return shapes
