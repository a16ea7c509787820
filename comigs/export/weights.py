"""A base's weights and configuration as Transformers has them on disk."""

import json
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from torch import Tensor
from transformers import PreTrainedModel

from comigs.backbone.stored import unpack
from comigs.federation.run import Client
from comigs.mixture.adapters import is_router
from comigs.mixture.deltas import is_delta


def stored_type(client: Client) -> torch.dtype:
    """The type that a client's base is stored in, of int8 and nf4 that of their products."""
    plain = client.dtype in ("float32", "bfloat16")
    found: torch.dtype = getattr(torch, client.dtype if plain else client.compute)
    return found


def write_weights(
    tree: PreTrainedModel, place: Path, dtype: torch.dtype, more: dict[str, Tensor]
) -> None:
    """Write every tensor once, `more` beside them; those of the base in `dtype`."""
    skipped = set()
    if tree.config.tie_word_embeddings:
        head = tree.get_output_embeddings()
        skipped = {f"{path}.weight" for path, module in tree.named_modules() if module is head}
    unpack(tree)
    tensors = {
        name: tensor if _is_ours(name) or not tensor.is_floating_point() else tensor.to(dtype)
        for name, tensor in tree.state_dict().items()
        if name not in skipped
    }
    save_torch_state_dict(tensors | more, place)


def write_settings(tree: PreTrainedModel, place: Path, **changed: Any) -> None:
    """Write config.json, the base's with `changed`, and how text is generated."""
    settings: dict[str, Any] = json.loads(tree.config.to_json_string())
    settings.pop("_name_or_path", None)
    settings |= {"architectures": [type(tree).__name__]} | changed
    (place / "config.json").write_text(json.dumps(settings, indent=2) + "\n", "utf-8")
    tree.generation_config.save_pretrained(place)


def _is_ours(name: str) -> bool:
    return ".lora_" in name or is_router(name) or is_delta(name)
