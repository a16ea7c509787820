"""`gelu_new` in one kernel: the same function, wherever the bare base or its experts use it."""

import torch
from transformers.activations import NewGELUActivation

from comigs.backbone.families import FAMILIES, decoder_layers
from comigs.backbone.faster import prefer_fast_activation
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
