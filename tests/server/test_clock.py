"""Simulated time: how a round closes, who is there, who is lost."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comigs.config.load import load_config
from comigs.federation.closing import close_round, late_after
from comigs.federation.conditions import devices_in
from comigs.federation.run import resolve
from comigs.federation.selection import participants, those_there
from comigs_server.timing.clock import lost_devices

DEVICES = {
    "devices": {
        "define": {
            "flaky": {"like": "laptop", "dropout": 0.3},
            "nightly": {"like": "laptop", "trace": "100"},
        }
    }
}


def run_of(profiles, **more):
    tree = {"devices": DEVICES["devices"] | {"profiles": profiles}, "clients": len(profiles)}
    return resolve(load_config(tree | more))


def lost_among(run, number, ids, down=0, begin=0.0, wait=0.0):
    devices = devices_in(run, number, ids)
    return lost_devices(run, number, devices, dict.fromkeys(ids, down), begin, wait)


def test_without_a_deadline_the_round_waits_for_the_slowest():
    closing = close_round({0: 3.0, 1: 9.0, 2: 5.0}, {}, 3, None)
    assert (closing.seconds, closing.in_time, closing.late) == (9.0, [0, 1, 2], [])


def test_over_selection_closes_with_the_first_updates():
    closing = close_round({0: 3.0, 1: 9.0, 2: 5.0}, {}, 2, None)
    assert (closing.seconds, closing.in_time, closing.late) == (5.0, [0, 2], [1])


def test_the_deadline_shuts_late_updates_out():
    closing = close_round({0: 3.0, 1: 9.0}, {}, 2, 4.0)
    assert (closing.seconds, closing.in_time, closing.late) == (4.0, [0], [1])


def test_a_lost_device_is_waited_for_until_it_is_known_to_be_lost():
    assert close_round({0: 3.0}, {1: 7.0}, 2, None).seconds == 7.0
    assert close_round({0: 3.0}, {1: 7.0}, 2, 5.0).seconds == 5.0
    assert close_round({0: 3.0}, {1: 1.0}, 2, 5.0).seconds == 3.0


def test_with_nobody_to_ask_a_round_closes_with_the_next_late_update():
    assert close_round({}, {}, 2, None, [9.0, 4.0]).seconds == 4.0
    assert close_round({}, {}, 2, 3.0, [9.0, 4.0]).seconds == 3.0
    assert close_round({0: 2.0}, {}, 2, None, [9.0]).seconds == 2.0
    assert close_round({}, {1: 5.0}, 2, None, [9.0]).seconds == 5.0


def test_what_is_late_is_under_way_until_its_time():
    arrivals = {0: 3.0, 1: 9.0, 2: 4.0}
    closing = close_round(arrivals, {}, 2, None)
    assert late_after({5: 10.0, 6: 4.0, 7: 1.5}, arrivals, closing) == {1: 5.0, 5: 6.0}


seconds = st.floats(0, 100)


@given(
    st.dictionaries(st.integers(0, 9), seconds),
    st.dictionaries(st.integers(10, 15), seconds),
    st.integers(1, 12),
    st.none() | st.floats(1, 80),
)
def test_every_update_is_in_time_or_late_and_none_in_time_came_after_the_end(
    arrivals, losses, wanted, deadline
):
    closing = close_round(arrivals, losses, wanted, deadline)
    assert sorted(closing.in_time + closing.late) == sorted(arrivals)
    assert len(closing.in_time) <= wanted
    assert all(arrivals[client] <= closing.seconds for client in closing.in_time)
    assert deadline is None or closing.seconds <= deadline
    slowest = max((arrivals[c] for c in closing.in_time), default=0)
    assert all(arrivals[c] >= slowest for c in closing.late)


def test_availability_and_losses_are_the_same_for_every_method():
    def seen(method):
        flaky = run_of(["flaky"] * 12 + ["nightly"] * 12, method=method, clients=None)
        there = [participants(flaky, number, range(24)) for number in range(1, 9)]
        lost = [set(lost_among(flaky, n, ids, down=9)) for n, ids in enumerate(there, 1)]
        return there, lost

    there, lost = seen("comigs")
    assert (there, lost) == seen("local")
    assert any(lost) and any(len(ids) < 24 for ids in there)


def test_a_trace_begins_at_a_place_of_its_own_and_repeats():
    nightly = run_of(["nightly"] * 30, clients=None)
    there = [set(those_there(nightly, number, range(30))) for number in range(1, 7)]
    rounds = [[c in ids for ids in there] for c in range(30)]
    assert all(on[:3] == on[3:] and sum(on) == 2 for on in rounds)
    assert len({tuple(on) for on in rounds}) == 3


def test_devices_are_lost_as_often_as_their_profile_says():
    flaky = run_of(["flaky"] * 200, clients=None)
    lost = lost_among(flaky, 1, range(200))
    share = len(lost) / 200
    assert share == pytest.approx(flaky.profile(0).dropout, abs=0.1)
    for loss in lost.values():
        assert loss.seconds > 0 and loss.joules >= 0


def test_over_selection_asks_more_clients():
    some = run_of(["laptop"] * 20, participation=0.5, clients=None)
    server = replace(some.config.server, over_selection=0.3)
    more = resolve(replace(some.config, server=server))
    assert len(participants(some, 1, range(20))) == 10
    assert len(participants(more, 1, range(20))) == 13
