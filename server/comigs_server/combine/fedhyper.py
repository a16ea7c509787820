"""FedHyper (arXiv 2310.03156): the server, or its clients, step further while updates agree."""

from collections.abc import Iterable

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray

LEAST, MOST = -0.8, 4.0  # of s: the server's rate is from 0.2 to 5
Arrays = dict[str, NDArray[np.float32]]


class FedHyper(FedAvg):
    """w <- w + (1 + s_t) D_t, with D_t what the clients' mean is beyond w.

    s_t = clip(s_(t-1) + cos(D_t, D_(t-1))) begins at 0, so that round 1 is FedAvg's. The paper has
    the inner product itself; its cosine does not depend on how long updates of a LoRA are.
    """

    def __init__(self, **settings: object) -> None:
        super().__init__(**settings)  # type: ignore[arg-type]
        self.current: Arrays = {}
        self.change: Arrays = {}
        self.step: list[NDArray[np.float64]] = []

    @property
    def rate(self) -> float:
        """1 + s."""
        return 1.0 + (float(self.step[0]) if self.step else 0.0)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Take down where the round begins."""
        self.current = _numbers(arrays)
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        mean, metrics = super().aggregate_train(server_round, replies)
        if mean is None:
            return None, metrics
        change = {name: new - self.current[name] for name, new in _numbers(mean).items()}
        s = min(max(self.rate - 1 + cosine(change, self.change), LEAST), MOST)
        self.change, self.step = change, [np.array(s)]
        return self.moved(mean), metrics

    def moved(self, mean: ArrayRecord) -> ArrayRecord:
        """The server's next tensors."""
        rate = np.float32(self.rate)
        made = {name: Array(self.current[name] + rate * d) for name, d in self.change.items()}
        return ArrayRecord(made)


class FedHyperSL(FedHyper):
    """w <- w + D_t as FedAvg, and clients of the next round train at 1 + s_t times their rate.

    The paper bounds the rate itself, to what suits SGD; here it is 0.2 to 5 times its schedule.
    """

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        config["lr-factor"] = self.rate
        return super().configure_train(server_round, arrays, config, grid)

    def moved(self, mean: ArrayRecord) -> ArrayRecord:
        return mean


def cosine(one: Arrays, other: Arrays) -> float:
    """Of all elements together, in float64; 0 where either is 0 or there is no other."""
    if not other:
        return 0.0
    product, *squares = (
        sum(float(np.sum(a[n].astype(np.float64) * b[n])) for n in sorted(one))
        for a, b in ((one, other), (one, one), (other, other))
    )
    lengths = float(np.sqrt(squares[0] * squares[1]))
    return product / lengths if lengths else 0.0


def _numbers(arrays: ArrayRecord) -> Arrays:
    return {name: array.numpy() for name, array in arrays.items()}
