"""A causal language model whose MLPs are mixtures of LoRA experts, as comigs trains them.

Needs torch and transformers, not comigs:

    AutoModelForCausalLM.from_pretrained(FOLDER, trust_remote_code=True)

It is the base's own class; each MLP becomes sum_e g_e MLP_e(x), where MLP_e is the frozen MLP with
the LoRA of expert e, and the gates g are those of the router's top-k experts.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlamaConfig as BaseConfig
from transformers import LlamaForCausalLM as BaseModel

FP32 = ("lora_", "delta_", "router")  # parts that stay so over a base of 16 bits


class MixtureConfig(BaseConfig):
    """The base's configuration, and in `mixture` what stands on it."""

    model_type = "comigs"
    base_model_tp_plan = None  # the base's plan does not know of the experts
    mixture: dict | None = None


class LoraLinear(nn.Module):
    """A frozen linear with the LoRA of each of `names`; it runs with that of the first."""

    lora_A: Any
    lora_B: Any
    delta_A: Any
    delta_B: Any

    def __init__(self, linear: Any, names: list[str], mixture: dict, corrected: dict) -> None:
        super().__init__()
        inputs, outputs = linear.weight.shape
        if isinstance(linear, nn.Linear):
            inputs, outputs = outputs, inputs
        self.inputs = inputs
        self.base_layer, self.scale, rank = linear, mixture["scale"], mixture["rank"]
        self.dropout = nn.Dropout(mixture["dropout"])
        self.lora_A = nn.ModuleDict({n: nn.Linear(inputs, rank, bias=False) for n in names})
        self.lora_B = nn.ModuleDict({n: nn.Linear(rank, outputs, bias=False) for n in names})
        self.delta_A = nn.ModuleDict(
            {n: nn.Linear(inputs, size, bias=False) for n, size in corrected.items()}
        )
        self.delta_B = nn.ModuleDict(
            {n: nn.Linear(size, outputs, bias=False) for n, size in corrected.items()}
        )
        for layer in self.lora_B.values():
            nn.init.zeros_(layer.weight)

    def lora(self, name: str, x: Tensor) -> Tensor:
        """What one expert adds to the frozen linear's output, in the type of x."""
        a, b = (half[name].weight.to(x.dtype) for half in (self.lora_A, self.lora_B))
        out = F.linear(F.linear(self.dropout(x), a * self.scale), b)
        if name in self.delta_A:
            a, b = (half[name].weight.to(x.dtype) for half in (self.delta_A, self.delta_B))
            out = out + F.linear(F.linear(x, a), b)
        return out

    def forward(self, x: Tensor) -> Tensor:
        out = self.base_layer(x)
        wide = x.to(self.lora_A[next(iter(self.lora_A))].weight.dtype)
        return (out + self.lora(next(iter(self.lora_A)), wide)).to(out.dtype)


class MixtureMLP(nn.Module):
    """The mixture of one layer; it takes over the submodules of the frozen MLP."""

    def __init__(self, mlp: nn.Module, mixture: dict) -> None:
        super().__init__()
        for name, child in mlp.named_children():
            self.add_module(name, child)
        self.family, self.names, self.top_k = (mixture[k] for k in ("family", "names", "top_k"))
        self.act: Any = getattr(mlp, self.family["act"])
        up: Any = mlp.get_submodule(self.family["up"][0])
        self.router: nn.Linear | None = None
        if mixture["routed"]:
            self.router = nn.Linear(up.inputs, len(self.names), bias=False)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        shape, x = x.shape, x.reshape(-1, x.shape[-1])
        ups: list[Any] = [self.get_submodule(name) for name in self.family["up"]]
        down: Any = self.get_submodule(self.family["down"])
        frozen = [up.base_layer(x) for up in ups]
        pairs = list(zip(frozen, ups, strict=True))
        gates = self.gates(x, frozen[0].dtype)
        total, low = torch.zeros_like(self.hidden(frozen)), 0
        for e, name in enumerate(self.names):
            rows = gates[:, e].nonzero().squeeze(1)  # of the tokens that chose it
            h = self.hidden([u[rows] + up.lora(name, x[rows]) for u, up in pairs])
            h = h * gates[rows, e : e + 1]
            total = total.index_add(0, rows, h)
            part = down.lora(name, h)
            low = part.new_zeros(len(x), part.shape[1]).index_add(0, rows, part) + low
        y = down.base_layer(total) + low
        if self.router is not None and self.top_k == 1 and down.base_layer.bias is not None:
            y = y + down.base_layer.bias * (gates.sum(1, keepdim=True) - 1)  # of one gate below 1
        if self.family["dropout"]:
            y = self.get_submodule(self.family["dropout"])(y)
        y = y.view(shape)
        return y if residual is None else residual + y

    def hidden(self, up: list[Tensor]) -> Tensor:
        first, *value = up[0].chunk(2, dim=-1) if self.family["fused"] else up
        return self.act(first) * value[0] if value else self.act(first)

    def gates(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """The experts' weights for each of T tokens, T x E; 0 for one that it did not choose."""
        count = len(self.names)
        if self.router is None:
            return x.new_full((len(x), count), 1 / count, dtype=dtype)
        logits = self.router(x.to(self.router.weight.dtype)).float()
        values, chosen = logits.topk(self.top_k, dim=-1)
        picked = values if self.top_k > 1 else logits
        gates = picked.softmax(-1) if self.top_k > 1 else picked.softmax(-1).gather(-1, chosen)
        return torch.zeros_like(logits).scatter(-1, chosen, gates).to(dtype)


class MixtureForCausalLM(BaseModel):
    config_class = MixtureConfig
    _keep_in_fp32_modules_strict = {*(BaseModel._keep_in_fp32_modules_strict or ()), *FP32}  # noqa: RUF012

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        mixture = config.mixture
        family, names = mixture["family"], mixture["names"]
        linears = dict.fromkeys(mixture["attention"], names[:1])
        for path in mixture["mlps"]:
            linears |= {f"{path}.{name}": names for name in (*family["up"], family["down"])}
        for path, experts in linears.items():
            linear, corrected = self.get_submodule(path), mixture["corrections"].get(path, {})
            self.set_submodule(path, LoraLinear(linear, experts, mixture, corrected))
        for path in mixture["mlps"]:
            self.set_submodule(path, MixtureMLP(self.get_submodule(path), mixture))
        self.post_init()
