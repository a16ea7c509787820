"""Who is at work in which round where rounds overlap, before it is run.

They do with `server.mode` buffered, and with `server.late` keep.
"""

from collections.abc import Sequence

from comigs.costs.trip import expected_trip, seconds_until_lost
from comigs.federation.closing import close_overlapping, close_round, late_after, still_at_work
from comigs.federation.run import Run
from comigs.federation.selection import drops_out, participants, wanted


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
        run, server = self._run, self._run.config.server
        everybody = range(len(self._ups))
        arrivals: dict[int, float] = {}
        losses: dict[int, float] = {}
        for i in participants(run, number, everybody, busy=self._due):
            client, share = run.client(i), drops_out(run, i, number)
            if share is None:
                trip = expected_trip(client, downs[i], self._ups[i], self._done[i])
                arrivals[i] = trip.seconds
                self._done[i] += 1
            else:
                losses[i] = seconds_until_lost(client, downs[i], share)[0]
        if server.mode == "buffered":
            due, lost = self._due | arrivals | losses, self._lost | set(losses)
            closing = close_overlapping(due, lost, server.buffer or 1)
            self._due = still_at_work(due, lost, closing)
            self._lost = lost & set(self._due)
            return set(arrivals), set(closing.in_time)
        before, count = self._due, wanted(run, len(everybody))
        closing = close_round(arrivals, losses, count, server.deadline, before.values())
        self._due = late_after(before, arrivals, closing)
        return set(arrivals), (set(before) - set(self._due)) | set(closing.in_time)
