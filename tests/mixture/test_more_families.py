"""Families beyond the first ten, each by one trial from its folder to a step of training."""

import copy
from dataclasses import replace

import peft
import pytest
import torch
import torch.nn.functional as F
import transformers as tf
from torch import nn
from torch.func import functional_call

import comigs
from comigs.backbone import base as base_module
from comigs.backbone import head
from comigs.backbone.families import FAMILIES, family_of
from comigs.backbone.stored import settle, store
from comigs.config.experts import ExpertsConfig, RouterConfig
from comigs.config.model import DataConfig, ModelConfig
from comigs.config.settings import RunConfig
from comigs.config.train import TrainConfig
from comigs.costs.shapes import adapter_shapes, skeleton
from comigs.costs.work import token_flops
from comigs.data.windows import packed
from comigs.evaluation.perplexity import token_loss
from comigs.mixture.adapters import adapter_parameters, adapter_tensors, init_adapters
from comigs.mixture.experts import NativeMLPs
from comigs.mixture.fused import join
from comigs.mixture.models import new_model
from comigs.training.bilevel import train_group
from comigs.training.trainee import Learner, Trainee
from tests.backbone.test_families import CONFIGS, SIZES, layers_of, literal_gates, mixtures
from tests.costs.test_work import Counter
from tests.data.test_windows import EXAMPLES, example
from tests.helpers import client_of

MOE = SIZES | {
    "num_experts": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 48,
    "shared_intermediate_size": 48,
    "decoder_sparse_step": 1,
}
SCALES = {
    "embedding_multiplier": 3.0,
    "residual_multiplier": 0.5,
    "attention_multiplier": 0.2,
    "logits_scaling": 4.0,
}
DELTA_NET = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
GEMMA = SIZES | {
    "vocab_size_per_layer_input": 64,
    "hidden_size_per_layer_input": 8,
    "layer_types": ["sliding_attention", "full_attention", "full_attention"],
    "num_hidden_layers": 3,
    "num_kv_shared_layers": 1,
}
GEMMA3N = {
    "laurel_rank": 4,
    "activation_sparsity_pattern": [0.9, 0.0, 0.0],
    "intermediate_size": [48] * 3,
    "final_logit_softcapping": 0.5,
}
OLD = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
STATES = {"num_heads": 8, "head_dim": 8, "state_size": 8, "n_groups": 2, "chunk_size": 8}
MORE = {
    "qwen3_5_text": tf.Qwen3_5TextConfig(**SIZES, **DELTA_NET),
    "gemma3n_text": tf.Gemma3nTextConfig(**GEMMA | GEMMA3N),
    "gemma4_text": tf.Gemma4TextConfig(
        **MOE | GEMMA, enable_moe_block=True, top_k_experts=2, global_head_dim=16
    ),
    "olmo2": tf.Olmo2Config(**SIZES),
    "granite": tf.GraniteConfig(**SIZES, **SCALES),
    "stablelm": tf.StableLmConfig(**SIZES, use_parallel_residual=True),
    "cohere": tf.CohereConfig(**SIZES, logit_scale=0.25),
    "cohere2": tf.Cohere2Config(**SIZES, logit_scale=0.25),
    "starcoder2": tf.Starcoder2Config(**SIZES, residual_dropout=0.1),
    "falcon": tf.FalconConfig(**OLD, new_decoder_architecture=True, num_kv_heads=2),
    "bloom": tf.BloomConfig(**OLD),
    "llama4_text": tf.Llama4TextConfig(**MOE, intermediate_size_mlp=64, moe_layers=[1]),
    "qwen2_moe": tf.Qwen2MoeConfig(**MOE),
    "qwen3_5_moe_text": tf.Qwen3_5MoeTextConfig(**MOE, **DELTA_NET),
    "granitemoeshared": tf.GraniteMoeSharedConfig(**MOE, **SCALES),
    "mixtral": tf.MixtralConfig(**MOE),
    "olmoe": tf.OlmoeConfig(**MOE),
    "qwen3_moe": tf.Qwen3MoeConfig(**MOE),
    "granitemoe": tf.GraniteMoeConfig(**MOE, **SCALES),
    "mamba2": tf.Mamba2Config(**OLD, **STATES),
}
NATIVE = [family for family, entry in FAMILIES.items() if entry.native]
SGD = TrainConfig(optimizer="sgd", lr=0.05, weight_decay=0.0, clip=None)
ROUTER = RouterConfig(every=100, steps=1, balance=0.0)
SHORT = {"rounds": 1, "local_steps": 1, "batch_size": 4}
CONFIG = RunConfig(data=DataConfig(seq_len=10), router=ROUTER, train=SGD, **SHORT)
EXPERTS = ExpertsConfig(specialists=2, top_k=2, rank=2)
PERIODS = {  # of layers that are not all alike
    **dict.fromkeys(("qwen3_5_text", "qwen3_5_moe_text", "llama4_text"), 2),
    **dict.fromkeys(("gemma3n_text", "gemma4_text"), 3),
}
TEXT = torch.randint(1, 64, (200,), generator=torch.Generator().manual_seed(7))
IDS = TEXT[:22].view(2, 11)


def test_every_family_of_the_table_is_tried_here_or_with_the_first_ten():
    assert set(MORE) | set(CONFIGS) == set(FAMILIES) and not set(MORE) & set(CONFIGS)


class Literal(nn.Module):
    """sum_e g_e MLP_e(x) of Transformers' own MLP, whose weights are W + s B_e A_e."""

    def __init__(self, plain, block, gates, linears):
        super().__init__()
        self.parts = plain, block, gates, linears

    def forward(self, x, *more):
        plain, block, gates, linears = self.parts
        native = isinstance(block, NativeMLPs)  # more: how tokens go through; or what BLOOM adds
        inputs = (x, *more) if native else (x, *map(torch.zeros_like, more))
        own = dict(plain.named_parameters())
        names = {
            f"{each}_proj" if native else f"{each}.weight".removeprefix("."): each
            for each in linears
        }
        total = 0
        for name, share in zip(gates.names, literal_gates(gates, x).split(1, -1), strict=True):
            weights = {
                tensor: merged(own[tensor], block.get_submodule(each), name)
                for tensor, each in names.items()
            }
            total = total + share * functional_call(plain, weights, inputs)
        return total if native else sum(more, total)


def merged(weight, lora, name):
    return weight + lora.scaling[name] * lora.lora_B[name].weight @ lora.lora_A[name].weight


def literal_logits(base, model, ids):
    """Logits of the whole model written out, by the adapters of `model`."""
    whole, weights = copy.deepcopy(base), {}
    layers, _ = layers_of(whole, model)
    for layer, parts in zip(layers, mixtures(base, model), strict=True):
        for name in layer.attention:
            lora = model.get_base_model().get_submodule(f"{layer.path}.{name}")
            weight = layer.module.get_submodule(name).weight
            weights[f"{layer.path}.{name}.weight"] = merged(weight, lora, "generalist_0")
        layer.module.set_submodule(layer.mlp, Literal(*parts))
    return functional_call(whole, weights, (), {"input_ids": ids, "use_cache": False}).logits


def saved(family, folder):
    """A folder of a random model, and Transformers' own of it."""
    torch.manual_seed(0)
    model = tf.AutoModelForCausalLM.from_config(copy.deepcopy(MORE[family]))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "conv" not in name:
                parameter.mul_(3)  # so that what stands before a token matters
    model.save_pretrained(folder)
    return tf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def filled(model, seed):
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in adapter_parameters(model).items():
            if ".lora_B." in name:
                parameter.copy_(torch.randn(parameter.shape, generator=rng) * 0.1)
    return model


def gradients(model, loss):
    """Of every adapter tensor that the loss depends on."""
    named = adapter_parameters(model)
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {n: g for n, g in zip(named, found, strict=True) if g is not None}


def assert_close(found, wanted, what):
    assert set(found) == set(wanted), what
    for name, want in wanted.items():
        far = (found[name] - want).abs().max()
        assert far <= 1e-3 * want.abs().max() + 1e-6, (what, name, far)


def assert_packs(base):
    """A row of examples is as each alone, or is known to hold but one."""
    total = 0.0
    for tokens, learnt in EXAMPLES:
        ids = torch.tensor([tokens])
        goal = ids.masked_fill(~torch.tensor([learnt]).bool(), -100)[0, 1:]
        total += F.cross_entropy(base(input_ids=ids).logits[0, :-1], goal, reduction="sum").item()
    several = family_of(base.config.model_type).packs
    rows = packed([example(*each) for each in EXAMPLES], 12, several)
    assert len(rows) == (2 if several else len(EXAMPLES))
    for chunked in (False, True):
        assert token_loss(base, rows, "sum", chunked).item() == pytest.approx(total, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "family, native", [(family, False) for family in MORE] + [(family, True) for family in NATIVE]
)
def test_from_its_folder_to_a_step_of_training(family, native, tmp_path, monkeypatch):
    monkeypatch.setattr(head, "CHUNK", 64 * 7)
    monkeypatch.setattr(base_module, "load_tokenizer", lambda name: range(64))
    base, name = saved(family, tmp_path), ModelConfig(str(tmp_path), "float32", "float32")
    experts = replace(EXPERTS, native=native)
    models = [new_model(name, experts) for _ in range(2)]
    first = models[0]
    own = replace(CONFIG, model=name, experts=experts)
    client = client_of(own)

    with torch.no_grad():  # B = 0: the base itself
        want = base(input_ids=IDS).logits
        assert (first(input_ids=IDS).logits - want).abs().max() <= 1e-5
        assert_packs(base)
    for number, model in enumerate(models):
        init_adapters(model, 0, number)
        filled(model, number)
    shapes = {n: tuple(p.shape) for n, p in adapter_parameters(first).items()}
    assert adapter_shapes(client) == shapes
    assert skeleton(str(tmp_path), native).period == PERIODS.get(family, 1)

    trainee = Trainee(client, first, TEXT, TEXT, {}, 0)
    windows = Learner(trainee, 1).expert_part(None, 0).windows
    ids, goal = windows[:, :-1], windows[:, 1:].flatten()
    with comigs.training_experts(first, lambda name: True):
        loss = F.cross_entropy(literal_logits(base, first, ids).flatten(0, 1), goal)
        wanted = gradients(first, loss)
        assert_close(gradients(first, token_loss(first, windows)), wanted, "a pass")
    start = adapter_tensors(first)
    thrifty = replace(own, train=replace(SGD, checkpointing=True, loss="chunked"))
    step = replace(trainee, client=client_of(replace(thrifty, micro_batch_size=2)))
    [(_, stats)] = train_group([step], round_number=1, steps=1)
    assert stats.losses == [pytest.approx(loss.item(), rel=1e-5)]
    after = adapter_tensors(first)
    moved = {n: (start[n] - t) / SGD.lr for n, t in after.items() if n in wanted}
    still = {n: torch.zeros_like(t) if ".router." in n else t for n, t in wanted.items()}
    assert_close(moved, still, "a step")

    with torch.no_grad():
        both = join(models)(input_ids=torch.cat([IDS, IDS])).logits.chunk(2)
        for logits, model in zip(both, models, strict=True):
            assert (logits - model(input_ids=IDS).logits).abs().max() <= 1e-4
        comigs.save_experts(first, tmp_path / "experts")
        if native:  # PEFT has no LoRA that all native experts share: with it in the weights
            twin = comigs.load_experts(copy.deepcopy(base), tmp_path / "experts")
            plain = twin.merge_and_unload(adapter_names=["generalist_0"])
        else:
            plain = peft.PeftModel.from_pretrained(
                copy.deepcopy(base), tmp_path / "experts" / "generalist_0"
            )
        with comigs.using_expert(first, "generalist_0"):
            own_logits = first(input_ids=IDS).logits
        assert (plain(input_ids=IDS).logits - own_logits).abs().max() <= 1e-4
        again = comigs.load_experts(copy.deepcopy(base), tmp_path / "experts")
        kept = adapter_tensors(first)
        assert all(torch.equal(t, kept[n]) for n, t in adapter_tensors(again).items())
        assert (again(input_ids=IDS).logits - first(input_ids=IDS).logits).abs().max() <= 1e-6
    more = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    texts = [first.generate(input_ids=IDS[:1], use_cache=on, **more) for on in (True, False)]
    assert texts[0].shape == (1, 15) and torch.equal(*texts)
    assert_flops(client, first)


def assert_flops(client, model):
    """Those that torch counts in a pass; of native experts it counts plain products only.

    Left out of the costs are small products of Gemma 3n's four streams.
    """
    model.get_base_model().set_experts_implementation("eager")
    with Counter() as counter, comigs.training_experts(model):
        loss = token_loss(model, IDS)
        forward = counter.total
        loss.backward()
    cost, near = token_flops(client), 0.1 if model.config.model_type == "gemma3n_text" else 0.01
    assert cost.forward * 20 == pytest.approx(forward, rel=near)
    assert cost.expert * 20 == pytest.approx(counter.total, rel=near)


@pytest.mark.parametrize("family", ["bloom", "gemma3n_text", "llama4_text", "mamba2"])
def test_weights_stored_in_16_bits_are_multiplied_in_32(family):
    torch.manual_seed(0)
    base = tf.AutoModelForCausalLM.from_config(copy.deepcopy(MORE[family])).eval()
    want = base(IDS).logits
    store(base.to(torch.bfloat16).requires_grad_(False), "bfloat16", "float32")
    settle(base, "float32")
    model = comigs.add_experts(base, EXPERTS)
    assert (model(IDS).logits - want).norm() < 0.02 * want.norm()
