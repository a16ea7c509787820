"""One mixture block against vectors of an independent implementation (tests/data/golden)."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel

import comigs
from comigs.mixture.adapters import adapter_parameters
from comigs.mixture.experts import balance_loss, expert_blocks

GOLDEN = sorted((Path(__file__).parent / "data" / "golden").glob("*.safetensors"))


def _close(ours, theirs, what):
    scale = theirs.abs().max().clamp_min(1e-12)
    assert (ours - theirs).abs().max() / scale < 1e-4, what


@pytest.mark.parametrize("path", GOLDEN, ids=lambda p: p.stem)
def test_block_agrees_with_golden_outputs_loss_and_every_gradient(path):
    want = load_file(path)
    meta = safe_open(path, "pt").metadata()
    n_experts, rank = int(meta["num_experts"]), int(meta["rank"])
    d, width = want["x"].shape[-1], want["c_fc_weight"].shape[0]
    base = GPT2LMHeadModel(
        GPT2Config(vocab_size=8, n_embd=d, n_inner=width, n_layer=1, n_head=1, n_positions=16)
    )
    model = comigs.add_experts(
        base,
        comigs.ExpertsConfig(
            generalists=1,
            specialists=n_experts - 1,
            top_k=int(meta["top_k"]),
            rank=rank,
            alpha=float(meta["alpha"]),
        ),
    )
    (block,) = expert_blocks(model)
    with torch.no_grad():
        for name in ("c_fc", "c_proj"):
            linear = block.get_submodule(name).get_base_layer()
            linear.weight.copy_(want[f"{name}_weight"].t())
            linear.bias.copy_(want[f"{name}_bias"])
            for e, expert in enumerate(block.names):
                for side in "AB":
                    lora = getattr(block.get_submodule(name), f"lora_{side}")[expert]
                    lora.weight.copy_(want[f"experts.{e}.{name}.lora_{side}"])
        block.router.weight.copy_(want["router_weight"])
    for parameter in adapter_parameters(model).values():
        parameter.requires_grad_()

    x = want["x"].clone().requires_grad_()
    y = block(x)
    balance = balance_loss(model, float(meta["expert0_importance"]))
    ((y * want["output_cotangent"]).sum() + balance).backward()

    _close(y, want["y"], "y")
    _close(balance, want["load_balancing_loss"].squeeze(), "balance loss")
    _close(x.grad, want["x_grad"], "x grad")
    _close(block.router.weight.grad, want["router_grad"], "router grad")
    for e, expert in enumerate(block.names):
        for name in ("c_fc", "c_proj"):
            for side in "AB":
                key = f"experts.{e}.{name}.lora_{side}"
                lora = getattr(block.get_submodule(name), f"lora_{side}")[expert]
                _close(lora.weight.grad, want[f"{key}.grad"], key)
