"""Cross-entropy of a model on a stream of tokens, and perplexity."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from comigs.backbone.head import chunked_loss, placed
from comigs.config.settings import ClientConfig
from comigs.data.tokens import consecutive_windows, predictions
from comigs.data.windows import Batch, is_marked, predicted, read_marks

EVALUATION_BATCH = 16  # sequences at once, or fewer if `micro_batch_size` says so


def token_loss(
    model: nn.Module, windows: Tensor, reduction: str = "mean", chunked: bool = False
) -> Tensor:
    """Cross-entropy in nats of the tokens of windows (n x L+1) that are predicted.

    Those are tokens 2..L+1 of plain text; of examples see `comigs.data.windows`.

    Args:
        reduction: "mean" or "sum" over them; "none": n L numbers, 0 for what is not predicted.
        chunked: never hold the logits of all tokens at once.
    """
    return batch_loss(model, read_marks(windows), reduction, chunked)


def batch_loss(
    model: nn.Module, batch: Batch, reduction: str = "mean", chunked: bool = False
) -> Tensor:
    """`token_loss` of windows that are taken apart."""
    device = next(model.parameters()).device
    ids, targets = _on(device, batch.ids), _on(device, batch.targets).flatten()
    positions = None if batch.positions is None else _on(device, batch.positions)
    if chunked:
        total = chunked_loss(model, ids, targets, positions)
        count = len(targets) if batch.positions is None else (targets >= 0).sum()
        return total / count if reduction == "mean" else total
    logits = model(input_ids=ids, use_cache=False, **placed(model, positions)).logits
    return F.cross_entropy(logits.flatten(0, 1).float(), targets, reduction=reduction)


def mean_losses(model: nn.Module, windows: Tensor) -> Tensor:
    """The mean cross-entropy of each of n groups of windows, n x B x L+1, in one pass."""
    each = token_loss(model, windows.flatten(0, 1), "none").view(len(windows), -1)
    if not is_marked(windows):
        return each.mean(1)
    return each.sum(1) / predicted(windows).to(each.device)


def _on(device: torch.device, tensor: Tensor) -> Tensor:
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor if device.type == "cpu" else tensor.to(device)


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
    """exp(mean token cross-entropy): of a stream every token but the first, once; of rows those
    that are predicted."""
    total = torch.zeros((), dtype=torch.float64)
    for windows in consecutive_windows(tokens, batch_size, seq_len):
        loss = token_loss(model, windows, "sum", chunked)
        total = total + (loss.cpu() if loss.device.type == "mps" else loss).double()  # has none
    mean = total.item() / predictions(tokens)
    return math.exp(mean) if mean < 700 else math.inf


def bits_per_byte(perplexity: float, tokens: Tensor, tokenizer: PreTrainedTokenizerBase) -> float:
    """Bits for each byte of UTF-8 of the predicted text, which compares across tokenizers.

    Special tokens have no bytes; what predicting them takes counts.

    Args:
        perplexity: per token, of the whole of `tokens`.
        tokens: a stream, or rows.
    """
    ids = tokens[1:] if tokens.ndim == 1 else tokens[:, 1:]
    text = tokenizer.decode(ids[ids >= 0].tolist(), skip_special_tokens=True)
    return math.log2(perplexity) * predictions(tokens) / max(1, len(text.encode()))
