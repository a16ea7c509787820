"""The small tensors that are trained: names, initial values, saving and loading.

Tensor names are those of the bare Hugging Face model, e.g.
`transformer.h.0.mlp.c_fc.lora_A.generalist_0.weight` or `transformer.h.0.mlp.router.weight`.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor, nn

from comigs.config.experts import ExpertsConfig, Routes
from comigs.errors import BadInput
from comigs.mixture.deltas import delta_tensors, is_delta, load_deltas
from comigs.mixture.experts import add_experts, expert_blocks
from comigs.mixture.gates import own_routers
from comigs.mixture.peftmodel import ROUTERS, SETTINGS
from comigs.seeds import generator

_PREFIX = "base_model.model."


def is_router(name: str) -> bool:
    """Whether an adapter tensor is a router's."""
    return ".router." in name


def is_gain(name: str) -> bool:
    """Whether an adapter tensor is a router's factor of its mixture (`comigs.mixture.routers`)."""
    return name.endswith(".router.gain")


def adapter_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Every expert, attention-LoRA and router parameter by name, in model order.

    Routers that the base has itself are none of them.
    """
    routers = own_routers(model)
    return {
        name.removeprefix(_PREFIX): parameter
        for name, parameter in model.named_parameters()
        if ".lora_" in name or name in routers
    }


def adapter_tensors(model: nn.Module) -> dict[str, Tensor]:
    """A copy of every adapter parameter's value, and the frozen corrections, on the CPU."""
    values = {n: p.detach().to("cpu", copy=True) for n, p in adapter_parameters(model).items()}
    return values | delta_tensors(model)


@torch.no_grad()
def load_adapter_tensors(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy `tensors` into the model's adapters; others keep their value.

    Raises:
        BadInput: for a name the model does not have or a shape that differs.
    """
    parameters = adapter_parameters(model)
    load_deltas(model, tensors)
    for name, tensor in tensors.items():
        if is_delta(name):
            continue
        if name not in parameters:
            raise BadInput(f"tensor {name!r} does not exist in this client's model")
        if parameters[name].shape != tensor.shape:
            have, want = tuple(tensor.shape), tuple(parameters[name].shape)
            raise BadInput(f"tensor {name!r} has shape {have}; this client's model needs {want}")
        parameters[name].copy_(tensor)


@torch.no_grad()
def init_adapters(
    model: nn.Module,
    seed: int,
    client: int | str,
    shares: Callable[[str], bool] = lambda name: False,
    round_number: int = 0,
) -> None:
    """Set the start: A ~ Kaiming-uniform(a = sqrt 5), B and gains = 0, routers as linear layers.

    Generalists and whatever else `shares` names start equal on every client; the others differ.
    """
    for name, parameter in adapter_parameters(model).items():
        owner = "everyone" if ".generalist_" in name or shares(name) else client
        parameter.copy_(start_tensor(name, tuple(parameter.shape), seed, owner, round_number))


@torch.no_grad()
def start_empty_components(model: nn.Module, seed: int) -> None:
    """Give rows of A that are 0 their start: with a column of B that is 0 they could never learn.

    A device of a higher rank than all that trained in a round gets such components.
    """
    for name, parameter in adapter_parameters(model).items():
        if ".lora_A." in name and (empty := ~parameter.any(1)).any():
            start = start_tensor(name, tuple(parameter.shape), seed)
            parameter[empty] = start.to(parameter.device)[empty]


def start_tensor(
    name: str, shape: tuple[int, ...], seed: int, owner: int | str = "everyone", number: int = 0
) -> Tensor:
    """The start of one adapter tensor (see `init_adapters`), fp32.

    Args:
        owner: the client, or everyone for a tensor that all start equal.
        number: the round that it starts in.
    """
    if ".lora_B." in name or is_gain(name):
        return torch.zeros(shape)
    rng = generator(seed, owner, number, f"init {name}")
    return (torch.rand(shape, generator=rng) * 2 - 1) * (1 / math.sqrt(shape[-1]))


@contextmanager
def training_experts(
    model: nn.Module, learns: Callable[[str], bool] = lambda name: not is_router(name)
) -> Iterator[nn.Module]:
    """Within the context only experts (and attention LoRA) require grad; LoRA dropout is on.

    Args:
        learns: which adapter tensors require grad instead.
    """
    with _training(model, learns):
        drops = [m for n, m in model.named_modules() if ".lora_dropout." in n]
        for module in drops:
            module.train()
        try:
            yield model
        finally:
            for module in drops:
                module.eval()


@contextmanager
def training_router(model: nn.Module) -> Iterator[nn.Module]:
    """Within the context only routers require grad."""
    with _training(model, is_router):
        yield model


@contextmanager
def _training(model: nn.Module, learns: Callable[[str], bool]) -> Iterator[None]:
    model.requires_grad_(False)
    for name, parameter in adapter_parameters(model).items():
        parameter.requires_grad_(learns(name))
    try:
        yield
    finally:
        model.requires_grad_(False)


def save_experts(model: PeftModel, folder: str | Path) -> None:
    """Write one plain PEFT folder per expert, the routers, and `experts.json`.

    `folder/generalist_0` loads with `PeftModel.from_pretrained(base, ...)`.

    Raises:
        BadInput: for the experts of a method that corrects the base weights.
    """
    model.save_pretrained(folder)


def load_experts(model: nn.Module, folder: str | Path) -> PeftModel:
    """Load what `save_experts` wrote: into a bare base model, or one that has these experts.

    Raises:
        BadInput: when the folder is not one that `save_experts` wrote.
    """
    folder = Path(folder)
    if not (folder / SETTINGS).is_file():
        raise BadInput(f"{folder} holds no experts.json; give a folder written by save_experts")
    settings = json.loads((folder / SETTINGS).read_text("utf-8"))
    if not isinstance(model, PeftModel):
        experts = ExpertsConfig(**settings["experts"])
        routes = Routes(**settings.get("routes", {}))
        model = add_experts(model, experts, settings["attention_lora"], routes)
    tensors = load_file(folder / ROUTERS)
    for name in expert_blocks(model)[0].names:
        for key, tensor in load_file(folder / name / "adapter_model.safetensors").items():
            key = key.removeprefix(_PREFIX).replace(".weight", f".{name}.weight")
            tensors[key] = tensor
    load_adapter_tensors(model, tensors)
    return model
