"""GELU by the sigmoid: the same function, wherever the bare base or its experts use it."""

import pytest
import torch
import torch.nn.functional as F
from transformers.activations import NewGELUActivation

from comigs.backbone.families import FAMILIES, decoder_layers
from comigs.backbone.faster import TanhGELU, prefer_fast_activation
from tests.backbone.test_families import base_of


def test_the_bare_model_s_outputs_stay_and_no_slow_activation_is_left():
    model = base_of("gpt2")
    tokens = torch.arange(24).reshape(2, 12)
    with torch.no_grad():
        before = model(tokens).logits
        family = FAMILIES["gpt2"]
        prefer_fast_activation(decoder_layers(model, family), family)
        after = model(tokens).logits
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-6)
    assert not any(isinstance(module, NewGELUActivation) for module in model.modules())


def test_gelu_by_the_sigmoid_has_the_values_and_slopes_of_exact_arithmetic():
    z = torch.linspace(-12, 12, 4096, requires_grad=True)
    exact = z.detach().double().requires_grad_()
    wanted = F.gelu(exact, approximate="tanh")
    out = TanhGELU()(z)
    torch.testing.assert_close(out.double(), wanted, rtol=0, atol=1e-6)
    assert torch.equal(out, TanhGELU()(z.detach()))
    weight = torch.linspace(-1, 2, 4096)
    [slope] = torch.autograd.grad(out, z, weight)
    [slope_wanted] = torch.autograd.grad(wanted, exact, weight.double())
    torch.testing.assert_close(slope.double(), slope_wanted, rtol=0, atol=5e-6)


def test_gelu_far_out_is_zero_or_its_input():
    z = torch.tensor([-1e6, -1e3, 0.0, 1e3, 1e6], requires_grad=True)
    out = TanhGELU()(z)
    assert out.tolist() == [0, 0, 0, 1e3, 1e6]
    [slope] = torch.autograd.grad(out.sum(), z)
    assert slope.tolist() == [0, 0, 0.5, 1, 1]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_numbers_than_fp32_go_to_torch_s_kernel(dtype):
    z = torch.linspace(-3, 3, 32, dtype=dtype)
    assert torch.equal(TanhGELU()(z), F.gelu(z, approximate="tanh"))
