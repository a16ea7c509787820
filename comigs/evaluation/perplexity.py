"""Cross-entropy of a model on a stream of tokens, and perplexity."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from comigs.backbone.head import chunked_loss
from comigs.config.settings import ClientConfig
from comigs.data.tokens import consecutive_windows

EVALUATION_BATCH = 16  # sequences at once, or fewer if `micro_batch_size` says so


def token_loss(
    model: nn.Module, windows: Tensor, reduction: str = "mean", chunked: bool = False
) -> Tensor:
    """Cross-entropy in nats of predicting tokens 2..L+1 of each window (n x L+1).

    Args:
        reduction: "mean" or "sum" over the tokens.
        chunked: never hold the logits of all tokens at once.
    """
    device = next(model.parameters()).device
    if device.type == "cuda":
        windows = windows.pin_memory().to(device, non_blocking=True)
    elif device.type != "cpu":
        windows = windows.to(device)
    inputs, targets = windows[:, :-1], windows[:, 1:].flatten()
    if chunked:
        total = chunked_loss(model, inputs, targets)
        return total / len(targets) if reduction == "mean" else total
    logits = model(input_ids=inputs, use_cache=False).logits
    return F.cross_entropy(logits.flatten(0, 1).float(), targets, reduction=reduction)


def evaluation_batch(config: ClientConfig) -> int:
    """Sequences that are evaluated at once by a client that trains as its `config` says."""
    whole = config.micro_batch == config.batch_size
    return EVALUATION_BATCH if whole else min(EVALUATION_BATCH, config.micro_batch)


def evaluate(model: nn.Module, tokens: Tensor, config: ClientConfig) -> float:
    """Perplexity on the whole stream, in the memory that a client's `config` trains in."""
    chunked = config.train.loss == "chunked"
    return perplexity(model, tokens, config.data.seq_len, evaluation_batch(config), chunked)


@torch.no_grad()
def perplexity(
    model: nn.Module,
    tokens: Tensor,
    seq_len: int,
    batch_size: int = EVALUATION_BATCH,
    chunked: bool = False,
) -> float:
    """exp(mean token cross-entropy) over the whole stream, every token but the first once."""
    total = torch.zeros((), dtype=torch.float64)
    for windows in consecutive_windows(tokens, batch_size, seq_len):
        loss = token_loss(model, windows, "sum", chunked)
        total = total + (loss.cpu() if loss.device.type == "mps" else loss).double()  # has none
    mean = total.item() / (len(tokens) - 1)
    return math.exp(mean) if mean < 700 else math.inf
