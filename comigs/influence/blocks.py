"""A client's training text as blocks, and what each does to the loss on its validation text."""

from collections.abc import Iterator

import torch
from peft import PeftModel
from torch import Tensor

from comigs.data.tokens import consecutive_windows
from comigs.evaluation.gradient import gradients_of
from comigs.federation.run import Client
from comigs.influence.rules import Rule, score
from comigs.mixture.adapters import is_router
from comigs.seeds import generator

CURVATURE = 256  # blocks, at most, that the curvature is estimated from


def blocks_of(tokens: Tensor, seq_len: int) -> Tensor:
    """The text as rows of one sequence, n x L+1: of a stream one after another, without the rest.

    Rows of chats are blocks as they are.
    """
    windows = consecutive_windows(tokens, len(tokens), seq_len)
    return torch.cat([rows for rows in windows if rows.shape[1] == seq_len + 1])


class BlockGradients:
    """The gradient of each block's loss, one at a time, made anew whenever it is read.

    Of the experts that the client trains, and not of its router, which learns on other text.

    Args:
        blocks: n x ... x L+1: windows one by one, or batches of them.
    """

    def __init__(self, client: Client, model: PeftModel, blocks: Tensor) -> None:
        self._client, self._model, self._blocks = client, model, blocks

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        with gradients_of(self._model, self._client.config, self._wanted) as gradient:
            for block in self._blocks:
                yield gradient(block.view(-1, block.shape[-1]))

    def _wanted(self, name: str) -> bool:
        return self._client.method.learns(name) and not is_router(name)


def influences(
    client: Client, model: PeftModel, rule: Rule, blocks: Tensor, valid: Tensor
) -> Tensor:
    """Each block's score by `rule` (n, fp64); lower is more helpful.

    It takes as much computing as training on all blocks once, and on `CURVATURE` of them besides.

    Args:
        model: the client's, as it is now.
        blocks: n x L+1.
        valid: validation text as rows of the same length.
    """
    rng = generator(client.config.seed, client.number, 0, "curvature")
    drawn = torch.randperm(len(blocks), generator=rng)[:CURVATURE].sort().values
    [of_valid] = BlockGradients(client, model, valid[None])
    direction = rule(of_valid, BlockGradients(client, model, blocks[drawn]))
    scores = [score(direction, each) for each in BlockGradients(client, model, blocks)]
    return torch.tensor(scores, dtype=torch.float64)
