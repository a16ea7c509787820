"""Cross-entropy of a model on a stream of tokens, and perplexity."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from comigs.data.tokens import consecutive_windows


def token_loss(model: nn.Module, windows: Tensor, reduction: str = "mean") -> Tensor:
    """Cross-entropy in nats of predicting tokens 2..L+1 of each window (n x L+1)."""
    windows = windows.to(next(model.parameters()).device)
    logits = model(input_ids=windows[:, :-1], use_cache=False).logits
    return F.cross_entropy(
        logits.flatten(0, 1).float(), windows[:, 1:].flatten(), reduction=reduction
    )


@torch.no_grad()
def perplexity(model: nn.Module, tokens: Tensor, seq_len: int, batch_size: int = 16) -> float:
    """exp(mean token cross-entropy) over the whole stream, every token but the first once."""
    total = 0.0
    for windows in consecutive_windows(tokens, batch_size, seq_len):
        total += token_loss(model, windows, "sum").double().item()
    mean = total / (len(tokens) - 1)
    return math.exp(mean) if mean < 700 else math.inf
