"""Frozen low-rank corrections of single experts, which stacking methods add to the base weights.

A correction of a linear is a pair A (R x in), B (out x R) that adds B A x to one expert's output of
that linear, beside its trainable LoRA. Named like the LoRA it belongs to, with `delta` for `lora`.
"""

from collections.abc import Mapping
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from comigs.errors import BadInput

Pair = tuple[Tensor, Tensor]


def is_delta(name: str) -> bool:
    return ".delta_A." in name or ".delta_B." in name


def append(delta: Pair | None, more: Pair) -> Pair:
    """Return a pair whose product is the sum of both products, of rank at most min(out, in)."""
    if delta is None:
        a, b = more
    else:
        a, b = torch.cat([delta[0], more[0]]), torch.cat([delta[1], more[1]], 1)
    smallest = min(a.shape[1], b.shape[0])
    if len(a) <= smallest:
        return a, b
    product = (b.double() @ a.double()).float()
    if a.shape[1] == smallest:
        return torch.eye(smallest), product
    return product, torch.eye(smallest)


def deltas_of(layer: nn.Module) -> dict[str, Pair]:
    """By expert, the corrections of one LoRA layer; changing the dict changes the layer."""
    return layer.__dict__.setdefault("comigs_deltas", {})


def clear_deltas(model: nn.Module) -> None:
    for _, layer in _layers(model):
        deltas_of(layer).clear()


def delta_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Every correction of the model by tensor name, on the CPU."""
    return {
        f"{path}.delta_{half}.{expert}.weight": tensor.cpu()
        for path, layer in _layers(model)
        for expert, pair in deltas_of(layer).items()
        for half, tensor in zip("AB", pair, strict=True)
    }


def refuse_corrections(model: nn.Module) -> None:
    """Refuse to write experts whose base weights are corrected: without that they are others.

    Raises:
        BadInput: when there are corrections.
    """
    if delta_tensors(model):
        raise BadInput(
            "these experts hold corrections of the base weights, which no LoRA can carry; "
            "comigs export --as transformers takes them along, RunResult.client(i).model() has them"
        )


def load_deltas(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Set the corrections named in `tensors`; others keep their value."""
    layers = dict(_layers(model))
    for name in sorted(n for n in tensors if ".delta_A." in n):
        path, expert = name.removesuffix(".weight").split(".delta_A.")
        layer = layers[path]
        device = layer.get_base_layer().weight.device
        b = tensors[name.replace(".delta_A.", ".delta_B.")]
        deltas_of(layer)[expert] = (tensors[name].to(device), b.to(device))


def add_arrived(model: nn.Module, arrived: Mapping[str, Tensor]) -> None:
    """Append the `stack_` pairs among what the server sent, or take its `delta_` pairs instead."""
    own = delta_tensors(model)
    for name in sorted(n for n in arrived if ".stack_A." in n):
        a, b = (name.replace(".stack_A.", f".delta_{half}.") for half in "AB")
        more = (arrived[name], arrived[name.replace(".stack_A.", ".stack_B.")])
        own[a], own[b] = append((own[a], own[b]) if a in own else None, more)
    load_deltas(model, own | {name: t for name, t in arrived.items() if is_delta(name)})


def _layers(model: nn.Module) -> list[tuple[str, Any]]:
    return [
        (name.removeprefix("base_model.model."), module)
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer)
    ]
