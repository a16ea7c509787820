"""Who is at work in which round where rounds overlap (`server.mode` buffered), before it is run."""

from collections.abc import Sequence

from comigs.costs.trip import expected_trip, seconds_until_lost
from comigs.federation.closing import close_overlapping, still_at_work
from comigs.federation.run import Run
from comigs.federation.selection import drops_out, participants


class Overlap:
    """Follows a run's rounds in simulated time.

    Args:
        ups: by client, bytes that it sends.
    """

    def __init__(self, run: Run, ups: Sequence[int]) -> None:
        self._run, self._ups = run, ups
        self._done = [0] * len(ups)
        self._due: dict[int, float] = {}  # seconds, of who is at work
        self._lost: set[int] = set()  # who of them is lost

    def round(self, number: int, downs: Sequence[int]) -> tuple[set[int], set[int]]:
        """Who begins in the next round and is not lost on the way, and whose updates arrive in it.

        Args:
            downs: by client, bytes that it would fetch.
        """
        run, due, lost = self._run, dict(self._due), set(self._lost)
        chosen = participants(run, number, range(len(self._ups)), busy=due)
        for i in chosen:
            client, share = run.client(i), drops_out(run, i, number)
            if share is None:
                due[i] = expected_trip(client, downs[i], self._ups[i], self._done[i]).seconds
                self._done[i] += 1
            else:
                due[i] = seconds_until_lost(client, downs[i], share)[0]
                lost.add(i)
        closing = close_overlapping(due, lost, run.config.server.buffer or 1)
        self._due = still_at_work(due, lost, closing)
        self._lost = lost & set(self._due)
        return set(chosen) - lost, set(closing.in_time)
