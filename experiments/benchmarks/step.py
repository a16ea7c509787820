"""Time and memory of one expert step, compared in alternation.

    python -m experiments.benchmarks.step [--quick] [--out FILE.json]

(a) our mixture with E = k = 2; (b) plain one-adapter PEFT LoRA on the same linears; (c) a naive
mixture that calls the whole MLP once per expert. Random weights of the GPT-2 124M and of a 135M
Llama shape, fp32 and bf16 base, fp32 adapters, 4 x 128 tokens. Minima of alternating runs; memory
is the peak of live tensor bytes in the step on top of what the model itself holds.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PretrainedConfig

from comigs.backbone.families import family_of
from comigs.backbone.faster import prefer_fast_attention
from comigs.config.experts import ExpertsConfig
from comigs.mixture.adapters import adapter_parameters, is_router
from comigs.mixture.experts import ExpertMLP, add_experts, expert_blocks
from comigs.mixture.models import bare_copy
from experiments.benchmarks.peak import peak_bytes
from experiments.benchmarks.record import RESULTS, prepare, save

SHAPES: dict[str, PretrainedConfig] = {
    "gpt2-124M": GPT2Config(),
    "llama-135M": LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
    ),
}
EXPERTS = ExpertsConfig(generalists=1, specialists=1, top_k=2, rank=8)


class NaiveMLP(nn.Module):
    """sum_e g_e MLP_e(x), each expert through the whole MLP with PEFT's own LoRA layers."""

    def __init__(self, block: ExpertMLP) -> None:
        super().__init__()
        self.inner, self.names, self.router = block, block.names, block.router
        self.linears = [block.get_submodule(n) for n in (*block.family.up, block.family.down)]

    def forward(self, x: Tensor) -> Tensor:
        gates = self.router(x.float()).softmax(-1).to(x.dtype)
        total = torch.zeros_like(x)
        for e, name in enumerate(self.names):
            for linear in self.linears:
                linear._active_adapter = [name]
            total = total + gates[..., e : e + 1] * self._whole(x)
        return total

    def _whole(self, x: Tensor) -> Tensor:
        *ups, down = self.linears
        hidden = self.inner._act(ups[0](x))
        return down(hidden * ups[1](x) if len(ups) > 1 else hidden)


def ours(base: nn.Module) -> nn.Module:
    return add_experts(bare_copy(base), EXPERTS)


def naive(base: nn.Module) -> nn.Module:
    model = ours(base)
    family = family_of(base.config.model_type)
    blocks = expert_blocks(model)
    for module in list(model.modules()):
        if getattr(module, family.mlp, None) in blocks:
            setattr(module, family.mlp, NaiveMLP(getattr(module, family.mlp)))
    return model


def plain(base: nn.Module) -> nn.Module:
    family = family_of(base.config.model_type)
    mlp = [f"{family.mlp}.{name}" for name in (*family.up, family.down)]
    config = LoraConfig(
        r=8, lora_alpha=16, use_rslora=True, target_modules=[*mlp, *family.attention]
    )
    return get_peft_model(bare_copy(base), config)


def stepper(model: nn.Module, ids: Tensor) -> Callable[[], None]:
    """One step as in local training: forward, loss, backward, AdamW on the LoRA tensors."""
    parameters = [p for n, p in adapter_parameters(model).items() if not is_router(n)]
    model.requires_grad_(False)
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        logits = model(input_ids=ids[:, :-1], use_cache=False).logits
        F.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten()).backward()
        optimizer.step()

    return step


def measure(shape: str, dtype: torch.dtype, repeats: int, length: int) -> dict:
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    base = AutoModelForCausalLM.from_config(SHAPES[shape], dtype=dtype).eval().requires_grad_(False)
    prefer_fast_attention(base.to(device), str(dtype).removeprefix("torch."))
    ids = torch.randint(0, base.config.vocab_size, (4, length + 1), device=device)
    steps = {
        name: stepper(make(base), ids) for name, make in {"a": ours, "b": plain, "c": naive}.items()
    }
    finish = torch.cuda.synchronize if device == "cuda" else lambda: None
    memory = {}
    for name, step in steps.items():
        step()
        memory[name] = peak_bytes(step)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            begin = time.perf_counter()
            step()
            finish()
            seconds[name].append(time.perf_counter() - begin)
    best = {name: min(times) for name, times in seconds.items()}
    return {
        "shape": shape,
        "dtype": str(dtype).removeprefix("torch."),
        "seconds": best,
        "peak_bytes": memory,
        "a/b": best["a"] / best["b"],
        "c/a": best["c"] / best["a"],
        "memory a/b": memory["a"] / memory["b"],
        "memory c/a": memory["c"] / memory["a"],
    }


def main() -> None:
    prepare()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two repeats of short sequences")
    parser.add_argument("--out", type=Path, default=RESULTS / "step.json")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--shape", choices=SHAPES, action="append")
    args = parser.parse_args()
    repeats, length = (2, 16) if args.quick else (args.repeats, 128)
    rows = [
        measure(shape, dtype, repeats, length)
        for shape in args.shape or SHAPES
        for dtype in (torch.float32, torch.bfloat16)
    ]
    table = Table("shape", "base", "(a) s", "(b) s", "(c) s", "a/b", "c/a", "MB a/b/c", box=None)
    for row in rows:
        times = (f"{row['seconds'][k]:.4g}" for k in "abc")
        memory = " / ".join(f"{row['peak_bytes'][k] / 1e6:.0f}" for k in "abc")
        table.add_row(
            row["shape"], row["dtype"], *times, f"{row['a/b']:.2f}", f"{row['c/a']:.2f}", memory
        )
    Console().print(table)
    save(args.out, rows=rows)


if __name__ == "__main__":
    main()
