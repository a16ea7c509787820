"""The running mean over rounds of what stays on a client, with `train.swa`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from comigs.federation.run import Client
from comigs.messages.update import mean_with
from comigs.store.state import read_state

SWA = "swa"  # the part of a client's state that holds the mean; of its counters, of how many rounds


def mean_after(
    client: Client,
    number: int,
    tensors: Mapping[str, Tensor],
    meta: Mapping[str, Any],
    before: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, int]]:
    """The mean after the client has trained round `number`, and what goes into its counters.

    Args:
        tensors: every adapter tensor as trained.
        meta, before: the counters and the mean that the round began with.
    """
    first = client.config.train.swa
    if first is None or number < first:
        return {}, {}
    own = {name: tensor for name, tensor in tensors.items() if not client.method.shares(name)}
    count = meta.get(SWA, 0) + 1
    return mean_with(before, own, count), {SWA: count}


def mean_of(client: Client, root: Path, state_round: int) -> dict[str, Tensor]:
    """The mean as of `state_round`; empty while there is none."""
    if client.config.train.swa is None or state_round == 0:
        return {}
    return read_state(root, state_round)[0].get(SWA, {})
