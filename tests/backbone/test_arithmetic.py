"""A CPU without instructions for bf16 has products of bf16 all the same, and nearly as fast."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

import comigs
from comigs.backbone import arithmetic
from comigs.backbone.arithmetic import multiply
from comigs.backbone.faster import prefer_fast_attention
from comigs.backbone.stored import store, unlike
from comigs.evaluation.perplexity import token_loss
from comigs.mixture.adapters import adapter_parameters, init_adapters
from tests.backbone.test_families import base_of

ATEN = torch.ops.aten
IDS = torch.randint(1, 60, (3, 18), generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module", autouse=True)
def slow():
    """On this machine bf16 is slow, whatever it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arithmetic, "remembered", lambda device: False)
        yield


@given(st.integers(1, 9), st.integers(1, 40), st.integers(1, 9), st.integers(0, 2**31))
def test_a_product_is_rounded_once(rows, inner, columns, seed):
    draw = torch.Generator().manual_seed(seed)
    a = torch.randn(rows, inner, generator=draw).bfloat16()
    b = torch.randn(inner, columns, generator=draw).bfloat16()
    exact = a.double() @ b.double()
    out = multiply(torch.matmul, a, b)
    assert out.dtype == torch.bfloat16
    rounding = 2**-8 * exact.abs() + 1e-6 * (a.double().abs() @ b.double().abs())
    assert ((out.double() - exact).abs() <= rounding).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_products_of_other_types_are_as_they_were(dtype):
    a, b = torch.full((2, 3), 0.1, dtype=dtype), torch.full((3, 2), 0.7, dtype=dtype)
    assert torch.equal(multiply(torch.matmul, a, b), a @ b)


def test_linears_stand_for_others_only_where_products_are_not_as_stored():
    assert unlike("bfloat16", "bfloat16", "cpu") and unlike("nf4", "float32", "cuda")
    assert not unlike("bfloat16", "bfloat16", "cuda") and not unlike("float32", "float32", "cpu")


class Products(TorchDispatchMode):
    """Remembers of which types the products of matrices were."""

    def __init__(self):
        super().__init__()
        self.types = set()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        if operation._overloadpacket in (ATEN.mm, ATEN.addmm, ATEN.bmm, ATEN.baddbmm):
            self.types.add(args[-1].dtype)
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_step_of_a_mixture_has_no_product_in_bf16_and_comes_to_the_same(family, monkeypatch):
    base = base_of(family).eval().bfloat16().requires_grad_(False)
    losses, gradients = [], []
    for fast in (True, False):
        monkeypatch.setattr(arithmetic, "remembered", lambda device, fast=fast: fast)
        own = copy.deepcopy(base)
        prefer_fast_attention(own, "bfloat16")
        if unlike("bfloat16", "bfloat16", "cpu"):
            store(own, "bfloat16", "bfloat16")
        model = comigs.add_experts(own, comigs.ExpertsConfig(specialists=1, top_k=2, rank=4))
        init_adapters(model, 0, 0)
        with torch.no_grad():
            for name, parameter in adapter_parameters(model).items():
                if ".lora_B." in name:
                    parameter.normal_(std=0.05, generator=torch.Generator().manual_seed(1))
        with comigs.training_experts(model, lambda name: True), Products() as products:
            loss = token_loss(model, IDS)
            loss.backward()
        assert (torch.bfloat16 in products.types) is fast
        losses.append(loss.item())
        gradients.append({n: p.grad for n, p in adapter_parameters(model).items()})
    assert losses[1] == pytest.approx(losses[0], rel=2e-3)
    for name, gradient in gradients[1].items():
        if ".router." not in name:
            assert (gradient - gradients[0][name]).norm() < 0.1 * gradient.norm(), name
