"""The family table: where each model family keeps its MLP and attention linears.

A new family is one entry in `FAMILIES`, keyed by `config.model_type`.
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from torch import nn

from comigs.errors import BadInput
from comigs.schema.byfile import added_to


@dataclass(frozen=True)
class Family:
    """Names inside one decoder layer, relative to the layer.

    Attributes:
        up: up-projections. One name: `act(up)`, or `act(gate) * up` when `fused` (the linear
            computes both halves, gate first). Two names: `act(first) * second`. None: the mixture
            is on the one linear that `mlp` names.
        down: the down-projection.
        act: attribute of the MLP that holds the activation.
        attention: linears that carry the shared attention LoRA; a layer may lack some of them.
        fused: whether the single up-projection computes gate and up together.
        conv1d: whether its linears keep their weight as in x out (GPT-2).
        mlp: path of the MLP in the layer.
        shared: its path in layers whose MLP is a native mixture of experts with a dense MLP
            beside it, which takes ours.
        native: path of the native experts in a layer that has no dense MLP: each of them takes
            ours with `experts.native`.
        dropout: attribute of the MLP applied to its output, if it has one.
        parallel: whether its MLPs read what attention reads, whatever the config says.
        every_expert: whether every native expert computes every token.
        packs: whether Transformers keeps examples apart where positions begin again in a row.
        together: whether several models may write in one pass (`comigs.talk.voices`).
    """

    up: tuple[str, ...]
    down: str
    act: str
    attention: tuple[str, ...]
    fused: bool = False
    conv1d: bool = False
    mlp: str = "mlp"
    shared: str | None = None
    native: str | None = None
    dropout: str | None = None
    parallel: bool = False
    every_expert: bool = False
    packs: bool = True
    together: bool = True


class Layer(NamedTuple):
    """One decoder layer of a model.

    Attributes:
        path: in the model.
        mlp: path of the mixture's MLP (or linear) in the layer.
        mixed: paths of the linears that carry every expert's LoRA, in the layer.
        attention: paths of those that carry the first expert's alone, in the layer.
    """

    path: str
    module: nn.Module
    mlp: str
    mixed: tuple[str, ...]
    attention: tuple[str, ...]


_QKV = tuple(f"self_attn.{name}_proj" for name in "qkv")
_QKVO = (*_QKV, "self_attn.o_proj")
_LLAMA = Family(up=("gate_proj", "up_proj"), down="down_proj", act="act_fn", attention=_QKVO)
_COHERE = replace(_LLAMA, parallel=True)
_SHARED = replace(_LLAMA, shared="mlp.shared_expert", together=False)
_DELTA_NET = tuple(f"linear_attn.{name}" for name in ("in_proj_qkv", "in_proj_z", "out_proj"))
_BLOOM = Family(
    up=("dense_h_to_4h",),
    down="dense_4h_to_h",
    act="act",
    attention=("self_attention.query_key_value", "self_attention.dense"),
    packs=False,
)
# Of native mixtures of experts without a dense MLP ours is on the output of the attention.
_ATTENTION = Family(up=(), down="", act="", attention=_QKV, mlp="self_attn.o_proj", together=False)
_NATIVE = replace(_ATTENTION, native="mlp.experts")

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
    "qwen3_5_text": replace(_LLAMA, attention=(*_QKVO, *_DELTA_NET), packs=False, together=False),
    "gemma": _LLAMA,
    "gemma2": _LLAMA,
    "gemma3_text": _LLAMA,
    "gemma3n_text": _LLAMA,
    "gemma4_text": _LLAMA,  # in its mixtures of experts (26B-A4B) ours is in the dense MLP
    "olmo2": _LLAMA,
    "granite": _LLAMA,
    "stablelm": _LLAMA,
    "cohere": _COHERE,
    "cohere2": _COHERE,
    "starcoder2": Family(up=("c_fc",), down="c_proj", act="act", attention=_QKVO),
    "gpt_neox": Family(  # Pythia
        up=("dense_h_to_4h",),
        down="dense_4h_to_h",
        act="act",
        attention=("attention.query_key_value", "attention.dense"),
    ),
    "falcon": _BLOOM,
    "bloom": replace(_BLOOM, act="gelu_impl", together=False),
    "phi3": Family(
        up=("gate_up_proj",),
        down="down_proj",
        act="activation_fn",
        attention=("self_attn.qkv_proj", "self_attn.o_proj"),
        fused=True,
    ),
    "llama4_text": replace(
        _LLAMA,
        act="activation_fn",
        mlp="feed_forward",
        shared="feed_forward.shared_expert",
        every_expert=True,
        together=False,
    ),
    "qwen2_moe": _SHARED,
    "qwen3_5_moe_text": replace(_SHARED, attention=(*_QKVO, *_DELTA_NET), packs=False),
    "granitemoeshared": Family(
        up=("input_linear",),
        down="output_linear",
        act="activation",
        attention=_QKVO,
        fused=True,
        mlp="shared_mlp",
    ),
    "mixtral": _NATIVE,
    "olmoe": _NATIVE,
    "qwen3_moe": _NATIVE,
    "granitemoe": replace(_NATIVE, native="block_sparse_moe.experts"),
    # PEFT takes no LoRA on out_proj, past which kernels compute: ours is on what comes in.
    "mamba2": replace(_ATTENTION, attention=(), mlp="mixer.in_proj", packs=False),
}


_CANNOT = {  # where an entry would not do
    "opt": "its MLPs are no modules of their own, which a mixture could stand in for",
}


def family_of(model_type: str) -> Family:
    """Return the entry for `model_type`.

    Raises:
        BadInput: for a family that is not in the table.
    """
    known = all_families()
    if model_type in _CANNOT and model_type not in known:
        raise BadInput(f"model family {model_type!r} cannot be used: {_CANNOT[model_type]}")
    if model_type not in known:
        raise BadInput(
            f"model family {model_type!r} is unknown; known: {', '.join(sorted(known))}. "
            f"To add it, name its linears in an entry FAMILIES[{model_type!r}] "
            "(comigs/backbone/families.py)"
        )
    return known[model_type]


def on_native_experts(model_type: str) -> Family:
    """The entry for `model_type` whose mixture is on every native expert (`experts.native`).

    Raises:
        BadInput: the family has none, or a dense MLP beside them.
    """
    family = family_of(model_type)
    if family.native is None:
        able = sorted(name for name, each in all_families().items() if each.native)
        raise BadInput(
            f"experts.native is true; {model_type} models have no native experts that take LoRA: "
            f"set it to false (it is for {', '.join(able)})",
            "experts.native",
        )
    return replace(
        family,
        up=("gate_up",),
        down="down",
        act="act_fn",
        attention=_QKVO,
        fused=True,
        mlp=family.native,
    )


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


def decoder_layers(model: nn.Module, family: Family) -> list[Layer]:
    """Every decoder layer of `model` whose MLP and attention fit `family`.

    Raises:
        BadInput: there is none.
    """
    found = []
    for path, module in model.named_modules():
        attention = tuple(name for name in family.attention if _has(module, name))
        for mlp in filter(None, (family.mlp, family.shared)):
            mixed = tuple(f"{mlp}.{name}" for name in (*family.up, family.down) if name) or (mlp,)
            if bool(attention) == bool(family.attention) and all(
                _has(module, name) for name in mixed
            ):
                found.append(Layer(path, module, mlp, mixed, attention))
                break
    if not found:
        needed = ", ".join((*family.up, family.down)).strip(", ") or "a linear"
        raise BadInput(
            f"no layer of the model has {needed} at {family.mlp}: its entry in FAMILIES "
            "(comigs/backbone/families.py) does not fit it"
        )
    return found


def _has(module: nn.Module, path: str) -> bool:
    try:
        module.get_submodule(path)
    except AttributeError:
        return False
    return True
