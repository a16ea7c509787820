"""Shapes of a base model and of a client's adapters, known without loading any weights."""

import copy
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import nn
from transformers import AutoModelForCausalLM

from comigs.backbone.base import load_settings
from comigs.backbone.families import decoder_layers, family_of
from comigs.config.experts import ExpertsConfig
from comigs.errors import BadInput, one_line
from comigs.federation.run import Client
from comigs.mixture.experts import expert_names
from comigs.mixture.routers import router_shapes


class Linear(NamedTuple):
    """A linear layer by its name in the bare model."""

    name: str
    inputs: int
    outputs: int


@dataclass(frozen=True)
class Layer:
    """One decoder layer; the last attention linear is the output projection."""

    mlp: str
    up: tuple[Linear, ...]
    down: Linear
    attention: tuple[Linear, ...]


@dataclass(frozen=True)
class Skeleton:
    """A base model without its weights.

    Attributes:
        parameters: number of weights, tied ones once.
        width, vocabulary: inputs and outputs of the head.
        eager: whether attention is plain products, not torch's fused kernel.
        parallel: whether an MLP reads the same input as its layer's attention (GPT-NeoX).
    """

    layers: tuple[Layer, ...]
    parameters: int
    width: int
    vocabulary: int
    eager: bool
    parallel: bool


@lru_cache(maxsize=8)
def skeleton(model_name: str) -> Skeleton:
    """Build the model on torch's `meta` device from its config file alone.

    Raises:
        BadInput: when there is no such model, or its family is unknown.
    """
    config = load_settings(model_name)
    family = family_of(config.model_type)
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(copy.deepcopy(config))
    except Exception as error:  # of whatever kind: it is about what is in the folder
        reason = one_line(error)[:300]
        raise BadInput(f"model.name {model_name!r}: its config is unusable ({reason})") from None

    def linear(path: str) -> Linear:
        weight = model.get_submodule(path).weight
        inputs, outputs = weight.shape if family.conv1d else reversed(weight.shape)
        return Linear(path, inputs, outputs)

    layers = [
        Layer(
            f"{path}.{family.mlp}",
            tuple(linear(f"{path}.{family.mlp}.{name}") for name in family.up),
            linear(f"{path}.{family.mlp}.{family.down}"),
            tuple(linear(f"{path}.{name}") for name in family.attention),
        )
        for path, _ in decoder_layers(model, family)
    ]
    head: nn.Module = model.get_output_embeddings()
    vocabulary, width = head.weight.shape  # type: ignore[misc]
    return Skeleton(
        tuple(layers),
        sum(p.numel() for p in model.parameters()),
        width,
        vocabulary,
        model.config._attn_implementation == "eager",
        bool(getattr(config, "use_parallel_residual", False)),
    )


def adapter_shapes(client: Client) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of `comigs.mixture.adapters.adapter_parameters`, by name."""
    model = client.config.model
    return shapes_of(model.name, model.attention_lora, client.experts)


@lru_cache(maxsize=64)
def shapes_of(
    model: str, attention_lora: bool, experts: ExpertsConfig
) -> dict[str, tuple[int, ...]]:
    """`adapter_shapes` of whoever has these experts."""
    names, rank = expert_names(experts), experts.rank
    assert isinstance(rank, int)
    shapes: dict[str, tuple[int, ...]] = {}

    def add(linear: Linear, expert: str) -> None:
        shapes[f"{linear.name}.lora_A.{expert}.weight"] = (rank, linear.inputs)
        shapes[f"{linear.name}.lora_B.{expert}.weight"] = (linear.outputs, rank)

    for layer in skeleton(model).layers:
        for linear in layer.attention if attention_lora else ():
            add(linear, names[0])
        for linear in (*layer.up, layer.down):
            for name in names:
                add(linear, name)
        if experts.routed and len(names) > 1:
            own = router_shapes(experts.router, layer.up[0].inputs, len(names))
            shapes |= {f"{layer.mlp}.router.{name}": shape for name, shape in own.items()}
    return shapes
