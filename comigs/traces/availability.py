"""Who is there at a moment of simulated time, until when, and when enough will be."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from comigs.errors import BadInput
from comigs.traces.windows import Traces

Ids = npt.NDArray[np.int64]


class Availability:
    """Client `i` lives by the trace of device `i`; where there are fewer, they begin again.

    All that asks about many clients at once is as long as there are windows, without a loop.
    """

    def __init__(self, traces: Traces) -> None:
        self._period, self._count = traces.period, len(traces.devices)
        devices = enumerate(traces.devices.values())
        flat = [(n, *window) for n, windows in devices for window in windows]
        self._owner, self._start, self._end = np.array(flat, dtype=np.int64).T.copy()

    def there(self, time: float, ids: Sequence[int] | Ids) -> Ids:
        """Those of `ids` that are there at `time`, in their order."""
        at = time % self._period
        on = np.zeros(self._count, dtype=bool)
        on[self._owner[(self._start <= at) & (at < self._end)]] = True
        given = np.asarray(ids, dtype=np.int64)
        found: Ids = given[on[given % self._count]]
        return found

    def stays(self, client: int, time: float) -> float:
        """Seconds until a client that is there at `time` is not any more; inf if it always is."""
        device, at = client % self._count, time % self._period
        first, last = np.searchsorted(self._owner, [device, device + 1])
        starts, ends = self._start[first:last], self._end[first:last]
        end = int(ends[np.searchsorted(starts, at, side="right") - 1])
        if end < self._period or starts[0] > 0:
            return end - at
        if len(starts) == 1:
            return math.inf
        return end + int(ends[0]) - at  # it goes on in the next period

    def opens(self, time: float, ids: Sequence[int], count: int) -> float:
        """The first moment from `time` on at which `count` of `ids` are there.

        Raises:
            BadInput: there are never so many.
        """
        if len(self.there(time, ids)) >= count:
            return time
        lives = np.bincount(np.asarray(ids) % self._count, minlength=self._count)
        weight = lives[self._owner]
        moments, which = np.unique([self._start, self._end], return_inverse=True)
        change = np.bincount(which.ravel(), weights=np.concatenate([weight, -weight]))
        enough = moments[(change.cumsum() >= count) & (moments < self._period)]
        if not enough.size:
            raise BadInput(
                f"devices.traces: there are never {count} of the {len(ids)} clients there at once; "
                "lower server.min_clients, or give more devices"
            )
        whole = math.floor(time / self._period) * self._period
        later = enough[enough > time - whole]
        return float(whole + (later[0] if later.size else self._period + enough[0]))
