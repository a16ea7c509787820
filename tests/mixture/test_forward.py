"""Checkpointing and the chunked loss change memory alone: losses, gradients and steps stay."""

import shutil
from dataclasses import replace

import pytest
import torch

import comigs
from comigs.backbone import head
from comigs.config.train import TrainConfig
from comigs.evaluation.perplexity import perplexity, token_loss
from comigs.mixture.adapters import adapter_parameters, adapter_tensors
from comigs.mixture.experts import balance_loss, expert_blocks
from comigs.mixture.forward import forward_of
from tests.backbone.test_families import CONFIGS, base_of, mixture_of
from tests.training.test_bilevel import CONFIG, make_model, train

IDS = torch.randint(1, 64, (3, 17), generator=torch.Generator().manual_seed(3))


def gradients(model, ids, options):
    """Cross-entropy, balance loss and every gradient of one pass with dropout."""
    torch.manual_seed(1)
    with comigs.training_experts(model, lambda name: True), forward_of(model, options):
        loss = token_loss(model, ids, "mean", options.loss == "chunked")
        balance = balance_loss(model, 0.3)
        (loss + balance).backward()
    found = {name: p.grad for name, p in adapter_parameters(model).items()}
    model.zero_grad(set_to_none=True)
    return loss.detach(), balance.detach(), found


@pytest.mark.slow
@pytest.mark.parametrize("top_k", [1, 2, 3])
@pytest.mark.parametrize("family", CONFIGS)
def test_recomputed_layers_give_the_very_same_gradients(family, top_k):
    model = mixture_of(base_of(family), specialists=2, top_k=top_k, rank=4, dropout=0.2)
    plain = gradients(model, IDS, TrainConfig())
    loss, balance, found = gradients(model, IDS, TrainConfig(checkpointing=True))
    assert torch.equal(loss, plain[0])
    assert torch.equal(balance, plain[1])
    for name, gradient in plain[2].items():
        assert torch.equal(found[name], gradient), name


def test_layers_run_twice_and_keep_the_routing_of_the_first_run():
    model = mixture_of(base_of("llama"), specialists=2, top_k=2, rank=4)
    block = expert_blocks(model)[0]
    calls = []
    block.register_forward_pre_hook(lambda module, inputs: calls.append(torch.is_grad_enabled()))
    with comigs.training_experts(model), forward_of(model, TrainConfig(checkpointing=True)):
        loss = token_loss(model, IDS)
        routing = block.routing
        loss.backward()
        assert block.routing is routing
        assert len(calls) == 2
    token_loss(model, IDS)
    assert len(calls) == 3


@pytest.mark.parametrize("family", CONFIGS)
def test_the_chunked_loss_is_the_full_one(family, monkeypatch):
    monkeypatch.setattr(head, "CHUNK", 64 * 7)  # 51 tokens in chunks of 7
    model = mixture_of(base_of(family), specialists=1, top_k=2, rank=4)
    plain = gradients(model, IDS, TrainConfig())
    loss, _, found = gradients(model, IDS, TrainConfig(loss="chunked"))
    torch.testing.assert_close(loss, plain[0], rtol=1e-5, atol=0)
    for name, gradient in plain[2].items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-6)


def test_the_chunked_loss_never_holds_more_than_a_chunk_of_logits(monkeypatch):
    monkeypatch.setattr(head, "CHUNK", 64 * 7)
    model = base_of("gpt2")
    rows = []
    model.lm_head.register_forward_hook(lambda module, inputs, output: rows.append(len(output)))
    token_loss(model, IDS, "mean", True)
    assert rows == [7] * 6 + [6]


@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_perplexity_is_the_same_in_chunks(family, monkeypatch):
    monkeypatch.setattr(head, "CHUNK", 64 * 7)
    model, tokens = base_of(family), IDS.flatten()
    whole = perplexity(model, tokens, 8)
    assert perplexity(model, tokens, 8, 3, chunked=True) == pytest.approx(whole, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("grad", ["alternating", "first_order"])
def test_a_round_of_training_is_the_same_with_less_memory(grad):
    experts = {"specialists": 2, "top_k": 2, "dropout": 0.1}
    config = replace(CONFIG, router=replace(CONFIG.router, grad=grad))
    plain, thrifty = make_model(**experts), make_model(**experts)
    torch.manual_seed(5)
    train(plain, config)
    torch.manual_seed(5)
    train(thrifty, replace(config, train=TrainConfig(checkpointing=True, loss="chunked")))
    for name, tensor in adapter_tensors(plain).items():
        torch.testing.assert_close(adapter_tensors(thrifty)[name], tensor, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_a_compiled_model_agrees_and_is_compiled_once_for_both_losses():
    from torch._inductor import config as inductor

    model = mixture_of(base_of("gpt2", n_layer=1), specialists=1, top_k=2, rank=4)
    plain = gradients(model, IDS, TrainConfig())
    torch.compiler.reset()
    frames = torch._dynamo.utils.counters["frames"]
    frames.clear()
    compiled = set()
    for loss in ("full", "chunked"):
        with inductor.patch({"cpp.simdlen": 1}):  # plain loops are less work for g++
            found_loss, balance, found = gradients(model, IDS, TrainConfig(compile=True, loss=loss))
        compiled.add(frames["ok"])
        torch.testing.assert_close((found_loss, balance), plain[:2], rtol=1e-4, atol=0)
        for name, gradient in plain[2].items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-5)
    assert len(compiled) == 1 and compiled != {0}


def test_to_compile_without_a_compiler_is_an_error_that_says_so(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    model = mixture_of(base_of("gpt2"), specialists=1, top_k=2, rank=4)
    with (
        pytest.raises(comigs.BadInput, match=r"train\.compile needs .* 'no-such-compiler'"),
        forward_of(model, TrainConfig(compile=True)),
    ):
        pass


def test_compiling_and_recomputing_exclude_each_other():
    with pytest.raises(comigs.BadInput, match=r"train\.compile must be false"):
        TrainConfig(compile=True, checkpointing=True)
