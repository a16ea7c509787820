"""APFL: each client predicts with a learnt mixture of a global and a local model (2003.13461).

v_bar_i = alpha_i v_i + (1 - alpha_i) w. Local steps of two kinds take turns (algorithm 1):

    w       <- w - eta grad f_i(w)                          averaged over clients, as in FedAvg

    v_i     <- v_i - eta grad_v f_i(v_bar_i)                alpha_i times the gradient at v_bar_i
    alpha_i <- clip(alpha_i - rate <v_i - w, grad f_i(v_bar_i)>, 0, 1)

In the paper every step is of both kinds; here every method makes equally many gradient steps. The
paper's authors move alpha at the first step of a round, where rounds are epochs; here it moves in
every step of v_i, since a round has few. The tensors step by the run's optimiser. Alpha, a single
number, steps by the paper's 0.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from comigs.methods.base import (
    ALPHA,
    GLOBAL,
    LOCAL,
    Method,
    Twin,
    all_generalists,
    everything,
    mixture,
    same_experts,
)

if TYPE_CHECKING:
    from comigs.methods.arrival import Arrival
    from comigs.methods.base import Tensors

START = 0.5
RATE = 0.1


def mix(alpha: float, own: Tensors, shared: Tensors, gradient: Tensors) -> float:
    """The next alpha: a step along -<v - w, grad f(v_bar)>, clipped to [0, 1]."""
    slope = sum(float(((own[n] - shared[n]) * g).sum()) for n, g in sorted(gradient.items()))
    return min(1.0, max(0.0, alpha - RATE * slope))


def receive(arrival: Arrival) -> dict[str, float]:
    """The mean replaces the global model, also within the mixture."""
    from comigs.mixture.adapters import adapter_tensors, load_adapter_tensors

    model, tensors = arrival.model, arrival.tensors
    own = {n: tensors.get(f"{LOCAL}{n}", t) for n, t in adapter_tensors(model).items()}
    tensors.update({f"{LOCAL}{name}": tensor for name, tensor in own.items()})
    tensors.update({f"{GLOBAL}{name}": tensor for name, tensor in arrival.shared.items()})
    alpha = arrival.kept.get(ALPHA, START)
    load_adapter_tensors(model, mixture(alpha, own, arrival.shared))
    return {}


METHOD = Method(
    name="apfl",
    paper="arXiv 2003.13461",
    summary="every device mixes the averaged model with its own by a number that it learns",
    shares=everything,
    experts=all_generalists,
    router="joint",
    twin=Twin(START, mix),
    receive=receive,
    accepts=same_experts,
)
