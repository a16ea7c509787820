"""Every client gets the mean of the others' latest tensors, without its own.

The server keeps each client's latest tensors as they arrived, also where it took no part in the
last round. All count alike.
"""

import torch
from torch import Tensor

from comigs.aggregation import Aggregator, Tensors
from comigs.aggregation.gather import combine
from comigs.aggregation.mean import weighted_mean


def without(kept: Tensors, client: int) -> dict[str, Tensor]:
    """The mean over all but `client`; 0 where nobody else has sent anything yet."""
    held: dict[str, dict[int, Tensor]] = {}
    for key, tensor in kept.items():
        sender, _, name = key.partition("/")
        held.setdefault(name, {})[int(sender)] = tensor
    means = {}
    for name, tensors in held.items():
        others = {sender: tensor for sender, tensor in tensors.items() if sender != client}
        nobody = {0: torch.zeros_like(next(iter(tensors.values())))}
        means[name] = weighted_mean(others or nobody, dict.fromkeys(others or nobody, 1.0))
    return means


AGGREGATOR = Aggregator(combine, weighs=False, view=without)
