"""One expert as a plain LoRA, for programs that know of no mixtures."""

import copy
import json
from pathlib import Path
from typing import Any

from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from transformers.pytorch_utils import Conv1D

from comigs.mixture.deltas import refuse_corrections
from comigs.talk.weights import low_rank


def write_lora(model: Any, expert: str, place: Path, stored: bool = False) -> None:
    """Write one expert, with the attention LoRA that all experts share, as a PEFT adapter.

    Its scaling is in its weights, with alpha = rank: not all programs know how PEFT scales.

    Args:
        stored: have A and B of a weight that is stored in x out (GPT-2's) make its change as it is
            stored, which is how llama.cpp's converter takes them, and PEFT does not.

    Raises:
        BadInput: the base weights are corrected, which no LoRA can carry.
    """
    refuse_corrections(model)
    first = next(iter(model.peft_config))
    tensors = {}
    for path, layer in model.get_base_model().named_modules():
        if isinstance(layer, LoraLayer):
            a, b = low_rank(layer, expert if expert in layer.lora_A else first)
            if stored and isinstance(layer.get_base_layer(), Conv1D):
                a, b = b.mT, a.mT
            for half, tensor in (("A", a), ("B", b)):
                name = f"base_model.model.{path}.lora_{half}.weight"
                tensors[name] = tensor.cpu().contiguous()
    config = copy.copy(model.peft_config[expert])
    config.lora_alpha, config.use_rslora, config.lora_dropout = config.r, False, 0.0
    config.inference_mode = True
    config.save_pretrained(str(place))
    path = place / "adapter_config.json"
    targets = sorted(
        {name.split(".lora_")[0].removeprefix("base_model.model.") for name in tensors}
    )
    settings = json.loads(path.read_text("utf-8")) | {"target_modules": targets}
    path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", "utf-8")
    save_file(tensors, place / "adapter_model.safetensors", {"format": "pt"})
