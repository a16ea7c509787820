"""Epsilon of a run with `privacy.mechanism: client`, by Google's RDP accountant.

Two federations are neighbours when one client's text is replaced by any other. The sum of the
clipped updates then changes by at most 2 clip, so that its noise of std noise * clip counts as a
Gaussian of multiplier noise / 2. Rounds draw their clients without replacement; the gain of that
is a bound (arXiv 1808.00087, theorem 27) that can be worse than none: the lower of the two counts.

Who takes part and how many answer is taken as known to depend on no text. Amplification needs that
an attacker does not know who was drawn: in a real deployment the seed is a secret.
"""

import math
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

from comigs.config import RunConfig
from comigs.errors import BadInput
from comigs.selection import is_on, participants

Draw = tuple[int, int]  # clients that could be drawn, clients that were


def epsilon(config: RunConfig, rounds: int, ids: Sequence[int]) -> float | None:
    """Epsilon at `privacy.delta` after some rounds; None without noise, where it is infinite.

    Args:
        rounds: how many are done.
        ids: of every client.
    """
    draws: Counter[Draw] = Counter()
    for number in range(1, rounds + 1):
        there = sum(is_on(config, i, number) for i in ids)
        draws[there, len(participants(config, number, ids))] += 1
    drawn = tuple(sorted(draws.items()))
    value = _epsilon(config.privacy.noise / 2, config.privacy.delta, drawn)
    return value if math.isfinite(value) else None


@lru_cache(maxsize=64)
def _epsilon(multiplier: float, delta: float, draws: tuple[tuple[Draw, int], ...]) -> float:
    import dp_accounting as dp

    if multiplier == 0:
        return math.inf
    event = dp.GaussianDpEvent(multiplier)
    values = []
    for sampled in (False, True):
        accountant = dp.rdp.RdpAccountant(neighboring_relation=dp.NeighboringRelation.REPLACE_ONE)
        for (there, drawn), count in draws:
            few = sampled and drawn < there
            one = dp.SampledWithoutReplacementDpEvent(there, drawn, event) if few else event
            if drawn:
                accountant.compose(one, count)
        values.append(float(accountant.get_epsilon(delta)))
    return min(values)


def check_accountant() -> None:
    """Refuse to promise an epsilon that cannot be computed.

    Raises:
        BadInput: when dp-accounting is not installed.
    """
    try:
        import dp_accounting  # noqa: F401
    except ImportError:
        raise BadInput(
            "privacy.mechanism is 'client', which needs dp-accounting: "
            "pip install 'comigs[privacy]'"
        ) from None
