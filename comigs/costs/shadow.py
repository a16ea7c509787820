"""A training step on tensors without storage: what it would hold in memory, in any model family.

The model is built from its config alone, and the very code of a real step runs on torch's fake
tensors, which have shapes and types but no values. What depends on values is replaced by the
expected case: tokens spread evenly over the experts.
"""

import copy
import weakref
from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from transformers import AutoModelForCausalLM

from comigs.backbone.base import load_settings
from comigs.backbone.faster import prefer_fast_attention
from comigs.backbone.stored import PER_BYTE, settle, store, unlike
from comigs.config.experts import ExpertsConfig, Routes
from comigs.config.model import NATIVE, ModelConfig
from comigs.hardware import device
from comigs.mixture.experts import add_experts

_aten = torch.ops.aten
_DEVICE = torch.ops.prim.device.default


def depth(model: ModelConfig) -> int:
    """Number of decoder layers."""
    return int(load_settings(model.name).num_hidden_layers)


def shadow_model(
    model: ModelConfig, experts: ExpertsConfig, routes: Routes, layers: int, mode: FakeTensorMode
) -> PeftModel:
    """The first `layers` layers of a client's model (`comigs.mixture.models`), without weights."""
    dtype, compute = cast(str, model.dtype), cast(str, model.compute)
    compute = NATIVE[dtype] if compute == "auto" else compute
    stored = "bfloat16" if dtype in PER_BYTE else dtype
    config = load_settings(model.name)
    if layers < config.num_hidden_layers:
        config.num_hidden_layers = layers
        if "layer_types" in vars(config) and config.layer_types:
            config.layer_types = config.layer_types[:layers]
        if getattr(config, "num_kv_shared_layers", None):
            config.num_kv_shared_layers = 0  # these are the last ones
    with torch.device("meta"):
        base = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, stored))
        if unlike(dtype, compute, device().type):
            store(base, dtype, compute)
            settle(base, compute)
        mixture = add_experts(base.eval(), experts, model.attention_lora, routes)
    with mode:
        fakes = {id(t): _on_cpu(t) for t in (*mixture.parameters(), *mixture.buffers())}
        shadow = copy.deepcopy(mixture, fakes)
        prefer_fast_attention(shadow.get_base_model(), compute)
    return shadow


def _on_cpu(tensor: Tensor) -> Tensor:
    fake = torch.empty(tensor.shape, dtype=tensor.dtype)
    return nn.Parameter(fake, False) if isinstance(tensor, nn.Parameter) else fake


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that are made within the context and still referred to.

    Attributes:
        live: bytes now.
        peak: the most bytes at any time.
    """

    def __init__(self, held: Iterable[Tensor], experts: int) -> None:
        """Args:
        held: tensors that exist already and do not count.
        experts: over which each token's choices spread evenly.
        """
        super().__init__()
        self.live = self.peak = 0
        self._sizes = {t.untyped_storage()._cdata: 0 for t in held}
        self._experts = experts

    def __torch_dispatch__(
        self, call: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if call is _DEVICE:  # more than half of all calls, from each look at `Tensor.device`
            return args[0].fake_device
        if call is _aten._local_scalar_dense.default:
            return 1.0
        if call is _aten.bincount.default:
            out = args[0].new_empty(self._experts)
        elif call is _aten.nonzero.default:
            out = args[0].new_empty(args[0].numel() // self._experts, args[0].dim(), dtype=int)
        elif call is _aten._grouped_mm.default:  # of native experts; fake ones are of bf16 only
            out = args[0].new_empty(args[0].shape[0], args[1].shape[-1])
        else:
            out = call(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            self._count(out)
        else:
            tree_map_only(Tensor, self._count, out)
        return out

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._sizes:
            self._sizes[storage._cdata] = storage.nbytes()
            self.live += storage.nbytes()
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._free, storage._cdata)

    def _free(self, key: int) -> None:
        self.live -= self._sizes.pop(key)
