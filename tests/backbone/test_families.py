"""Every family: the mixture equals the literal sum of whole MLPs, and generation is sound."""

import copy

import peft
import pytest
import torch
import torch.nn.functional as F
import transformers as tf
from torch import nn
from transformers.pytorch_utils import Conv1D

import comigs
from comigs.backbone.families import decoder_layers, family_of, on_native_experts
from comigs.mixture.adapters import adapter_parameters
from comigs.mixture.experts import expert_blocks

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "head_dim": 8,
    "pad_token_id": 0,
}
CONFIGS = {
    "gpt2": tf.GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=64),
    "llama": tf.LlamaConfig(**SIZES, mlp_bias=True),
    "mistral": tf.MistralConfig(**SIZES),
    "qwen2": tf.Qwen2Config(**SIZES),
    "qwen3": tf.Qwen3Config(**SIZES),
    "gemma": tf.GemmaConfig(**SIZES),
    "gemma2": tf.Gemma2Config(**SIZES),
    "gemma3_text": tf.Gemma3TextConfig(**SIZES),
    "gpt_neox": tf.GPTNeoXConfig(**SIZES),
    "phi3": tf.Phi3Config(**SIZES),
}


def base_of(family, **changed):
    torch.manual_seed(0)
    config = copy.deepcopy(CONFIGS[family])
    config.update(changed)
    return tf.AutoModelForCausalLM.from_config(config).eval()


def mixture_of(base, **experts):
    model = comigs.add_experts(copy.deepcopy(base), comigs.ExpertsConfig(**experts))
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in adapter_parameters(model).values():
            parameter.copy_(torch.randn(parameter.shape, generator=rng) * 0.1)
    return model


def layers_of(base, model):
    """Layers of the bare base, with the places of the mixtures in `model`, and their family."""
    kind = base.config.model_type
    layers = decoder_layers(base, family_of(kind))
    if not model.comigs_settings["experts"]["native"]:
        return layers, family_of(kind)
    family = on_native_experts(kind)
    return [x._replace(mlp=family.mlp, attention=family.attention) for x in layers], family


def mixtures(base, model):
    """Of each layer: Transformers' own MLP (or linear), ours, its gates, its linears."""
    layers, family = layers_of(base, model)
    for own in layers:
        block = model.get_base_model().get_submodule(f"{own.path}.{own.mlp}")
        gates = block if family.up else block.gates[0]
        yield own.module.get_submodule(own.mlp), block, gates, (*family.up, family.down)


def merged_mlp(plain, block, linears, expert):
    """Transformers' own MLP with the LoRA of one expert added to its weights."""
    mlp = copy.deepcopy(plain)
    for name in linears:
        lora = block.get_submodule(name)
        delta = lora.lora_B[expert].weight @ lora.lora_A[expert].weight * lora.scaling[expert]
        linear = mlp.get_submodule(name)
        with torch.no_grad():
            linear.weight += delta.t() if isinstance(linear, Conv1D) else delta
    return mlp


def literal_gates(gates, x):
    """The gates of METHODS section 1, of every expert."""
    logits = F.linear(x, gates.router.weight)
    if gates.top_k == 1:
        best = logits.argmax(-1, keepdim=True)
        return torch.zeros_like(logits).scatter(-1, best, logits.softmax(-1).gather(-1, best))
    cut = logits.topk(gates.top_k, -1).values[..., -1:]
    return logits.masked_fill(logits < cut, float("-inf")).softmax(-1)


def whole(mlp, x):
    """An MLP of itself: BLOOM's adds the residual stream."""
    return mlp(x, torch.zeros_like(x)) if type(mlp).__name__ == "BloomMLP" else mlp(x)


@pytest.mark.parametrize("experts, top_k", [(2, 2), (3, 1), (4, 2)])
@pytest.mark.parametrize("family", CONFIGS)
def test_mixture_equals_the_literal_sum_over_whole_mlps(family, experts, top_k):
    base = base_of(family)
    model = mixture_of(base, specialists=experts - 1, top_k=top_k, rank=4)
    x = torch.randn(2, 7, 32, generator=torch.Generator().manual_seed(2))
    for plain, block, gates, linears in mixtures(base, model):
        with torch.no_grad():
            shares = literal_gates(gates, x).split(1, -1)
            mlps = [merged_mlp(plain, block, linears, name) for name in gates.names]
            want = sum(g * whole(mlp, x) for g, mlp in zip(shares, mlps, strict=True))
            assert (block(x) - want).abs().max() <= 1e-5 * want.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize("family", CONFIGS)
def test_generation_with_the_cache_gives_the_same_tokens_as_without(family):
    model = mixture_of(base_of(family), specialists=2, top_k=2, rank=4)
    prompt = torch.tensor([[5, 9, 11, 3]])
    kwargs = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None}
    cached = model.generate(input_ids=prompt, use_cache=True, **kwargs)
    assert cached.shape == (1, 16)
    assert torch.equal(cached, model.generate(input_ids=prompt, use_cache=False, **kwargs))


@pytest.mark.parametrize("family", CONFIGS)
def test_generalist_saved_alone_is_a_plain_peft_adapter(family, tmp_path):
    base = base_of(family)
    model = mixture_of(base, rank=4)
    comigs.save_experts(model, tmp_path)
    plain = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path / "generalist_0").eval()
    ids = torch.randint(1, 64, (2, 9))
    with torch.no_grad(), comigs.using_expert(model, "generalist_0"):
        torch.testing.assert_close(model(ids).logits, plain(ids).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", CONFIGS)
def test_saved_experts_load_into_a_bare_base_bit_for_bit(family, tmp_path):
    base = base_of(family)
    model = mixture_of(base, specialists=2, top_k=1, rank=4)
    comigs.save_experts(model, tmp_path)
    again = comigs.load_experts(copy.deepcopy(base), tmp_path)
    ids = torch.randint(1, 64, (2, 9))
    with torch.no_grad():
        assert torch.equal(model(ids).logits, again(ids).logits)


def test_a_family_that_no_entry_would_do_for_says_why():
    with pytest.raises(comigs.BadInput, match=r"'opt' cannot be used: its MLPs are no modules"):
        family_of("opt")


def test_a_model_that_its_entry_does_not_fit_is_refused():
    config = tf.GraniteMoeSharedConfig(**SIZES, num_local_experts=4, shared_intermediate_size=0)
    with pytest.raises(comigs.BadInput, match="no layer of the model has input_linear"):
        comigs.add_experts(tf.AutoModelForCausalLM.from_config(config), comigs.ExpertsConfig())


def test_unknown_family_says_how_to_add_it():
    with pytest.raises(comigs.BadInput, match=r"'rwkv' is unknown.*FAMILIES"):
        family_of("rwkv")


def test_base_output_is_untouched_with_adapters_disabled():
    base = base_of("llama")
    model = mixture_of(base, rank=4)
    ids = torch.randint(1, 64, (2, 9))
    with torch.no_grad(), model.disable_adapter():
        torch.testing.assert_close(model(ids).logits, base(ids).logits)


def test_only_frozen_weights_are_shared_and_only_adapters_train():
    model = mixture_of(base_of("gpt2"), rank=4)
    assert not any(p.requires_grad for p in model.parameters())
    with comigs.training_experts(model):
        names = {n for n, p in model.named_parameters() if p.requires_grad}
    assert names and all(".lora_" in n for n in names)
    with comigs.training_router(model):
        names = {n for n, p in model.named_parameters() if p.requires_grad}
    assert names and all(".router." in n for n in names)
    assert isinstance(expert_blocks(model)[0].router, nn.Linear)
