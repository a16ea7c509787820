"""Epsilon of a run with `privacy.mechanism: client`, by Google's RDP accountant.

Two federations are neighbours when one client's text is replaced by any other. The sum of the
clipped updates then changes by at most 2 clip, so that its noise of std noise * clip counts as a
Gaussian of multiplier noise / 2.

What rounds gain by drawing few of many clients is not counted. It is proved (arXiv 1808.00087) for
clients that remember nothing and for onlookers who do not know who was drawn. Here a client brings
moments, routers and specialists from the rounds it was drawn for, which later updates may show, and
it knows of itself that it was drawn. So every round costs a client as much as if it took part.

Who takes part and how many answer is taken as known to depend on no text.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

from comigs.config.privacy import PrivacyConfig
from comigs.errors import BadInput

Draw = tuple[int, int]  # clients that could be drawn in a round, clients that were
EVERYBODY: Draw = (1, 1)  # of a round without a record


def epsilon(privacy: PrivacyConfig, draws: Sequence[Draw]) -> float | None:
    """Epsilon at `privacy.delta` after some rounds; None without noise, where it is infinite.

    Args:
        draws: of each round so far.
    """
    rounds = sum(drawn > 0 for _, drawn in draws)
    value = _epsilon(privacy.noise / 2, privacy.delta, rounds)
    return value if math.isfinite(value) else None


@lru_cache(maxsize=64)
def _epsilon(multiplier: float, delta: float, rounds: int) -> float:
    import dp_accounting as dp

    if multiplier == 0:
        return math.inf
    accountant = dp.rdp.RdpAccountant(neighboring_relation=dp.NeighboringRelation.REPLACE_ONE)
    if rounds:
        accountant.compose(dp.GaussianDpEvent(multiplier), rounds)
    return float(accountant.get_epsilon(delta))


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
