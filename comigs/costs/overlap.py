"""Who is at work in which round where rounds overlap (`server.mode` buffered), before it is run."""

from collections.abc import Sequence
from dataclasses import dataclass

from comigs.costs.trip import expected_trip, seconds_until_lost
from comigs.federation.closing import close_round
from comigs.federation.run import Run
from comigs.federation.selection import drops_out, participants


@dataclass(frozen=True)
class Working:
    """A client at work: seconds until its update is there, or its device is known to be lost."""

    due: float
    lost: bool


class Overlap:
    """Follows a run's rounds in simulated time.

    Args:
        ups: by client, bytes that it sends.
    """

    def __init__(self, run: Run, ups: Sequence[int]) -> None:
        self._run, self._ups = run, ups
        self._done = [0] * len(ups)
        self._working: dict[int, Working] = {}

    def round(self, number: int, downs: Sequence[int]) -> tuple[set[int], set[int]]:
        """Who begins in the next round and is not lost on the way, and whose updates arrive in it.

        Args:
            downs: by client, bytes that it would fetch.
        """
        run, working = self._run, dict(self._working)
        chosen = participants(run, number, range(len(self._ups)), busy=working)
        for i in chosen:
            client, share = run.client(i), drops_out(run, i, number)
            if share is None:
                one = expected_trip(client, downs[i], self._ups[i], self._done[i])
                self._done[i] += 1
                working[i] = Working(one.seconds, lost=False)
            else:
                working[i] = Working(seconds_until_lost(client, downs[i], share)[0], lost=True)
        there = {i: one.due for i, one in working.items() if not one.lost}
        gone = {i: one.due for i, one in working.items() if one.lost}
        closing = close_round(there, gone, run.config.server.buffer or 1, None)
        self._working = {
            i: Working(one.due - closing.seconds, one.lost)
            for i, one in working.items()
            if (one.due > closing.seconds if one.lost else i in closing.late)
        }
        return {i for i in chosen if not working[i].lost}, set(closing.in_time)
