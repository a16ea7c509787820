"""Who is there when: windows that repeat, against asking second by second."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comigs.errors import BadInput
from comigs.traces.availability import Availability
from comigs.traces.windows import Traces, joined

PERIOD = 20
NIGHT = Traces(100, {"a": [(0, 20), (90, 100)], "b": [(50, 60)], "c": [(0, 100)]})


def test_who_is_there():
    times = Availability(NIGHT)
    assert times.there(0, range(3)).tolist() == [0, 2]
    assert times.there(20, range(3)).tolist() == [2]  # a window ends before its last second
    assert times.there(150.5, range(3)).tolist() == [1, 2]  # of the second period
    assert times.there(95, [5, 3, 1]).tolist() == [5, 3]  # client 3 lives as device 0


def test_how_long_one_stays():
    times = Availability(NIGHT)
    assert times.stays(0, 5) == 15
    assert times.stays(0, 92) == 28  # over the end of the period
    assert times.stays(1, 155.5) == 4.5
    assert times.stays(2, 7) == math.inf


def test_when_enough_are_there():
    times = Availability(NIGHT)
    assert times.opens(30, range(3), 1) == 30
    assert times.opens(30.25, range(2), 1) == 50
    assert times.opens(60, range(2), 1) == 90
    assert times.opens(160, [1], 1) == 250
    assert times.opens(30, range(6), 4) == 50  # both that live as b, and as c
    with pytest.raises(BadInput, match="never 3 of the 3 clients"):
        times.opens(0, range(3), 3)


windows = st.lists(
    st.tuples(st.integers(0, PERIOD - 1), st.integers(1, PERIOD)).map(lambda w: (w[0], sum(w))),
    max_size=4,
)


@given(st.lists(windows, min_size=1, max_size=4), st.integers(0, 3 * PERIOD), st.integers(1, 3))
def test_as_second_by_second(people, time, count):
    """Windows are laid over one another and over the end, as they come."""
    there = [
        {second % PERIOD for start, end in each for second in range(start, end)} for each in people
    ]
    traces = Traces(PERIOD, {str(i): joined(each, PERIOD) for i, each in enumerate(people)})
    if not any(traces.devices.values()):
        return
    times, ids = Availability(traces), range(len(people))

    def on(moment):
        return [i for i in ids if moment % PERIOD in there[i]]

    assert times.there(time, ids).tolist() == on(time)
    for i in on(time):
        first = next((s for s in range(3 * PERIOD) if i not in on(time + s)), math.inf)
        assert times.stays(i, time) == first
    first = next((s for s in range(2 * PERIOD) if len(on(time + s)) >= count), None)
    if first is None:
        with pytest.raises(BadInput):
            times.opens(time, ids, count)
    else:
        assert times.opens(time, ids, count) == time + first
