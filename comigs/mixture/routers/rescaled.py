"""`linear`, and a learnt factor of what the layer puts out (FLAME, arXiv 2506.16600).

With k of E experts a layer puts out (1 + gain) sum_e g_e MLP_e(x). It begins as `linear`.
"""

import torch
from torch import nn


class Rescaled(nn.Linear):
    """Attributes:
    gain: 1 x 1, starts at 0.
    """

    def __init__(self, width: int, experts: int) -> None:
        super().__init__(width, experts, bias=False)
        self.gain = nn.Parameter(torch.zeros(1, 1))


ROUTER = Rescaled
