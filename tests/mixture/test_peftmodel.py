"""What PEFT does with adapters one by one, on a mixture of them: right, or refused in a line."""

import copy

import pytest
import torch
from peft import PeftModel

import comigs
from comigs.backbone.stored import settle, store
from comigs.mixture.adapters import adapter_tensors
from comigs.mixture.deltas import load_deltas
from comigs.mixture.models import bare_copy
from tests.backbone.test_families import base_of, mixture_of

IDS = torch.arange(1, 21)[None]


@torch.no_grad()
def logits(model):
    return model(IDS).logits


@pytest.mark.parametrize("family", ["gpt2", "llama", "phi3"])
def test_one_expert_is_merged_and_the_shared_base_stays(family):
    base = base_of(family)
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    model = comigs.add_experts(
        bare_copy(base), comigs.ExpertsConfig(specialists=0, top_k=1, rank=4)
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                parameter += 0.02
    wanted = logits(model)
    dense = model.merge_and_unload()
    assert isinstance(dense, type(base)) and not isinstance(dense, PeftModel)
    assert dense.state_dict().keys() == before.keys()
    torch.testing.assert_close(logits(dense), wanted, rtol=0, atol=1e-5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.state_dict().items())


def test_of_several_one_is_merged_when_it_is_named():
    model = mixture_of(base_of("llama"), specialists=2, rank=4)
    pair = [torch.full((1, 32), 0.2), torch.full((48, 1), 0.3)]
    names = [f"model.layers.0.mlp.up_proj.delta_{h}.specialist_1.weight" for h in "AB"]
    load_deltas(model, dict(zip(names, pair, strict=True)))
    with pytest.raises(comigs.BadInput, match="a mixture of 3 experts has no dense weights"):
        model.merge_and_unload()
    with pytest.raises(comigs.BadInput, match=r"no expert 'mine'; these are: generalist_0, "):
        model.merge_and_unload(adapter_names=["mine"])
    with pytest.raises(comigs.BadInput, match="not merged in place"):
        model.merge_adapter()
    with comigs.using_expert(model, "specialist_1"):
        wanted = logits(model)
    dense = model.merge_and_unload(adapter_names=["specialist_1"])
    torch.testing.assert_close(logits(dense), wanted, rtol=0, atol=1e-5)


def test_a_base_stored_otherwise_is_unpacked():
    base = base_of("gpt2").to(torch.bfloat16)
    store(base, "bfloat16", "float32")
    settle(base, "float32")
    model = mixture_of(base, specialists=0, top_k=1, rank=4)
    wanted = logits(model)
    torch.testing.assert_close(logits(model.merge_and_unload()), wanted, rtol=0, atol=1e-5)


def test_without_its_experts_it_is_the_base():
    base = base_of("gpt2")
    plain = mixture_of(base, specialists=2, rank=4).unload()
    torch.testing.assert_close(logits(plain), logits(base))
    assert str(plain) == str(copy.deepcopy(base)).replace(
        "NewGELUActivation()", "TanhGELU(approximate='tanh')"
    )


def test_saving_it_saves_the_routers(tmp_path):
    model = mixture_of(base_of("llama"), specialists=2, rank=4)
    model.save_pretrained(tmp_path)
    again = comigs.load_experts(base_of("llama"), tmp_path)
    tensors = adapter_tensors(model)
    assert any(".router." in name for name in tensors)
    assert all(torch.equal(t, tensors[name]) for name, t in adapter_tensors(again).items())
    with pytest.raises(comigs.BadInput, match="safetensors only"):
        model.save_pretrained(tmp_path, safe_serialization=False)
