"""Epsilon of a run with `privacy.mechanism: client`, by Google's RDP accountant.

Two federations are neighbours when one client's text is replaced by any other. The sum of the
clipped updates then changes by at most 2 clip, so that its noise of std noise * clip counts as a
Gaussian of multiplier noise / 2. Rounds draw their clients without replacement; the gain of that
is a bound (arXiv 1808.00087, theorem 27) that can be worse than none: the lower of the two counts.
It is proved for clients that keep nothing from round to round; these keep moments and specialists.

Who takes part and how many answer is taken as known to depend on no text. Amplification needs that
an attacker does not know who was drawn: the draw comes from the server's secret. What is counted is
what was recorded when it was drawn, since clients come and go.
"""

import math
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

from comigs.config.privacy import PrivacyConfig
from comigs.errors import BadInput

Draw = tuple[int, int]  # clients that could be drawn in a round, clients that were
EVERYBODY: Draw = (1, 1)  # no gain from drawing: the most that a round can cost


def epsilon(privacy: PrivacyConfig, draws: Sequence[Draw]) -> float | None:
    """Epsilon at `privacy.delta` after some rounds; None without noise, where it is infinite.

    Args:
        draws: of each round so far.
    """
    drawn = tuple(sorted(Counter(draws).items()))
    value = _epsilon(privacy.noise / 2, privacy.delta, drawn)
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
