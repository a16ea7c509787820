"""The running mean over rounds of what stays on a client, with `train.swa`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from comigs.federation.run import Client
from comigs.messages.update import mean_with
from comigs.store.state import read_state

SWA = "swa"  # the part of a client's state that holds the mean, and how many rounds it is of


def mean_after(
    client: Client, meta: Mapping[str, Any], root: Path, state_round: int, number: int,
    tensors: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, int]]:  # fmt: skip
    """The mean after the client has trained round `number`, and what goes into its counters.

    Args:
        meta: the counters as of `state_round`.
        tensors: every adapter tensor as trained.
    """
    first = client.config.train.swa
    if first is None or number < first:
        return {}, {}
    own = {name: tensor for name, tensor in tensors.items() if not client.method.shares(name)}
    count = meta.get(SWA, 0) + 1
    return mean_with(mean_of(client, root, state_round), own, count), {SWA: count}


def mean_of(client: Client, root: Path, state_round: int) -> dict[str, Tensor]:
    """The mean as of `state_round`; empty while there is none."""
    if client.config.train.swa is None or state_round == 0:
        return {}
    return read_state(root, state_round)[0].get(SWA, {})
