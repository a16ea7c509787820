"""One client's round with plain gradient steps, so that an equation can be checked by hand."""

import torch

from comigs.config.load import load_config
from comigs.data.tokens import random_windows
from comigs.evaluation.perplexity import token_loss
from comigs.federation.clients import data_of, model_of
from comigs.local.round import Order, begin_round, end_round, train_begun
from comigs.mixture.adapters import adapter_parameters, adapter_tensors, load_adapter_tensors
from comigs.mixture.experts import balance_loss
from comigs.seeds import generator
from comigs.store.state import read_state
from comigs.training.trainee import Learner, Trainee
from tests.helpers import client_of

LR = 0.05
PLAIN = {"optimizer": "sgd", "lr": LR, "betas": [0.0, 0.0], "weight_decay": 0.0}
PLAIN |= {"schedule": "constant"}


def plain_client(tree, method, **more):
    """A client that descends the gradient, without momentum or decay."""
    settings = {"experts": {"specialists": 1, "rank": 2}, "train": PLAIN, "method": method}
    return client_of(load_config(tree | settings | more))


def play(client, root, number, before, shared):
    """One round; returns (the model's tensors as they were, what it sent, its metrics)."""
    begun = begin_round(Order(client, number, before, shared, root))
    start = adapter_tensors(begun.trainee.model)
    [trained] = train_begun([begun])
    sent, metrics = end_round(begun, *trained)
    return start, sent, metrics


def saved(root, number):
    """The groups of tensors of a round, and the numbers beside them."""
    return read_state(root, number)


def noisy(tensors, seed=1, size=0.05):
    """As from the server: the tensors, a little moved."""
    rng = torch.Generator().manual_seed(seed)
    return {n: t + size * torch.randn(t.shape, generator=rng) for n, t in sorted(tensors.items())}


def gradient_at(client, tensors, number, skip=0):
    """Gradient of CE + lambda balance at `tensors`, on the batch of the round's step `skip`."""
    model, data = model_of(client, slot=3), data_of(client)
    load_adapter_tensors(model, tensors)
    learner = Learner(Trainee(client, model, data.train, data.valid, {}, 0), number)
    for _ in range(skip + 1):
        windows = learner.draw(data.train, learner.batches)
    router = client.config.router

    def loss():
        entropy = token_loss(model, windows, "mean")  # first: balance is of the last pass
        return entropy + router.balance * balance_loss(model, router.generalist_importance)

    return gradients(model, adapter_parameters(model), loss)


def gradient_on_draw(client, tensors, number, purpose, wanted=lambda name: True):
    """Gradient of CE at `tensors`, on the batch that a round draws for `purpose`."""
    model, data, config = model_of(client, slot=3), data_of(client), client.config
    load_adapter_tensors(model, tensors)
    rng = generator(config.seed, client.number, number, purpose)
    windows = random_windows(data.train, config.batch_size, config.data.seq_len, rng)
    named = {name: p for name, p in adapter_parameters(model).items() if wanted(name)}
    return gradients(model, named, lambda: token_loss(model, windows))


def gradients(model, named, loss):
    """Of a loss, by the name of the parameter; afterwards none requires grad."""
    for parameter in named.values():
        parameter.requires_grad_(True)
        parameter.grad = None
    loss().backward()
    found = {name: parameter.grad.clone() for name, parameter in named.items()}
    model.requires_grad_(False)
    return found
