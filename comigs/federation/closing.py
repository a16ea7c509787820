"""When a round of simulated time closes: enough updates have arrived, or it is the deadline."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Closing:
    """How a round ended: its simulated length, and whose updates were in time."""

    seconds: float
    in_time: list[int]
    late: list[int]


def close_round(
    arrivals: Mapping[int, float],
    losses: Mapping[int, float],
    wanted: int,
    deadline: float | None,
    under_way: Collection[float] = (),
) -> Closing:
    """Close a round as soon as `wanted` updates are there, nobody is left, or at the deadline.

    Where nobody begins, since all are still at work, it closes with the next arrival.

    Args:
        arrivals: by client, seconds from the start of the round to its update.
        losses: by client, seconds until a lost device is known to be lost.
        wanted: updates that the server waits for.
        deadline: seconds; None to wait for the slowest.
        under_way: seconds until late updates of earlier rounds are there (`server.late` keep).
    """
    order = sorted(arrivals, key=lambda client: (arrivals[client], client))
    limit = math.inf if deadline is None else deadline
    in_time = [client for client in order[:wanted] if arrivals[client] <= limit]
    if len(in_time) == wanted:
        seconds = arrivals[in_time[-1]]
    else:
        known = [*arrivals.values(), *losses.values()]
        seconds = min(limit, max(known) if known else min(under_way, default=0.0))
    late = [client for client in order if client not in in_time]
    return Closing(seconds, sorted(in_time), late)


def late_after(
    due: Mapping[int, float], arrivals: Mapping[int, float], closing: Closing
) -> dict[int, float]:
    """By client, seconds from the end of a round until its late update is there (`server.late`).

    Args:
        due: the same from the start of the round, of late updates of earlier rounds.
        arrivals: of the round's own updates.
    """
    late = dict(due) | {i: arrivals[i] for i in closing.late}
    left = {i: seconds - closing.seconds for i, seconds in late.items()}
    return {i: seconds for i, seconds in left.items() if seconds > 0 or i in closing.late}


def close_overlapping(due: Mapping[int, float], lost: Collection[int], buffer: int) -> Closing:
    """Close a round at its K-th arrival; with fewer once nobody is at work any more.

    Args:
        due: by client at work, seconds until its update is there, or its loss is known.
        lost: which of them are lost.
        buffer: K.

    Returns:
        `late` are those that are still under way.
    """
    arrivals = {i: seconds for i, seconds in due.items() if i not in lost}
    losses = {i: seconds for i, seconds in due.items() if i in lost}
    return close_round(arrivals, losses, buffer, None)


def still_at_work(
    due: Mapping[int, float], lost: Collection[int], closing: Closing
) -> dict[int, float]:
    """What is left of `due` after a round: of updates not there, and of losses not yet known."""
    return {
        i: seconds - closing.seconds
        for i, seconds in sorted(due.items())
        if (seconds > closing.seconds if i in lost else i in closing.late)
    }
