"""Weights as they are stored: all of them there, of the right shapes, numbers, and no pickles."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from comigs.errors import BadInput

MOST_LAYERS, MOST = 1000, 10**8  # of a base; and of any other whole number in its config.json


def check_settings(name: str, settings: Any) -> None:
    """Refuse sizes that no model has: it would be built for ever.

    Raises:
        BadInput: which.
    """
    for key, value in settings.to_dict().items():
        most = MOST_LAYERS if key in ("num_hidden_layers", "n_layer", "num_layers") else MOST
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) > most:
            raise BadInput(f"model.name {name!r}: its config.json has {key} = {value:.3g}")


def load_whole(source: str, name: str, dtype: torch.dtype) -> PreTrainedModel:
    """A causal LM with every weight read from safetensors.

    Raises:
        BadInput: a tensor is missing, of another shape, or holds NaN; or the weights are pickled.
    """
    folder = Path(source)
    if folder.is_dir() and not any(folder.glob("*.safetensors")):
        pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt*"))
        why = "; pickled weights are not read: save them as safetensors" if pickled else ""
        raise BadInput(f"model.name {name!r}: the folder holds no model.safetensors{why}")
    model, info = AutoModelForCausalLM.from_pretrained(
        source,
        dtype=dtype,
        use_safetensors=True,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
    )
    missing, extra = sorted(info["missing_keys"]), sorted(info["unexpected_keys"])
    other = sorted(str(each[0]) for each in info["mismatched_keys"])
    if missing or other:
        told = {"are missing": missing, "have another shape": other, "are not expected": extra}
        parts = [f"{_some(names)} {what}" for what, names in told.items() if names]
        raise BadInput(f"model.name {name!r}: of its tensors {'; '.join(parts)}")
    for key, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise BadInput(f"model.name {name!r}: its tensor {key} holds NaN or infinity")
    return model


def _some(names: Iterable[str], count: int = 2) -> str:
    listed = list(names)
    more = len(listed) - count
    return ", ".join(listed[:count]) + (f" and {more} more" if more > 0 else "")
