"""A router that knows what those of the layers before it saw (RMoE, arXiv 2408.06793, section 3).

Layer l reads x_l = P_l h_l; with r_l = GRU(x_l, r_{l-1}) and r_0 = 0 its logits are Q_l r_l. P and
Q are the layer's own, d to 32 and 32 to E; the GRU is one for all layers, part of the first router.
No part has a bias.
"""

import torch
from torch import Tensor, nn

STATE = 32


class Gru(nn.Module):
    """torch's GRU cell without biases: reset, update and new state one below another."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs = nn.Linear(STATE, 3 * STATE, bias=False)
        self.states = nn.Linear(STATE, 3 * STATE, bias=False)

    def forward(self, x: Tensor, state: Tensor) -> Tensor:
        """Map an input and the state before it, both ... x 32, to the state behind it."""
        (r, z, n), (r_state, z_state, n_state) = (
            linear(each).chunk(3, -1) for linear, each in ((self.inputs, x), (self.states, state))
        )
        kept = (z + z_state).sigmoid()
        return kept * state + (1 - kept) * (n + (r + r_state).sigmoid() * n_state).tanh()


class Recurrent(nn.Module):
    """The router of one layer."""

    def __init__(self, width: int, experts: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, STATE, bias=False)
        self.gru = Gru()
        self.out = nn.Linear(STATE, experts, bias=False)
        self._gru = (self.gru,)  # tuples, so that what is another router's is no part of this one
        self._before: tuple[Recurrent, ...] = ()
        self._state: Tensor | None = None

    def follow(self, before: "Recurrent") -> None:
        """Take the states of the router `before` in the same pass, and its GRU."""
        del self.gru
        self._gru, self._before = before._gru, (before,)

    def forget(self) -> None:
        """Let the state of the last pass go."""
        self._state = None

    def forward(self, x: Tensor) -> Tensor:
        low = self.project(x)
        before = self._before[0]._state if self._before else torch.zeros_like(low)
        self._state = self._gru[0](low, before)
        logits: Tensor = self.out(self._state)
        return logits


ROUTER = Recurrent
