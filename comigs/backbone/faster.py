"""The same functions in faster forms: attention and activations.

Attention of bf16 models on the CPU is in fp32, since torch's bf16 kernel is slower. All of what an
MLP does to its gate is one module. GELU is by the sigmoid, since a CPU's tanh takes four times as
long.
"""

import math
from collections.abc import Iterable
from statistics import NormalDist
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.activations import GELUTanh, NewGELUActivation
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from comigs.backbone.families import Family, Layer

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


class TanhGELU(nn.GELU):
    """GELU in its tanh form: z (1 + tanh y) / 2 = z sigmoid(2 y), y = c (z + 0.044715 z^3).

    c is sqrt(2 / pi).
    """

    def __init__(self) -> None:
        super().__init__(approximate="tanh")

    def forward(self, z: Tensor) -> Tensor:
        """Map ... x F to ... x F."""
        if z.device.type != "cpu" or z.dtype != torch.float32 or torch.compiler.is_compiling():
            return super().forward(z)
        if torch.is_grad_enabled() and z.requires_grad:
            out: Tensor = _TanhGELU.apply(z)
            return out
        return _double(z).sigmoid_().mul_(z)


_SLOPE = math.sqrt(8 / math.pi)  # 2 c


def _double(z: Tensor, times: int = 1) -> Tensor:
    """2 y, or with three times its cubic part z d(2 y)/dz."""
    return torch.addcmul(torch.tensor(_SLOPE), z, z, value=times * 0.044715 * _SLOPE).mul_(z)


class _TanhGELU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        s = _double(z).sigmoid_()
        ctx.save_for_backward(z, s)
        return s * z

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        """g (s + s (1 - s) z d(2 y)/dz)."""
        z, s = ctx.saved_tensors
        w = _double(z, 3)
        torch.ops.aten.sigmoid_backward.grad_input(w, s, grad_input=w)
        return w.add_(s).mul_(g)


class SparseActivation(nn.Module):
    """Gemma 3n's: of every token, only the largest pre-activations pass, to `act`."""

    def __init__(self, act: nn.Module, sparsity: float) -> None:
        """Args:
        sparsity: the share of normally distributed pre-activations that becomes 0.
        """
        super().__init__()
        self.act, self.deviations = act, NormalDist().inv_cdf(sparsity)

    def forward(self, gate: Tensor) -> Tensor:
        """Map ... x F to ... x F."""
        mean = gate.mean(-1, keepdim=True)
        deviation = (gate - mean).square().mean(-1, keepdim=True).sqrt()  # of no tokens, too
        out: Tensor = self.act(F.relu(gate - mean - deviation * self.deviations))
        return out


def prefer_fast_activation(layers: Iterable[Layer], family: Family) -> None:
    """Give the MLPs of bare decoder layers activations that are whole, and fast.

    What Gemma 3n does before the activation becomes part of it.
    """
    for layer in layers if family.act else ():
        mlp = layer.module.get_submodule(layer.mlp)
        act = getattr(mlp, family.act)
        if isinstance(act, NewGELUActivation | GELUTanh):
            act = TanhGELU()
            setattr(mlp, family.act, act)
        sparsity = getattr(mlp, "activation_sparsity", 0.0)
        if isinstance(sparsity, float) and sparsity > 0:
            setattr(mlp, family.act, SparseActivation(act, sparsity))
            setattr(mlp, "activation_sparsity", 0.0)  # noqa: B010
