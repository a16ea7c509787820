"""Numbers about a client's model as received, on its validation text: one file here for each.

A file defines `METRIC`; `log.metrics` names the files. What it returns leaves the device. A few are
of local steps instead (`OfSteps`), or of a client's peers (`OfPeers`).
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from comigs.backbone.head import backbone_of, placed
from comigs.config.settings import ClientConfig
from comigs.data.tokens import consecutive_windows
from comigs.data.windows import read_marks, real
from comigs.evaluation.perplexity import evaluation_batch
from comigs.mixture.experts import expert_blocks
from comigs.mixture.gates import Gates
from comigs.mixture.router import of_tokens
from comigs.schema.byfile import find_in

Metric = Callable[[nn.Module, Tensor, ClientConfig], float | Mapping[str, float]]
"""From a model, a stream of tokens and the client's configuration to a finite number, or several.

Of several each has a name of its own, which is told as <metric>/<name>.
"""


class Watch(Protocol):
    """Looks at the tensors that a client trains, by name, around each of its expert steps."""

    def before(self, tensors: Mapping[str, Tensor]) -> None: ...
    def after(self, tensors: Mapping[str, Tensor]) -> None: ...
    def told(self) -> Mapping[str, float]:
        """Finite numbers of the round, by name, which are told as <metric>/<name>."""


@dataclass(frozen=True)
class OfSteps:
    """A metric of a round's local steps.

    Attributes:
        watch: begins a round.
    """

    watch: Callable[[], Watch]


class OfPeers:
    """A metric of a client's peers: each of its numbers is a row of a matrix.

    A method tells it (`Method.tells`), and only one in which peers' tensors arrive at a client.
    """


def find_metric(name: str) -> Metric | OfSteps | OfPeers:
    """Return `METRIC` of comigs/evaluation/metrics/<name>.py.

    Raises:
        BadInput: there is none of that name.
    """
    metric: Metric | OfSteps | OfPeers = find_in(
        sys.modules[__name__], "log.metrics", name, "METRIC"
    )
    return metric


def measured(
    names: Sequence[str], model: nn.Module, tokens: Tensor, config: ClientConfig
) -> dict[str, float]:
    """Every metric of `names`, by name, but for those of steps."""
    told: dict[str, float] = {}
    for name, metric in of_models(names).items():
        found = metric(model, tokens, config)
        if isinstance(found, Mapping):
            told |= {f"{name}/{part}": value for part, value in found.items()}
        else:
            told[name] = found
    return told


def of_models(names: Iterable[str]) -> dict[str, Metric]:
    """Those of `names` that read text: each takes a pass over it."""
    found = {name: find_metric(name) for name in names}
    return {name: m for name, m in found.items() if not isinstance(m, OfSteps | OfPeers)}


def watches(names: Iterable[str]) -> dict[str, Watch]:
    """Those that look at the steps of one client in one round, by metric."""
    found = {name: find_metric(name) for name in names}
    return {name: metric.watch() for name, metric in found.items() if isinstance(metric, OfSteps)}


def mean_over_tokens(
    model: nn.Module,
    tokens: Tensor,
    config: ClientConfig,
    value: Callable[[Gates], Tensor | float],
) -> float:
    """The mean over tokens and layers of what a mixture did with a batch of them.

    Args:
        value: the mean of a block's last pass, over its tokens.
    """
    total, counted = torch.zeros((), dtype=torch.float64), 0
    for blocks, count in passes(model, tokens, config):
        means = torch.tensor([float(value(block)) for block in blocks], dtype=torch.float64)
        total, counted = total + means.mean() * count, counted + count
    return float(total / counted)


@torch.no_grad()
def passes(
    model: nn.Module, tokens: Tensor, config: ClientConfig
) -> Iterator[tuple[list[Gates], int]]:
    """Read a stream, or rows, batch by batch: the blocks as each batch left them, without what is
    filling, and how many tokens it had."""
    blocks, device = expert_blocks(model), next(model.parameters()).device
    for windows in consecutive_windows(tokens, evaluation_batch(config), config.data.seq_len):
        batch, kept = read_marks(windows), real(windows)
        at = None if batch.positions is None else batch.positions.to(device)
        ids = batch.ids.to(device)
        backbone_of(model)(input_ids=ids, use_cache=False, **placed(model, at))
        for block in blocks:
            block.routing = None if block.routing is None else of_tokens(block.routing, kept)
        yield blocks, batch.ids.numel() if kept is None else int(kept.sum())
