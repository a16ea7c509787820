"""A global model that a client trains in turn with its own, in the same parameters (`Twin`).

The model holds alpha v + (1 - alpha) w, with which the client predicts. In a step of w the
parameters hold w; in a step of v they hold the mixture, where its gradient is taken, and then v,
which moves by the gradient with respect to v: alpha times that at the mixture.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn

from comigs.methods.base import ALPHA, GLOBAL, LOCAL, Twin, mixture


class TwinModel:
    """w, v and alpha of one client while it trains."""

    def __init__(
        self,
        twin: Twin,
        parameters: Mapping[str, nn.Parameter],
        kept: dict[str, float],
        tensors: dict[str, Tensor],
    ) -> None:
        """Begin a round.

        Args:
            parameters: of the model, as the method has received it; where nothing is kept yet, w
                and v both begin from them.
            kept, tensors: what the client keeps; `close` puts the values at the end there.
        """
        self.twin, self.parameters, self.kept, self.tensors = twin, parameters, kept, tensors
        self.alpha = kept.get(ALPHA, twin.alpha)
        self.shared = self._kept(GLOBAL)
        self.own = self._kept(LOCAL) if twin.mix else {}

    def _kept(self, which: str) -> dict[str, Tensor]:
        return {
            name: self.tensors.get(f"{which}{name}", p.detach()).to(p.device, copy=True)
            for name, p in self.parameters.items()
        }

    @contextmanager
    def training(self, of_global: bool) -> Iterator[None]:
        """Within the context a step trains w, or v."""
        if of_global:
            before = self._hold(self.shared)
            try:
                yield
            finally:
                self.shared = self._hold(before)
        elif self.twin.mix:
            self._hold(self._mixture())
            yield
            self.own = {name: p.data for name, p in self.parameters.items()}
        else:
            yield

    def from_mixture(self, trained: Mapping[str, nn.Parameter]) -> None:
        """Between backward and the step of v: move alpha, and from the mixture to v.

        Args:
            trained: what the step trains; the others' gradients are of some earlier step.
        """
        assert self.twin.mix
        learnt = {n: p.grad for n, p in trained.items() if p.grad is not None}
        factor = self.alpha
        self.alpha = self.twin.mix(factor, self.own, self.shared, learnt)
        for gradient in learnt.values():
            gradient.mul_(factor)
        self._hold(self.own)

    def close(self) -> None:
        """Leave in the model what the client predicts with, and the rest where it is kept."""
        self._keep(GLOBAL, self.shared)
        if self.twin.mix:
            self._keep(LOCAL, self.own)
            self.kept[ALPHA] = self.alpha
            self._hold(self._mixture())

    def _keep(self, which: str, values: Mapping[str, Tensor]) -> None:
        self.tensors |= {f"{which}{n}": t.to("cpu", copy=True) for n, t in values.items()}

    def _mixture(self) -> dict[str, Tensor]:
        return mixture(self.alpha, self.own, self.shared)

    def _hold(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Have the parameters hold `values`; return what they held."""
        before = {name: p.data for name, p in self.parameters.items()}
        for name, parameter in self.parameters.items():
            parameter.data = values[name]
        return before
