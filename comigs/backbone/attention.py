"""Attention in fp32 for bf16 models on the CPU, where torch's bf16 kernel is slower."""

from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "sdpa_in_fp32"


def _forward(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **more: Any
) -> tuple[Tensor, None]:
    if mask is not None and mask.is_floating_point():
        mask = mask.float()
    out, _ = sdpa_attention_forward(module, query.float(), key.float(), value.float(), mask, **more)
    return out.to(query.dtype), None


AttentionInterface.register(NAME, _forward)
AttentionMaskInterface.register(NAME, sdpa_mask)


def prefer_fast_attention(model: PreTrainedModel, compute: str) -> None:
    """Switch a CPU model that computes in bf16 and uses SDPA to SDPA in fp32."""
    on_cpu = model.device.type == "cpu" and compute == "bfloat16"
    if on_cpu and model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(NAME)
