"""Tokens of a bf16 expert come in whole blocks, so that few kernels are compiled and kept."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import comigs
from comigs.evaluation.perplexity import token_loss
from comigs.mixture import gates
from comigs.mixture.adapters import adapter_parameters
from comigs.mixture.experts import balance_loss, expert_blocks
from tests.backbone.test_families import base_of, mixture_of

IDS = torch.randint(1, 64, (3, 18), generator=torch.Generator().manual_seed(3))


def bf16_mixture(top_k):
    return mixture_of(base_of("llama").to(torch.bfloat16), specialists=2, top_k=top_k, rank=4)


def gradients(model):
    with comigs.training_experts(model, lambda name: True):
        loss = token_loss(model, IDS) + balance_loss(model)
        loss.backward()
    return loss.detach(), {name: p.grad for name, p in adapter_parameters(model).items()}


@pytest.mark.parametrize("top_k", [1, 2])
def test_whole_blocks_change_neither_loss_nor_gradients(top_k, monkeypatch):
    loss, found = gradients(bf16_mixture(top_k))
    monkeypatch.setattr(gates, "BLOCK", 1)
    plain_loss, plain = gradients(bf16_mixture(top_k))
    torch.testing.assert_close(loss, plain_loss, rtol=1e-2, atol=0)
    for name, gradient in plain.items():
        error = (found[name] - gradient).norm() / gradient.norm()
        assert error < 0.02, (name, error)  # of bf16 sums in another order


class RowsOfProducts(TorchDispatchMode):
    """The number of rows of every matrix product within the context."""

    def __init__(self):
        super().__init__()
        self.rows = set()

    def __torch_dispatch__(self, call, types, args=(), kwargs=None):
        if call in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default):
            self.rows.add(args[-2].shape[0])
        return call(*args, **(kwargs or {}))


@pytest.mark.parametrize(("dtype", "whole"), [(torch.bfloat16, True), (torch.float32, False)])
def test_only_bf16_experts_are_filled_up(dtype, whole):
    block = expert_blocks(mixture_of(base_of("llama").to(dtype), specialists=2, top_k=1))[0]
    x = torch.randn(1, 37, 32, generator=torch.Generator().manual_seed(0)).to(dtype)
    with RowsOfProducts() as seen:
        block(x)
    chosen = [(block.routing.chosen == e).any(-1).sum().item() for e in range(3)]
    size = gates.BLOCK if whole else 1
    rank = 8  # of products that are made lying
    assert seen.rows - {37, rank} == {-(-count // size) * size for count in chosen} - {37, rank}
