"""The gradient of a model's loss on some text, for a look at it: nothing is trained."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from comigs.config.settings import ClientConfig
from comigs.data.windows import predicted
from comigs.evaluation.perplexity import token_loss
from comigs.mixture.adapters import adapter_parameters
from comigs.mixture.forward import forward_of


@contextmanager
def gradients_of(
    model: nn.Module, config: ClientConfig, wanted: Callable[[str], bool]
) -> Iterator[Callable[[Tensor], dict[str, Tensor]]]:
    """Within the context, a function from windows (n x L+1) to a gradient, by name of tensor.

    It is the gradient of the windows' mean cross-entropy, without dropout, on the CPU; 0 of a
    tensor that the loss does not depend on. It takes the memory that a client's `config` trains in.
    No tensor of the model changes, and afterwards none requires grad.

    Args:
        wanted: names the adapter tensors whose gradient it is.
    """
    named = {name: p for name, p in adapter_parameters(model).items() if wanted(name)}
    chunked = config.train.loss == "chunked"

    def gradient(windows: Tensor) -> dict[str, Tensor]:
        total = {name: torch.zeros(p.shape) for name, p in named.items()}
        for part in windows.split(config.micro_batch):
            loss = token_loss(model, part, "mean", chunked)
            share = float(predicted(part) / predicted(windows))
            found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
            for name, each in zip(named, found, strict=True):
                if each is not None:
                    total[name] += share * each.cpu()
        return total

    model.eval().requires_grad_(False)
    for parameter in named.values():
        parameter.requires_grad_(True)
    try:
        with forward_of(model, config.train):
            yield gradient
    finally:
        model.requires_grad_(False)
