"""The way back: a model of ours from what was taken away."""

from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from peft import PeftConfig
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
)

from comigs.backbone.base import load_base
from comigs.config.experts import ExpertsConfig
from comigs.errors import BadInput, one_line
from comigs.export.standalone import MODEL_TYPE
from comigs.mixture.adapters import adapter_parameters, load_adapter_tensors, load_experts
from comigs.mixture.experts import add_experts
from comigs.mixture.models import bare_copy
from comigs.mixture.peftmodel import SETTINGS
from comigs.store.plain import from_home

ADAPTER, CONFIG = "adapter_config.json", "config.json"
PREFIX = "base_model.model."


def load(folder: str | Path, base: str | None = None) -> PreTrainedModel:
    """The model in a folder that `comigs export` or `save_pretrained` wrote, frozen, on the CPU.

    A mixture or an expert comes with its adapters, a merged model as a plain one.

    Args:
        folder: with PEFT folders and routers, of one PEFT expert, for Transformers, or merged.
        base: of PEFT folders: another name or folder than the one they were trained on.

    Raises:
        BadInput: the folder is none of these, is damaged, or its base cannot be had.
    """
    folder = from_home(folder)
    try:
        if (folder / SETTINGS).is_file():
            first = next(iter(sorted(folder.glob(f"*/{ADAPTER}"))), folder / ADAPTER).parent
            return load_experts(_base(first, base), folder)
        if (folder / ADAPTER).is_file():
            return _one_expert(folder, base)
        if (folder / CONFIG).is_file():
            return _whole(folder)
    except BadInput:
        raise
    except Exception as error:  # of whatever kind: it is about what is in the folder
        raise BadInput(f"{folder} cannot be loaded: {one_line(error)[:300]}") from error
    if (folder / "config.yaml").is_file():
        raise BadInput(f"{folder} is a run: comigs.open({str(folder)!r}).client(0).model()")
    inside = sorted(path.parent.name for path in folder.glob(f"*/{ADAPTER}"))
    hint = f"; give one of the experts in it: {', '.join(inside)}" if inside else ""
    raise BadInput(
        f"{folder} holds no {SETTINGS}, {ADAPTER} or {CONFIG}; comigs.load takes what comigs "
        f"export wrote{hint}"
    )


def _base(adapter: Path, base: str | None) -> PreTrainedModel:
    """A base that nobody else uses, for the adapters in a folder."""
    name = base or PeftConfig.from_pretrained(str(adapter)).base_model_name_or_path
    if not name:
        raise BadInput(f"{adapter} does not say which base it is of; give it as base=")
    return bare_copy(load_base(name, "float32"))


def _one_expert(folder: Path, base: str | None) -> PreTrainedModel:
    """A mixture of one expert."""
    lora: Any = PeftConfig.from_pretrained(str(folder))
    tensors = {
        name.removeprefix(PREFIX).replace(".weight", ".generalist_0.weight"): tensor
        for name, tensor in load_file(folder / "adapter_model.safetensors").items()
    }
    experts = ExpertsConfig(
        generalists=1,
        specialists=0,
        rank=lora.r,
        alpha=lora.lora_alpha,
        scaling="rslora" if lora.use_rslora else "standard",
        dropout=lora.lora_dropout,
        top_k=1,
    )
    tree = _base(folder, base)
    for attention in (False, True):  # the first expert alone has LoRA there
        model = add_experts(bare_copy(tree), experts, attention)
        if adapter_parameters(model).keys() == tensors.keys():
            load_adapter_tensors(model, tensors)
            return model
    raise BadInput(f"{folder} is no expert of comigs: its LoRA is on other linears")


def _whole(folder: Path) -> PreTrainedModel:
    settings, _ = PreTrainedConfig.get_config_dict(folder)
    dtype = settings.get("dtype", "float32")
    if settings.get("model_type") != MODEL_TYPE:
        return bare_copy(load_base(str(folder), "bfloat16" if dtype == "bfloat16" else "float32"))
    mixture = settings["mixture"]
    base = {k: v for k, v in settings.items() if k not in ("mixture", "auto_map", "model_type")}
    tensors: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(path)
    tree = _empty(AutoConfig.for_model(mixture["base"], **base), getattr(torch, dtype))
    plain = {name.replace(".base_layer.", "."): name for name in tensors}
    frozen = {name: tensors.pop(plain[name]) for name in tree.state_dict() if name in plain}
    _fill(tree, frozen)
    tree.generation_config = GenerationConfig.from_pretrained(folder)
    model = add_experts(tree, ExpertsConfig(**mixture["experts"]), mixture["attention_lora"])
    if missing := adapter_parameters(model).keys() - tensors.keys():
        raise BadInput(f"{folder}: its tensors lack {min(missing)}")
    load_adapter_tensors(model, tensors)
    return model


def _empty(settings: Any, dtype: torch.dtype) -> PreTrainedModel:
    """A plain causal LM without storage for its weights."""
    with init_empty_weights(include_buffers=False):
        tree: PreTrainedModel = AutoModelForCausalLM.from_config(settings, dtype=dtype)
    return tree


def _fill(tree: PreTrainedModel, tensors: dict[str, Tensor]) -> None:
    """Make `tensors` the weights of `tree`, each in the type that has its place."""
    state = tree.state_dict()
    typed = {name: tensor.to(state[name].dtype) for name, tensor in tensors.items()}
    tree.load_state_dict(typed, strict=False, assign=True)
    tree.tie_weights()
    if left := [name for name, parameter in tree.named_parameters() if parameter.is_meta]:
        raise ValueError(f"its tensors lack {left[0]}")
