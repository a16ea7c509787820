"""Secrets put together from shares of which some may be wrong."""

from collections.abc import Callable, Collection, Mapping
from itertools import combinations, islice

from flwr.common.secure_aggregation.crypto.shamir import combine_shares

from comigs.errors import ComigsError

TRIES = 1000  # sets of shares; one wrong sender of many is found in a few


def restore(
    shares: Mapping[int, bytes],
    threshold: int,
    right: Callable[[bytes], bool],
    doubted: Collection[int] = (),
) -> tuple[bytes, set[int]]:
    """The secret that enough of the shares agree on, and who sent a share that is wrong.

    Args:
        shares: of one secret, by sender.
        threshold: how many restore it.
        right: whether a secret is the one that was shared.
        doubted: senders to try last.

    Raises:
        ComigsError: when no set of shares restores it.
    """
    senders = sorted(shares, key=lambda i: (i in doubted, i))
    for chosen in islice(combinations(senders, threshold), TRIES):
        secret = _combined([shares[i] for i in chosen])
        if secret is not None and right(secret):
            others = set(senders) - set(chosen)
            known = [shares[i] for i in chosen[1:]]
            return secret, {i for i in others if _combined([*known, shares[i]]) != secret}
    raise ComigsError(f"no {threshold} of {len(shares)} shares restore a secret")


def _combined(shares: list[bytes]) -> bytes | None:
    if len({len(share) for share in shares}) > 1 or len(shares[0]) < 20:
        return None
    try:
        return combine_shares(shares)
    except Exception:  # of whatever kind: it is about what a client sent
        return None
