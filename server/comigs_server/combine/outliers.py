"""Updates that no honest client sends: without them one client could take the mean over."""

import math
from collections.abc import Mapping
from statistics import median

TIMES = 100.0  # a norm may be so many times the round's median
ABSURD = 1e6  # and never above this: LoRA updates have norms of some tens


def outliers(norms: Mapping[int, float], alone: bool = False) -> dict[int, str]:
    """By client id, why its update is left out.

    Args:
        norms: by client id, the L2 norm of its update.
        alone: each is judged by itself, as under differential privacy, whose noise covers what one
            client changes of its own update, not whether it throws out others'.
    """
    middle = median(norms.values()) if len(norms) > 2 and not alone else 0.0
    limit = min(TIMES * middle, ABSURD) if middle > 0 else ABSURD
    return {
        client: f"sent an update of norm {norm:.4g}; the round's median is {middle:.4g}"
        if middle
        else f"sent an update of norm {norm:.4g}, which is absurd"
        for client, norm in norms.items()
        if not norm <= limit
    }


def with_share(weights: Mapping[int, float], most: float | None) -> dict[int, float]:
    """The weights, none of them more than the share `most` of their sum.

    Where there are too few clients for that, all weigh the same.
    """
    if most is None:
        return dict(weights)
    if most * len(weights) < 1:
        return dict.fromkeys(weights, 1.0)
    capped: set[int] = set()
    while True:
        rest = math.fsum(w for i, w in weights.items() if i not in capped)
        each = most * rest / (1 - most * len(capped)) if capped else math.inf
        total = rest + (len(capped) * each if capped else 0.0)
        over = {i for i, w in weights.items() if i not in capped and w > most * total * (1 + 1e-12)}
        if not over:
            return {i: each if i in capped else w for i, w in weights.items()}
        capped |= over
