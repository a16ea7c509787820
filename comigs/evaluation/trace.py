"""What a mixture does with single tokens of text: who carries each, and how well it is foretold."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from comigs.data.tokens import consecutive_windows
from comigs.data.windows import Batch, read_marks, real
from comigs.evaluation.perplexity import batch_loss
from comigs.mixture.experts import expert_blocks, shared_expert, using_expert
from comigs.mixture.gates import Gates

CUT = "\N{REPLACEMENT CHARACTER}"  # what a tokenizer makes of a part of a character


@dataclass(frozen=True)
class Trace:
    """T tokens of a client's text as its model reads them. Losses are in nats.

    Attributes:
        ids: T.
        begins: the places at which another passage begins, from 0.
        experts: names, in the order of the gates.
        routed: whether a router decides; without one all experts have the same share.
        gates: layers x T x E, of each token while it is read; 0 where an expert was not chosen.
        loss: T, of each token as it was foretold from those before it; NaN where nothing did.
        base: the same of the bare base.
        generalist: the same of the first generalist alone; None without one among several experts.
    """

    ids: Tensor
    begins: Sequence[int]
    experts: Sequence[str]
    routed: bool
    gates: Tensor
    loss: Tensor
    base: Tensor
    generalist: Tensor | None


def passages(tokens: Tensor, amount: int, seq_len: int) -> Tensor:
    """Windows from all over a stream, or rows of chats, that hold at most `amount` tokens in all.

    Args:
        seq_len: the most tokens of one window.
    """
    length = min(seq_len, amount)
    if tokens.ndim == 2:
        windows = tokens[:, : length + 1]
    else:
        windows = next(consecutive_windows(tokens, len(tokens), length))
    count = min(len(windows), amount // length)
    return windows[[i * len(windows) // count for i in range(count)]]


@torch.no_grad()
def trace(model: nn.Module, base: nn.Module, windows: Tensor) -> Trace:
    """Follow the tokens that are read of windows (n x L+1) through a client's model.

    Args:
        base: the frozen base, as it is without experts.
    """
    batch, kept = read_marks(windows), real(windows)
    kept = torch.ones(batch.ids.numel(), dtype=torch.bool) if kept is None else kept
    blocks = expert_blocks(model)
    names = blocks[0].names
    loss = _foretold(model, batch)[kept]
    gates = torch.stack([_gates(block, batch.ids.numel()) for block in blocks])[:, kept]
    alone = None
    if shared := shared_expert(model):
        with using_expert(model, shared):
            alone = _foretold(model, batch)[kept]
    ends = kept.view(batch.ids.shape).sum(1).cumsum(0).tolist()
    return Trace(
        ids=batch.ids.flatten()[kept],
        begins=[0, *ends[:-1]],
        experts=names,
        routed=blocks[0].router is not None,
        gates=gates,
        loss=loss,
        base=_foretold(base, batch)[kept],
        generalist=alone,
    )


def _foretold(model: nn.Module, batch: Batch) -> Tensor:
    """The loss of each token that is read, n L: it was the target of the place before it."""
    losses = batch_loss(model, batch, "none").float().cpu().view(batch.ids.shape)
    losses = losses.masked_fill(batch.targets < 0, torch.nan)[:, :-1]
    return torch.cat([torch.full((len(losses), 1), torch.nan), losses], 1).flatten()


def _gates(block: Gates, tokens: int) -> Tensor:
    """Of one layer's last pass, T x E."""
    if block.routing is None:
        return torch.full((tokens, len(block.names)), 1 / len(block.names))
    _, chosen, gates = (each.cpu() for each in block.routing)
    return torch.zeros(tokens, len(block.names)).scatter(-1, chosen, gates.float())


def pieces(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    """The text of each token; a character of several tokens is with the last of them."""
    found: list[str] = []
    before = ""
    for end in range(1, len(ids) + 1):
        text = tokenizer.decode(ids[:end], clean_up_tokenization_spaces=False)
        whole = text.rstrip(CUT)
        if whole.startswith(before):
            found.append(whole[len(before) :])
            before = whole
        else:  # it joins what stood before
            found.append(tokenizer.decode(ids[end - 1 : end]))
            before = whole
    return found
