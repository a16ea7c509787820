"""A causal language model whose MLPs are mixtures of LoRA experts, as comigs trains them.

Needs torch and transformers, not comigs:

    AutoModelForCausalLM.from_pretrained(FOLDER, trust_remote_code=True)

It is the base's own class; each MLP becomes sum_e g_e MLP_e(x), where MLP_e is the frozen MLP with
the LoRA of expert e, and the gates g are those of the router's top-k experts. Where an MLP has no
dense linears, it is one linear that does.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlamaConfig as BaseConfig
from transformers import LlamaForCausalLM as BaseModel


class MixtureConfig(BaseConfig):
    """The base's configuration, and in `mixture` what stands on it."""

    model_type = "comigs"
    base_model_tp_plan = None  # the base's plan does not know of the experts
    mixture: dict | None = None


class Gates(nn.Module):
    """What weight each expert has for each token: a router's, or 1/E without one."""

    def __init__(self, width: int, mixture: dict) -> None:
        super().__init__()
        self.names, self.top_k = mixture["names"], mixture["top_k"]
        self.router: nn.Linear | None = None
        if mixture["routed"]:
            self.router = nn.Linear(width, len(self.names), bias=False)

    def gates(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """The weights for T tokens (T x d), T x E; 0 for an expert that a token did not choose."""
        count = len(self.names)
        if self.router is None:
            return x.new_full((len(x), count), 1 / count, dtype=dtype)
        logits = self.router(x.to(self.router.weight.dtype)).float()
        values, chosen = logits.topk(self.top_k, dim=-1)
        gates = values.softmax(-1) if self.top_k > 1 else logits.softmax(-1).gather(-1, chosen)
        return torch.zeros_like(logits).scatter(-1, chosen, gates).to(dtype)

    @property
    def below_one(self) -> bool:
        """Whether the weights do not sum to 1: one expert is chosen, with its probability."""
        return self.router is not None and self.top_k == 1


class LoraLinear(nn.Module):
    """A frozen linear with the LoRA of each of `names`.

    It runs with that of the first; or, where it has `mixing`, as a mixture of all.
    """

    lora_A: Any
    lora_B: Any
    delta_A: Any
    delta_B: Any
    mixing: tuple[Gates, ...] = ()  # a tuple, so that it is no part of this module

    def __init__(self, linear: Any, names: list[str], mixture: dict, corrected: dict) -> None:
        super().__init__()
        inputs, outputs = linear.weight.shape
        if isinstance(linear, nn.Linear):
            inputs, outputs = outputs, inputs
        self.inputs, rank = inputs, mixture["rank"]
        self.base_layer, self.scale = linear, mixture["scale"]
        self.dropout = nn.Dropout(mixture["dropout"])
        self.lora_A, self.lora_B = _pairs(inputs, dict.fromkeys(names, rank), outputs)
        self.delta_A, self.delta_B = _pairs(inputs, corrected, outputs)
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
        if self.mixing:
            return self.mixture(x.reshape(-1, x.shape[-1]), out, self.mixing[0])
        name = next(iter(self.lora_A))
        wide = x.to(self.lora_A[name].weight.dtype)
        return (out + self.lora(name, wide)).to(out.dtype)

    def mixture(self, x: Tensor, out: Tensor, mixing: Gates) -> Tensor:
        gates = mixing.gates(x, out.dtype)
        y = out.reshape(len(x), -1)
        if mixing.below_one:
            y = y * gates.sum(1, keepdim=True)
        for e, name in enumerate(mixing.names):
            y = y + self.lora(name, x) * gates[:, e : e + 1]
        return y.view(out.shape)


def _pairs(inputs: int, ranks: dict[str, int], outputs: int) -> tuple[nn.Module, nn.Module]:
    a = {name: nn.Linear(inputs, rank, bias=False) for name, rank in ranks.items()}
    b = {name: nn.Linear(rank, outputs, bias=False) for name, rank in ranks.items()}
    return nn.ModuleDict(a), nn.ModuleDict(b)


class MixtureMLP(Gates):
    """The mixture of one layer; it takes over the submodules of the frozen MLP."""

    def __init__(self, mlp: nn.Module, mixture: dict) -> None:
        self.family = mixture["family"]
        up: Any = mlp.get_submodule(self.family["up"][0])
        super().__init__(up.inputs, mixture)
        for name, child in mlp.named_children():
            self.add_module(name, child)
        self.act: Any = getattr(mlp, self.family["act"])
        sparse = getattr(mlp, "activation_sparsity", 0.0)
        self.largest: Any = getattr(mlp, "_gaussian_topk", None) if sparse else None  # Gemma 3n's

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
        if self.below_one and down.base_layer.bias is not None:
            y = y + down.base_layer.bias * (gates.sum(1, keepdim=True) - 1)
        if self.family["dropout"]:
            y = self.get_submodule(self.family["dropout"])(y)
        y = y.view(shape)
        return y if residual is None else residual + y

    def hidden(self, up: list[Tensor]) -> Tensor:
        first, *value = up[0].chunk(2, dim=-1) if self.family["fused"] else up
        first = first if self.largest is None else self.largest(first)
        return self.act(first) * value[0] if value else self.act(first)


class MixtureForCausalLM(BaseModel):
    config_class = MixtureConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        mixture = config.mixture
        family, names = mixture["family"], mixture["names"]
        linears = dict.fromkeys(mixture["attention"], names[:1])
        linears |= dict.fromkeys(mixture["linears"], names)
        for path in mixture["mlps"]:
            linears |= {f"{path}.{name}": names for name in (*family["up"], family["down"])}
        for path, experts in linears.items():
            linear, corrected = self.get_submodule(path), mixture["corrections"].get(path, {})
            self.set_submodule(path, LoraLinear(linear, experts, mixture, corrected))
        for path in mixture["mlps"]:
            self.set_submodule(path, MixtureMLP(self.get_submodule(path), mixture))
        for path in mixture["linears"]:
            lora: Any = self.get_submodule(path)
            lora.mixing = (Gates(lora.inputs, mixture),)
            self.get_submodule(path.rpartition(".")[0]).gates = lora.mixing[0]
        self.post_init()
        routers = [f"{path}.router" for path, m in self.named_modules() if isinstance(m, Gates)]
        self._keep_in_fp32_modules_strict |= {"lora_", "delta_", *routers}
