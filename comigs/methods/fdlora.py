"""FDLoRA: a global and a local LoRA, fused by a search at the end (arXiv 2406.07925).

Local steps train the two in turn, each alone. At the end a client looks for (w1, w2) in [-1, 1]^2
with the lowest validation loss of w1 local + w2 global, plus 0.05 mean |w|, without gradients. The
attention LoRA, which only the global one has, is not part of the fusion.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from comigs.methods.base import Method, one_of_each

if TYPE_CHECKING:
    from comigs.methods.arrival import Arrival

GLOBAL, LOCAL = "generalist_0", "specialist_0"
BUDGET = 10  # evaluations of a client's validation text
Weights = tuple[float, float]


def search(loss: Callable[[Weights], float]) -> tuple[Weights, dict[Weights, float]]:
    """Return the weights (local, global) to use, and the loss of all that were tried.

    Tried are the start 0, both end points (the local and the global LoRA alone), and where a
    gradient-free search goes from there. Chosen is the best of the objective among those that are
    no worse than either end point.
    """
    from scipy.optimize import Bounds, minimize

    tried: dict[Weights, float] = {}

    def objective(point: Sequence[float]) -> float:
        weights = (float(point[0]), float(point[1]))
        if weights not in tried:
            tried[weights] = loss(weights)
        return tried[weights] + 0.05 * (abs(weights[0]) + abs(weights[1])) / 2

    ends = [(1.0, 0.0), (0.0, 1.0)]
    for end in ends:
        objective(end)
    options = {"maxfev": BUDGET - len(ends), "initial_tr_radius": 0.5}
    minimize(objective, [0.0, 0.0], method="COBYQA", bounds=Bounds(-1, 1), options=options)
    bar = min(tried[end] for end in ends)
    return min((w for w in tried if tried[w] <= bar), key=objective), tried


def finish(arrival: Arrival) -> dict[str, float]:
    """Fuse: both experts become w1 local + w2 global, matrix by matrix."""
    from comigs.evaluation.perplexity import evaluate
    from comigs.mixture.adapters import adapter_tensors, load_adapter_tensors

    tensors = adapter_tensors(arrival.model)
    local = {name: t for name, t in tensors.items() if f".{LOCAL}." in name}

    def fuse(weights: Weights) -> None:
        for name, own in local.items():
            twin = name.replace(LOCAL, GLOBAL)
            fused = weights[0] * own + weights[1] * tensors[twin]
            load_adapter_tensors(arrival.model, {name: fused, twin: fused})

    def loss(weights: Weights) -> float:
        fuse(weights)
        return math.log(evaluate(arrival.model, arrival.data.valid, arrival.config))

    chosen, tried = search(loss)
    fuse(chosen)
    return {"fused_local": chosen[0], "fused_global": chosen[1], "fusion_evaluations": len(tried)}


METHOD = Method(
    name="fdlora",
    paper="arXiv 2406.07925",
    summary="a global and a local LoRA, trained in turn, fused at the end on validation text",
    experts=lambda experts: replace(experts, routed=False),
    phases=(GLOBAL, LOCAL),
    finish=finish,
    accepts=one_of_each,
)
