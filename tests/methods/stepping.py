"""One client's round with plain gradient steps, so that an equation can be checked by hand."""

import torch

from comigs.config.load import load_config
from comigs.local.round import Order, begin_round, end_round, train_begun
from comigs.mixture.adapters import adapter_tensors
from comigs.store.state import read_state
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
