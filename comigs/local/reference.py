"""What both sides know that a client's shared tensors started a round from."""

from collections.abc import Mapping

import torch
from torch import Tensor

from comigs.federation.run import Run
from comigs.messages.fields import ACTIVATIONS
from comigs.mixture.adapters import start_tensor
from comigs.mixture.ranks import cut

Tensors = Mapping[str, Tensor]


def reference(
    run: Run, client: int, number: int, sent: Tensors,
    shapes: Mapping[str, tuple[int, ...]],
) -> dict[str, Tensor]:  # fmt: skip
    """The tensors that an update is measured from.

    They are what the server sent, at the rank that the client has; where every client gets every
    client's tensors, its own of the round before. Where nothing of that name was sent it is the
    common start, which some methods begin anew in every round.

    Args:
        number: the round.
        sent: by the server for this round.
        shapes: of the client's shared tensors.
    """
    begun = number if run.method.restarts and sent else 0
    ranks = {shape[0] for name, shape in shapes.items() if ".lora_A." in name}
    if len(ranks) == 1:
        sent = cut(sent, ranks.pop(), run.config.experts)
    out = {}
    for name, shape in shapes.items():
        known = sent.get(f"{client}/{name}", sent.get(name))
        if name.startswith(ACTIVATIONS):
            known = torch.zeros(shape)
        elif known is None or tuple(known.shape) != shape:
            known = start_tensor(name, shape, run.config.seed, number=begun)
        out[name] = known
    return out
