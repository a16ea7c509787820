"""Who takes part in which round, and what simulated time it is then, before a run is run."""

from collections.abc import Callable, Sequence

from comigs.costs.trip import expected_trip, lost_in
from comigs.federation.closing import close_overlapping, close_round, late_after, still_at_work
from comigs.federation.conditions import devices_in
from comigs.federation.run import Run
from comigs.federation.selection import beginning, participants, wanted


class Ahead:
    """Follows a run's rounds in simulated time, as far as `expected_trip` knows it.

    Args:
        count: of clients.
        up: bytes that a client sends in a round.

    Attributes:
        clock: simulated seconds of the rounds so far.
    """

    def __init__(self, run: Run, count: int, up: Callable[[int, int], int]) -> None:
        self._run, self._up = run, up
        self._done = [0] * count
        self._due: dict[int, float] = {}  # seconds, of who is at work
        self._lost: set[int] = set()  # who of them is lost
        self.clock = 0.0

    def round(self, number: int, downs: Sequence[int]) -> tuple[set[int], set[int]]:
        """Who begins in the next round and is not lost on the way, and whose updates count in it.

        Args:
            downs: by client, bytes that it would fetch.
        """
        run, ids, due, lost = self._run, range(len(self._done)), dict(self._due), set(self._lost)
        begin = beginning(run, ids, self.clock, due)
        chosen = participants(run, number, ids, busy=due, begin=begin)
        wait, server = begin - self.clock, run.config.server
        if run.devices is None:
            if server.mode == "sync":
                return set(chosen), set(chosen)
            due |= dict.fromkeys(chosen, 1.0)  # real devices: as if all were equally fast
        for i, device in devices_in(run, number, chosen).items():
            client = run.client(i)
            if loss := lost_in(client, device, number, downs[i], begin):
                due[i] = wait + loss.seconds
                lost.add(i)
            else:
                up, done = self._up(i, number), self._done[i]
                one = expected_trip(client, device, number, downs[i], up, done)
                due[i] = wait + one.seconds
                self._done[i] += 1
        staying = set(chosen) - lost
        if server.mode == "buffered":
            closing = close_overlapping(due, lost, server.buffer or 1)
            self._due = still_at_work(due, lost, closing)
            self._lost = lost & set(self._due)
            arrived = set(closing.in_time)
        else:
            arrivals = {i: due[i] for i in chosen if i in staying}
            losses = {i: due[i] for i in chosen if i in lost}
            limit = None if server.deadline is None else wait + server.deadline
            before, count = self._due, wanted(run, len(ids))
            closing, arrived = close_round(arrivals, losses, count, limit, before.values()), staying
            if server.late == "keep":
                self._due = late_after(before, arrivals, closing)
                arrived = (set(before) - set(self._due)) | set(closing.in_time)
        self.clock += closing.seconds
        return staying, arrived
