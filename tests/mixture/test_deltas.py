"""Frozen corrections of the base weights, against a LoRA of higher rank that does the same."""

import pytest
import torch
import transformers as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import comigs
from comigs.errors import BadInput
from comigs.mixture.adapters import adapter_tensors, init_adapters, load_adapter_tensors
from comigs.mixture.deltas import add_arrived, append, clear_deltas, delta_tensors
from comigs.mixture.ranks import pairs

IDS = torch.arange(24).reshape(2, 12)
SIZES = {"vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}


def make(family, rank, **experts):
    torch.manual_seed(0)
    if family == "gpt2":
        base = tf.GPT2LMHeadModel(tf.GPT2Config(vocab_size=32, n_embd=16, n_layer=2, n_head=2))
    else:
        base = tf.LlamaForCausalLM(tf.LlamaConfig(**SIZES, intermediate_size=24))
    config = comigs.ExpertsConfig(rank=rank, scaling="standard", alpha=rank, **experts)
    return comigs.add_experts(base.eval(), config)


def random_tensors(model, seed):
    rng = torch.Generator().manual_seed(seed)
    shapes = {name: t.shape for name, t in adapter_tensors(model).items()}
    return {name: torch.randn(s, generator=rng) * 0.1 for name, s in shapes.items()}


def as_stack(tensors):
    return {n.replace(".lora_", ".stack_"): t for n, t in tensors.items() if ".lora_" in n}


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize(
    "experts",
    [
        {"specialists": 0},
        {"generalists": 2, "specialists": 0, "routed": False},
        {"specialists": 2, "top_k": 2},
        {"specialists": 1, "top_k": 1},
    ],
)
def test_lora_and_correction_together_are_a_lora_of_the_summed_rank(family, experts):
    small, large = make(family, 3, **experts), make(family, 5, **experts)
    lora, extra = random_tensors(small, 1), random_tensors(make(family, 2, **experts), 2)
    load_adapter_tensors(small, lora)
    add_arrived(small, as_stack(extra))
    both = dict(lora)
    for a, b in pairs(lora):
        both[a], both[b] = torch.cat([lora[a], extra[a]]), torch.cat([lora[b], extra[b]], 1)
    load_adapter_tensors(large, both)
    expected = []
    for model in (small, large):
        model.zero_grad()
        with comigs.training_experts(model):
            loss = model(IDS, labels=IDS).loss
            loss.backward()
        expected.append(model(IDS).logits)
    torch.testing.assert_close(*expected, atol=1e-5, rtol=1e-4)
    name, parameter = next((n, p) for n, p in small.named_parameters() if ".lora_A." in n)
    assert parameter.grad is not None
    twin = dict(large.named_parameters())[name]
    torch.testing.assert_close(parameter.grad, twin.grad[:3], atol=1e-5, rtol=1e-3)


def test_the_next_client_starts_without_them():
    model = make("gpt2", 2, specialists=1)
    init_adapters(model, 0, 0)
    before = model(IDS).logits
    add_arrived(model, as_stack(random_tensors(model, 3)))
    assert not torch.equal(model(IDS).logits, before)
    clear_deltas(model)
    assert torch.equal(model(IDS).logits, before)
    assert delta_tensors(model) == {}


def test_they_are_saved_and_loaded_with_the_adapters(tmp_path):
    model = make("gpt2", 2, specialists=1)
    load_adapter_tensors(model, random_tensors(model, 1))
    add_arrived(model, as_stack(random_tensors(model, 3)))
    logits, tensors = model(IDS).logits, adapter_tensors(model)
    clear_deltas(model)
    load_adapter_tensors(model, tensors)
    assert torch.equal(model(IDS).logits, logits)
    with pytest.raises(BadInput, match="which no LoRA can carry"):
        comigs.save_experts(model, tmp_path)


@settings(max_examples=30)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.integers(2, 9), st.integers(2, 9))
def test_sums_of_corrections_stay_exact_and_of_bounded_rank(ranks, out, width):
    rng, total, exact = torch.Generator().manual_seed(sum(ranks)), None, 0
    for rank in ranks:
        pair = torch.randn(rank, width, generator=rng), torch.randn(out, rank, generator=rng)
        total = append(total, pair)
        exact = exact + pair[1].double() @ pair[0].double()
        assert len(total[0]) <= min(out, width)
    torch.testing.assert_close(total[1].double() @ total[0].double(), exact, atol=1e-5, rtol=1e-5)
