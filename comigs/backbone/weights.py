"""Weights as they are stored: all of them there, of the right shapes, numbers, and no pickles."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.nn import init
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging as hf

from comigs.backbone.families import text_model
from comigs.errors import BadInput

BUFFERS = (".masked_bias", ".inv_freq")  # of old checkpoints; every model makes its own
_TEXT_MODEL = {  # names in a multimodal checkpoint, and in the text model
    r"^(model\.)?language_model\.(model\.)?(?!lm_head)": "model.",
    r"^language_model\.lm_head": "lm_head",
}
MOST_LAYERS, MOST = 1000, 10**8  # of a base; and of any other whole number in its config.json


def check_settings(name: str, settings: Any) -> None:
    """Refuse sizes that no model has (it would be built for ever), and quantised weights.

    Raises:
        BadInput: which.
    """
    for key in ("quantization_config", "compression_config"):
        if found := getattr(settings, key, None):
            told = found if isinstance(found, dict) else vars(found)
            raise BadInput(
                f"model.name {name!r}: its weights are quantised ({_method(told)}), which is not "
                "read; give the model they were made from"
            )
    for key, value in settings.to_dict().items():
        most = MOST_LAYERS if key in ("num_hidden_layers", "n_layer", "num_layers") else MOST
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) > most:
            raise BadInput(f"model.name {name!r}: its config.json has {key} = {value:.3g}")


def load_whole(source: str, name: str, dtype: torch.dtype | str) -> PreTrainedModel:
    """A causal LM with every weight read from safetensors, in `dtype`, or "auto": as stored.

    What lies beside the model in its file (a value head, a vision tower) is left out; what the
    model has a place for, by its name, and no use, is refused: a layer or a bias too many.

    Raises:
        BadInput: a tensor is missing, superfluous, of another shape, or holds NaN; or the weights
            are pickled.
    """
    folder = Path(source)
    stored = ("model.safetensors", "model.safetensors.index.json")
    if folder.is_dir() and not any((folder / file).is_file() for file in stored):
        pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt*"))
        why = "; pickled weights are not read: save them as safetensors" if pickled else ""
        raise BadInput(f"model.name {name!r}: the folder holds no model.safetensors{why}")
    whole = AutoConfig.from_pretrained(source)
    inner = text_model(whole)
    nested = {} if inner is whole else {"config": inner, "key_mapping": _TEXT_MODEL}
    with _quiet(), laid_out():
        model, info = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=dtype,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **nested,
        )
    missing = sorted(info["missing_keys"])
    extra = sorted(key for key in info["unexpected_keys"] if not key.endswith(BUFFERS))
    other = sorted(str(each[0]) for each in info["mismatched_keys"])
    own = {_part(model, key) for key in model.state_dict()}
    if missing or other or any(_part(model, key) in own for key in extra):
        told = {"are missing": missing, "have another shape": other, "are not expected": extra}
        parts = [f"{_some(names)} {what}" for what, names in told.items() if names]
        raise BadInput(f"model.name {name!r}: of its tensors {'; '.join(parts)}")
    for key, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise BadInput(f"model.name {name!r}: its tensor {key} holds NaN or infinity")
    return model


def _part(model: PreTrainedModel, name: str) -> str:
    """The part of the model that a tensor's name begins with, behind its backbone's prefix."""
    return name.removeprefix(f"{model.base_model_prefix}.").split(".")[0]


def _method(settings: dict[str, Any]) -> str:
    return str(settings.get("quant_method") or settings.get("format") or "unknown method")[:60]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's table of tensors: what of it is an error is told in one line."""
    before = hf.get_verbosity()
    hf.set_verbosity(max(before, hf.ERROR))
    try:
        yield
    finally:
        hf.set_verbosity(before)


@contextmanager
def laid_out() -> Iterator[None]:
    """Without the first values that torch gives to layers: a model's own follow, from its file.

    On the meta device they are made by code that imports SymPy.
    """
    names = ("normal_", "uniform_", "kaiming_uniform_", "xavier_uniform_")
    kept = {name: getattr(init, name) for name in names}
    for name in names:
        setattr(init, name, lambda tensor, *args, **kwargs: tensor)
    try:
        yield
    finally:
        for name, function in kept.items():
            setattr(init, name, function)


def _some(names: Iterable[str], count: int = 2) -> str:
    listed = list(names)
    more = len(listed) - count
    return ", ".join(listed[:count]) + (f" and {more} more" if more > 0 else "")
