"""A model with experts as plain modules again: its base, or one expert merged into the weights."""

from typing import Any, Protocol, runtime_checkable

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from comigs.backbone.stored import StoredLinear
from comigs.mixture.deltas import deltas_of


@runtime_checkable
class Mixed(Protocol):
    """A block that stands in the place of a plain module."""

    def unmixed(self) -> nn.Module: ...


@torch.no_grad()
def to_plain(model: Any, expert: str | None) -> PreTrainedModel:
    """The base of a model with experts, which must not be used any more.

    The frozen weights, which others may share, stay as they are: merged ones are new tensors.

    Args:
        model: as `add_experts` returns it.
        expert: whose LoRA and corrections are merged, with the attention LoRA; None: nobody's.
    """
    tree = model.get_base_model()
    first = next(iter(model.peft_config))
    unpack(tree)
    for path, layer in list(tree.named_modules()):
        if isinstance(layer, LoraLayer):
            linear = layer.get_base_layer()
            if expert is not None:
                _add(linear, _change(layer, expert if expert in layer.lora_A else first))
            tree.set_submodule(path, linear)
            if getattr(layer, "gates", ()):  # of a mixture on this linear alone; they are beside it
                del tree.get_submodule(path.rpartition(".")[0]).gates
    for path, block in list(tree.named_modules()):
        if isinstance(block, Mixed):
            tree.set_submodule(path, block.unmixed())
    del tree.peft_config
    return tree


def unpack(tree: nn.Module) -> None:
    """Make every stored linear a plain one again, in the type of its products."""
    for path, stored in list(tree.named_modules()):
        if isinstance(stored, StoredLinear):
            inputs, outputs = stored.in_features, stored.out_features
            with torch.device("meta"):
                linear = Conv1D(outputs, inputs) if stored.turned else nn.Linear(inputs, outputs)
            weight = stored.dense()
            weight = weight.t().contiguous() if stored.turned else weight
            linear.weight = nn.Parameter(weight, requires_grad=False)
            linear.bias = stored.bias
            tree.set_submodule(path, linear)


def _change(layer: Any, name: str) -> Tensor:
    """What one expert adds to a linear's weight, out x in, fp32."""
    a, b = layer.lora_A[name].weight.float(), layer.lora_B[name].weight.float()
    change = layer.scaling[name] * (b @ a)
    if name in deltas_of(layer):
        a, b = deltas_of(layer)[name]
        change = change + b.float() @ a.float()
    return change


def _add(linear: Any, change: Tensor) -> None:
    change = change.t() if isinstance(linear, Conv1D) else change
    weight = (linear.weight.float() + change).to(linear.weight.dtype)
    linear.weight = nn.Parameter(weight, requires_grad=False)
