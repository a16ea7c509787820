"""The family table: where each model family keeps its MLP and attention linears.

A new family is one entry in `FAMILIES`, keyed by `config.model_type`.
"""

from dataclasses import dataclass
from typing import Any

from torch import nn

from comigs.errors import BadInput
from comigs.schema.byfile import added_to


@dataclass(frozen=True)
class Family:
    """Names inside one decoder layer, relative to the layer.

    Attributes:
        up: up-projections. One name: `act(up)`, or `act(gate) * up` when `fused` (the linear
            computes both halves, gate first). Two names: `act(first) * second`.
        down: the down-projection.
        act: attribute of the MLP that holds the activation.
        attention: linears that carry the shared attention LoRA.
        fused: whether the single up-projection computes gate and up together.
        conv1d: whether its linears keep their weight as in x out (GPT-2).
        mlp: attribute of the layer that holds the MLP.
        dropout: attribute of the MLP applied to its output, if it has one.
    """

    up: tuple[str, ...]
    down: str
    act: str
    attention: tuple[str, ...]
    fused: bool = False
    conv1d: bool = False
    mlp: str = "mlp"
    dropout: str | None = None


_QKVO = tuple(f"self_attn.{name}_proj" for name in "qkvo")
_LLAMA = Family(up=("gate_proj", "up_proj"), down="down_proj", act="act_fn", attention=_QKVO)

FAMILIES: dict[str, Family] = {
    "gpt2": Family(
        up=("c_fc",),
        down="c_proj",
        act="act",
        attention=("attn.c_attn", "attn.c_proj"),
        conv1d=True,
        dropout="dropout",
    ),
    "llama": _LLAMA,  # also SmolLM and SmolLM2
    "mistral": _LLAMA,
    "qwen2": _LLAMA,  # also Qwen2.5
    "qwen3": _LLAMA,
    "gemma": _LLAMA,
    "gemma2": _LLAMA,
    "gemma3_text": _LLAMA,
    "gpt_neox": Family(  # Pythia
        up=("dense_h_to_4h",),
        down="dense_4h_to_h",
        act="act",
        attention=("attention.query_key_value", "attention.dense"),
    ),
    "phi3": Family(
        up=("gate_up_proj",),
        down="down_proj",
        act="activation_fn",
        attention=("self_attn.qkv_proj", "self_attn.o_proj"),
        fused=True,
    ),
}


def family_of(model_type: str) -> Family:
    """Return the entry for `model_type`.

    Raises:
        BadInput: for a family that is not in the table.
    """
    known = all_families()
    if model_type not in known:
        raise BadInput(
            f"model family {model_type!r} is unknown; known: {', '.join(sorted(known))}. "
            "To add it, give its linears one entry in FAMILIES (comigs/backbone/families.py)"
        )
    return known[model_type]


def all_families() -> dict[str, Family]:
    """The table, and what installed packages add to it.

    Raises:
        BadInput: one of those cannot be used.
    """
    added = added_to(__name__, FAMILIES)
    return FAMILIES | {model_type: load() for model_type, load in added.items()}


def text_model(settings: Any) -> Any:
    """The configuration of the text model inside a multimodal one; of any other its own."""
    inner = settings.get_text_config(decoder=True)
    families = all_families()
    known = settings.model_type not in families and inner.model_type in families
    return inner if known else settings


def decoder_layers(model: nn.Module, family: Family) -> list[tuple[str, nn.Module]]:
    """Return (path, layer) of every decoder layer whose MLP and attention fit `family`."""
    needed = [f"{family.mlp}.{name}" for name in (*family.up, family.down)] + list(family.attention)
    return [
        (path, layer)
        for path, layer in model.named_modules()
        if all(_has(layer, name) for name in needed)
    ]


def _has(module: nn.Module, path: str) -> bool:
    try:
        module.get_submodule(path)
    except AttributeError:
        return False
    return True
