"""Who is there and who is drawn, at once for all clients: as one by one, whatever their number."""

import random

import pytest

from comigs.config.load import load_config
from comigs.federation.run import resolve
from comigs.federation.selection import participants, those_there
from comigs.seeds import derive

TRACES = {"a": "1", "b": "10", "c": "0110"}
DEFINE = {name: {"like": "laptop", "trace": trace} for name, trace in TRACES.items()}


def run_of(profiles, **more):
    tree = {"clients": len(profiles), "devices": {"profiles": profiles, "define": DEFINE}}
    return resolve(load_config(tree | more))


def there_by_hand(run, number, ids):
    """Trace by trace: the place where a client's begins is of (seed, client)."""
    found = []
    for i in ids:
        trace = TRACES[run.devices[i]]
        begin = derive(run.config.seed, i, 0, "trace of the device")
        if trace[(number - 1 + begin) % len(trace)] == "1":
            found.append(i)
    return found


@pytest.mark.parametrize("number", [1, 2, 7])
def test_all_at_once_are_drawn_as_one_by_one(number):
    run, everybody = run_of([*"abcabccabbca"], participation=0.5), range(12)
    there = there_by_hand(run, number, everybody)
    assert 0 < len(there) < 12
    assert list(those_there(run, number, everybody)) == there
    assert list(those_there(run, number, [1, 2, 11])) == [i for i in (1, 2, 11) if i in there]
    for busy in ((), {0, 4, 5}, set(there)):
        free = [i for i in there if i not in busy]
        rng = random.Random(derive(run.config.seed, "server", number, "participants"))
        drawn = sorted(rng.sample(free, min(6, len(free))))
        assert participants(run, number, everybody, busy=busy) == drawn


def test_numbers_of_profiles_that_are_not_written_down_are_drawn_the_same(monkeypatch):
    from comigs.federation import devices

    config = load_config(None, ["clients=4", "devices.profiles={board: 1, laptop: 3}"])
    listed = devices.assign_devices(config, [1] * 4)
    monkeypatch.setattr(devices, "LISTED", 3)
    kept = devices.assign_devices(config, [1] * 4)
    assert kept == config
    assert resolve(kept).devices == listed.devices.profiles
    assert [client.profile.name for client in resolve(kept).kinds(4)] == list(
        dict.fromkeys(listed.devices.profiles)
    )
