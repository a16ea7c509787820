"""LoRA on attention linears: what PEFT's own forward gives, for one client and for several."""

import pytest
import torch
from peft import LoraConfig
from peft.tuners.lora import Linear
from torch import nn

from comigs.mixture.attention import AttentionLora
from comigs.mixture.deltas import deltas_of
from comigs.mixture.fused import StackedLora


def layer_of(base, seed, cls=AttentionLora):
    torch.manual_seed(seed)
    config = LoraConfig(r=2, lora_alpha=6)
    layer = cls(base, "one", config=config, r=2, lora_alpha=6).eval()
    for half in (layer.lora_A, layer.lora_B):
        nn.init.normal_(half.float()["one"].weight, std=0.3)  # fp32 above any base
    return layer


def numbers(layer, x):
    """Output and the gradients of input, A and B."""
    x = x.clone().requires_grad_()
    y = layer(x)
    y.float().square().sum().backward()
    return y, x.grad, *(half["one"].weight.grad for half in (layer.lora_A, layer.lora_B))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_outputs_and_gradients_are_those_of_peft(dtype):
    torch.manual_seed(0)
    base, x = nn.Linear(6, 10, dtype=dtype), torch.randn(3, 4, 6, dtype=dtype)
    ours, theirs = (numbers(layer_of(base, 1, cls), x) for cls in (AttentionLora, Linear))
    assert ours[0].dtype == dtype
    close = 1e-4 if dtype == torch.float32 else 0.03
    torch.testing.assert_close(ours, theirs, rtol=close, atol=close)


def test_a_disabled_or_merged_layer_adds_nothing():
    torch.manual_seed(0)
    base, x = nn.Linear(6, 10), torch.randn(3, 4, 6)
    layer = layer_of(base, 1)
    frozen, with_lora = base(x), layer(x)
    layer.enable_adapters(False)
    torch.testing.assert_close(layer(x), frozen, rtol=0, atol=0)
    layer.enable_adapters(True)
    layer.merge()
    torch.testing.assert_close(layer(x), with_lora)


def test_only_active_adapters_are_added_and_a_merged_layer_keeps_its_corrections():
    torch.manual_seed(0)
    base, x = nn.Linear(6, 10), torch.randn(3, 4, 6)
    layer = layer_of(base, 1)
    layer.update_layer("two", r=2, lora_alpha=6, config=LoraConfig(r=2, lora_alpha=6))
    nn.init.normal_(layer.lora_B["two"].weight)
    one = layer(x)
    layer.set_adapter("two")
    two = layer(x)
    layer.set_adapter(["one", "two"])
    torch.testing.assert_close(layer(x), one + two - base(x))
    layer.set_adapter("one")
    a, b = torch.randn(3, 6), torch.randn(10, 3)
    deltas_of(layer)["one"] = (a, b)
    layer.merge()
    torch.testing.assert_close(layer(x), one + x @ a.t() @ b.t())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_clients_that_share_a_pass_get_their_own_lora_and_corrections(dtype):
    torch.manual_seed(0)
    base, x = nn.Linear(6, 10, dtype=dtype), torch.randn(4, 5, 6, dtype=dtype)
    layers = [layer_of(base, seed) for seed in (1, 2)]
    for layer in layers:
        deltas_of(layer)["one"] = (torch.randn(3, 6), torch.randn(10, 3))
    alone = torch.cat([layer(part) for layer, part in zip(layers, x.split(2), strict=True)])
    torch.testing.assert_close(StackedLora(layers)(x), alone, rtol=0.02, atol=1e-5)
    assert not torch.equal(alone, base(x))
