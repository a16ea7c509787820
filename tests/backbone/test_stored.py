"""Bases that are stored in one type and computed in another: values, gradients, memory, sharing."""

import copy
import sys
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from peft import PeftModel
from torch import nn
from transformers.pytorch_utils import Conv1D

import comigs
from comigs.app.result import RunResult
from comigs.backbone import cache as basecache
from comigs.backbone.base import base_on, load_base
from comigs.backbone.quantised import FILE
from comigs.backbone.stored import StoredLinear, quantiser, settle, store
from comigs.config.load import config_hash, load_config
from comigs.evaluation.perplexity import token_loss
from comigs.mixture.adapters import adapter_parameters, init_adapters
from tests.backbone.test_families import CONFIGS, base_of
from tests.folders import llama, logits, save
from tests.helpers import numbers, run_and_resumed

pytest_plugins = ("tests.fixtures",)

IDS = torch.randint(1, 60, (3, 18), generator=torch.Generator().manual_seed(3))
KINDS = [("float32", "bfloat16"), ("bfloat16", "float32"), ("int8", "float32"), ("nf4", "bfloat16")]


def stored(family, dtype, compute):
    """A base with this storage, and one in float32 that has the very same weights."""
    base = base_of(family).eval()
    base = base.to(torch.bfloat16) if dtype == "bfloat16" else base
    plain = copy.deepcopy(base).float()
    store(base, dtype, compute)
    settle(base, compute)
    for name, module in base.named_modules():
        if isinstance(module, StoredLinear) and module.kind:
            twin = plain.get_submodule(name)
            dense = module.dense().float()
            twin.weight.data = (dense.t() if isinstance(twin, Conv1D) else dense).clone()
    embedding = base.get_input_embeddings().weight.float()
    plain.get_input_embeddings().weight.data = embedding.clone()
    plain.get_output_embeddings().weight.data = base.get_output_embeddings().weight.float().clone()
    return base.requires_grad_(False), plain.requires_grad_(False)


def far(one, two):
    return float((one.float() - two.float()).norm() / two.float().norm())


@pytest.mark.parametrize(("dtype", "compute"), KINDS)
@pytest.mark.parametrize("family", CONFIGS)
def test_a_pass_is_that_of_the_weights_as_stored(family, dtype, compute):
    base, plain = stored(family, dtype, compute)
    out = base(input_ids=IDS).logits
    assert out.dtype == getattr(torch, compute)
    assert far(out, plain(input_ids=IDS).logits) < (1e-2 if compute == "bfloat16" else 3e-3)


@pytest.mark.parametrize(("kind", "most"), [("int8", 0.012), ("nf4", 0.10)])
def test_a_packed_weight_is_close_to_the_one_it_stands_for(kind, most):
    for linear in (nn.Linear(96, 40), Conv1D(40, 96)):
        packed = StoredLinear(linear, kind, torch.float32)
        packed.pack(linear.weight)
        dense = linear.weight.t() if isinstance(linear, Conv1D) else linear.weight
        assert packed.dense().shape == dense.shape == (40, 96)
        assert 0 < far(packed.dense(), dense) < most
        held = packed.weight.numel() + 4 * packed.absmax.numel()
        assert held == 96 * 40 * (1 if kind == "int8" else 0.5) + 96 * 40 / 16


@pytest.mark.parametrize("kind", [None, "int8", "nf4"])
@pytest.mark.parametrize("inputs", [64, 96])
def test_a_large_weight_is_unpacked_in_slices(kind, inputs, monkeypatch):
    linear = nn.Linear(inputs, 13)
    layer = StoredLinear(linear.bfloat16(), kind, torch.float32)
    if kind:
        layer.pack(linear.weight)
    layer.bias = nn.Parameter(layer.bias.float())
    x = torch.randn(2, 3, inputs, generator=torch.Generator().manual_seed(0), requires_grad=True)
    whole = layer(x)
    (expected,) = torch.autograd.grad(whole.square().sum(), x)
    monkeypatch.setattr("comigs.backbone.stored.SLICE", 4 * 64)
    unpacked = [len(layer.dense(rows)) for rows in layer.slices()]
    assert unpacked == [4, 4, 4, 1] if inputs == 64 else sum(unpacked) == 13
    assert len(unpacked) == (1 if kind and inputs % 64 else {64: 4, 96: 7}[inputs])
    out = layer(x)
    (found,) = torch.autograd.grad(out.square().sum(), x)
    torch.testing.assert_close(out, whole)
    torch.testing.assert_close(found, expected)


def test_a_product_and_its_gradient_are_those_of_the_unpacked_weight():
    linear = nn.Linear(24, 8)
    layer = StoredLinear(linear, "nf4", torch.float32)
    layer.pack(linear.weight)
    x = torch.randn(5, 24, generator=torch.Generator().manual_seed(0), requires_grad=True)
    layer(x).square().sum().backward()
    [want] = torch.autograd.grad(F.linear(x, layer.dense(), linear.bias).square().sum(), x)
    torch.testing.assert_close(x.grad, want)


def test_no_unpacked_weight_is_kept_for_the_backward_pass():
    layer = StoredLinear(nn.Linear(64, 64, bias=False).bfloat16(), None, torch.float32)
    kept = []
    x = torch.randn(2, 64, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(kept.append, lambda tensor: tensor):
        layer(x)
    assert [t for t in kept if t.numel() >= 64 * 64] == []


@pytest.mark.parametrize(("dtype", "compute"), KINDS)
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_mixture_over_it_trains_as_over_the_weights_as_stored(family, dtype, compute):
    losses, gradients = [], []
    for base in stored(family, dtype, compute):
        model = comigs.add_experts(base, comigs.ExpertsConfig(specialists=2, top_k=3, rank=4))
        init_adapters(model, 0, 0)
        with torch.no_grad():
            for name, parameter in adapter_parameters(model).items():
                if ".lora_B." in name:
                    parameter.normal_(std=0.05, generator=torch.Generator().manual_seed(1))
        with comigs.training_experts(model, lambda name: True):
            loss = token_loss(model, IDS)
            loss.backward()
        losses.append(loss.item())
        gradients.append({n: p.grad for n, p in adapter_parameters(model).items()})
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)
    limit = 0.2 if compute == "bfloat16" else 0.02
    for name, gradient in gradients[0].items():
        assert gradient.dtype == torch.float32
        if ".router." not in name:
            assert far(gradient, gradients[1][name]) < limit, name


@pytest.mark.parametrize("dtype", ["int8", "nf4"])
def test_a_copy_that_was_kept_is_the_base_that_was_quantised(tmp_path, monkeypatch, dtype):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = save(llama(), tmp_path / "model")
    base_on.cache_clear()
    small = logits(load_base(str(folder), dtype, "float32"))
    assert not list((tmp_path / "cache").glob("comigs/*"))  # too small to be worth it
    monkeypatch.setattr(basecache, "WORTH_SHARING", 0)
    for _ in range(2):  # made, and mapped
        base_on.cache_clear()
        assert torch.equal(logits(load_base(str(folder), dtype, "float32")), small)
    assert len(list((tmp_path / "cache").glob(f"comigs/*/{FILE}"))) == 1
    base_on.cache_clear()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "int8", "nf4"])
def test_a_run_over_it_resumes_bit_for_bit_and_its_experts_go_anywhere(tree, tmp_path, dtype):
    tree = tree | {"model": {"name": "comigs-tiny", "dtype": dtype, "compute": "float32"}}
    whole, resumed = run_and_resumed(tree, tmp_path)
    assert numbers(resumed) == numbers(whole)
    comigs.save_experts(RunResult(whole, []).client(0).model(), tmp_path / "experts")
    plain = PeftModel.from_pretrained(
        copy.deepcopy(load_base("comigs-tiny", "float32")), tmp_path / "experts" / "generalist_0"
    )
    assert torch.isfinite(plain(input_ids=IDS).logits).all()


def test_what_needs_a_library_says_how_to_get_it(monkeypatch):
    for name in ("bitsandbytes", "bitsandbytes.functional"):
        monkeypatch.setitem(sys.modules, name, None)
    quantiser.cache_clear()
    with pytest.raises(comigs.BadInput, match=r"pip install 'comigs\[quant\]'"):
        StoredLinear(nn.Linear(8, 8), "nf4", torch.float32).pack(torch.ones(8, 8))


def test_identity_of_runs_of_before_is_the_same_and_another_arithmetic_is_another_run():
    plain = load_config({"model": {"dtype": "bfloat16"}})
    told = {
        compute: config_hash(replace(plain, model=replace(plain.model, compute=compute)))
        for compute in ("auto", "bfloat16", "float32")
    }
    assert told["auto"] == told["bfloat16"] != told["float32"]
