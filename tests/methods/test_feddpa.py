"""FedDPA: the global expert learns alone, the local one beside it, and both count one half."""

import torch

from comigs.data.tokens import random_windows
from comigs.evaluation.perplexity import token_loss
from comigs.federation.clients import data_of, model_of
from comigs.mixture.adapters import adapter_parameters, load_adapter_tensors
from comigs.mixture.experts import expert_blocks, using_expert
from comigs.seeds import generator
from tests.methods.stepping import LR, noisy, plain_client, play

pytest_plugins = ("tests.fixtures",)


def gradient(client, values, number, skip, alone):
    """Gradient on the batch of the round's step `skip`, of the mixture or of one expert alone."""
    model, data, config = model_of(client, slot=3), data_of(client), client.config
    load_adapter_tensors(model, values)
    rng = generator(config.seed, client.number, number, "train batches")
    for _ in range(skip + 1):
        windows = random_windows(data.train, config.batch_size, config.data.seq_len, rng)
    named = adapter_parameters(model)
    for parameter in named.values():
        parameter.grad = None
        parameter.requires_grad_(True)
    if alone:
        with using_expert(model, alone):
            token_loss(model, windows).backward()
    else:
        token_loss(model, windows).backward()
    found = {n: p.grad.clone() for n, p in named.items() if p.grad is not None}
    model.requires_grad_(False)
    return found


def test_a_step_of_the_global_expert_alone_and_one_of_the_local_within_both(tree, tmp_path):
    client = plain_client(tree, "feddpa", local_steps=2)
    _, first, _ = play(client, tmp_path, 1, 0, {})
    mean = noisy({n: t for n, t in first.items() if client.method.shares(n)})
    start, after, _ = play(client, tmp_path, 2, 1, mean)
    assert all(torch.equal(start[name], mean.get(name, first[name])) for name in start)
    of_global = gradient(client, start, 2, 0, "generalist_0")
    middle = {n: t - LR * of_global[n] if n in mean else t for n, t in start.items()}
    of_local = gradient(client, middle, 2, 1, None)
    for name, tensor in middle.items():
        expected = tensor if name in mean else tensor - LR * of_local[name]
        torch.testing.assert_close(after[name], expected, rtol=1e-4, atol=1e-6)
    assert any(name not in mean for name in start)


def test_each_counts_one_half(tree):
    client = plain_client(tree, "feddpa")
    model = model_of(client)
    rng = torch.Generator().manual_seed(0)
    values = {n: torch.randn(p.shape, generator=rng) for n, p in adapter_parameters(model).items()}
    load_adapter_tensors(model, values)
    block = expert_blocks(model)[0]
    x = torch.randn(1, 5, 16, generator=rng)
    both, parts = block(x), []
    for name in ("generalist_0", "specialist_0"):
        with using_expert(model, name):
            parts.append(block(x))
    torch.testing.assert_close(both, (parts[0] + parts[1]) / 2, rtol=1e-4, atol=1e-5)
