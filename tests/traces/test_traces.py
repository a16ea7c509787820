"""Traces: as a file, made up, and as others publish them."""

import json

import pytest

from comigs.errors import BadInput
from comigs.traces.diurnal import diurnal
from comigs.traces.public import read_public
from comigs.traces.windows import DAY, HOUR, Traces, read_traces, share_by_hour, write_traces

FLASH = """2020-01-31 21:00:00\tscreen_unlock
2020-01-31 21:30:00\tbattery_charged_on
2020-01-31 21:30:00\t57.0%
2020-01-31 22:00:00\twifi
2020-01-31 22:00:00\tscreen_off
2020-01-31 22:00:05\tscreen_lock
2020-02-01 01:00:00\tscreen_on
2020-02-01 06:00:00\tscreen_unlock
2020-02-01 06:10:00\tscreen_lock
2020-02-01 06:20:00\t4G
2020-02-01 06:30:00\tWifi
2020-02-01 07:00:00\tbattery_charged_off
"""


def written(path, tree):
    path.write_text(json.dumps(tree))
    return path


def test_a_file_holds_what_was_written(tmp_path):
    traces = Traces(2 * DAY, {"anna's phone": [(5, 10), (20, DAY)], "never": []})
    write_traces(traces, tmp_path / "t.json")
    assert read_traces(tmp_path / "t.json") == traces


@pytest.mark.parametrize(
    "tree, words",
    [
        ([], "is not an object in JSON"),
        ({"devices": {}}, "needs a period of 1 to"),
        ({"period": 0, "devices": {"a": [[0, 1]]}}, "needs a period of 1 to"),
        ({"period": 1e12, "devices": {"a": [[0, 1]]}}, "needs a period of 1 to"),
        ({"period": 9, "devices": {"a": []}}, "no device is ever there"),
        ({"period": 9, "devices": {"a": [[0, 10]]}}, "device 'a' needs a list of [start, end]"),
        ({"period": 9, "devices": {"a": [[3, 3]]}}, "device 'a' needs a list of [start, end]"),
        ({"period": 9, "devices": {"a": [[0.5, 3]]}}, "device 'a' needs a list of [start, end]"),
        ({"period": 9, "devices": {"a": 1}}, "device 'a' needs a list of [start, end]"),
    ],
)
def test_what_is_no_trace_is_one_line(tmp_path, tree, words):
    with pytest.raises(BadInput) as caught:
        read_traces(written(tmp_path / "t.json", tree))
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_file_and_a_pickle_are_one_line(tmp_path):
    with pytest.raises(BadInput, match="cannot be read: No such file"):
        read_traces(tmp_path / "none.json")
    (tmp_path / "client_behave_trace").write_bytes(b"\x80\x04}.")
    with pytest.raises(BadInput, match="is a pickle"):
        read_public(tmp_path / "client_behave_trace")


def test_the_share_by_hour_is_the_mean_over_devices_and_days():
    half = (HOUR + HOUR // 2, 3 * HOUR)  # half of hour 1, all of hour 2, on one day of two
    shares = share_by_hour(Traces(2 * DAY, {"a": [half], "b": [(0, 2 * DAY)]}))
    assert shares[:4] == [0.5, 0.5 + 0.25 / 2, 0.75, 0.5]


def test_made_up_people_charge_at_night_wherever_they_live():
    traces = diurnal(300, 4, zones=0, seed=1)
    assert (traces.period, len(traces.devices)) == (4 * DAY, 300)
    shares = share_by_hour(traces)
    assert min(shares[h] for h in (1, 2, 3, 4)) > 0.5 > 0.1 > max(shares[11:19])
    spread = share_by_hour(diurnal(300, 4, zones=24, seed=1))
    assert max(spread) < 0.4 and min(spread) > 0.15
    assert sum(spread) == pytest.approx(sum(shares), rel=0.05)


def test_a_device_is_drawn_from_the_seed_and_its_number():
    few, many = diurnal(2, 3, 6, seed=5), diurnal(4, 3, 6, seed=5)
    assert few.devices.items() <= many.devices.items()
    assert diurnal(2, 3, 6, seed=6) != few
    with pytest.raises(BadInput, match="--zones is 25"):
        diurnal(1, 1, 25, 0)


def test_flash_is_read_as_flash_reads_it(tmp_path):
    """There while it charges, is locked and has Wi-Fi; the screen may light up."""
    path = written(tmp_path / "f.json", {"7": {"guid": "7", "model": "x", "messages": FLASH}})
    traces = read_public(path)
    assert traces.period == 2 * DAY
    day_2 = DAY + 6 * HOUR
    assert traces.devices == {
        "7": [
            (22 * HOUR + 5, day_2),
            (day_2 + 600, day_2 + 1200),
            (day_2 + 1800, DAY + 7 * HOUR),
        ]
    }


def test_fedscale_is_read_and_a_shorter_trace_goes_on(tmp_path):
    long = {"duration": 30, "active": [5, 80], "inactive": [15, 100], "finish_time": 100}
    short = {"active": [0, 30], "inactive": [10, 40], "finish_time": 40, "model": "CPH1801"}
    traces = read_public(written(tmp_path / "s.json", {"1": long, "2": short}))
    assert traces.period == 100
    assert traces.devices["1"] == [(5, 15), (80, 100)]
    assert traces.devices["2"] == [(0, 10), (30, 50), (70, 90)]


@pytest.mark.parametrize(
    "told, words",
    [
        ({}, "has neither FLASH's messages nor FedScale's active"),
        ({"messages": "yesterday\twifi"}, "begins with no time as FLASH writes it"),
        ({"messages": "2020-01-31 21:00:00\twify"}, "'wify' is none of FLASH's states"),
        ({"active": [1], "inactive": []}, "needs finish_time, and as many seconds"),
        ({"active": [1], "inactive": [0], "finish_time": 9}, "an inactive before its active"),
        ({"active": [1], "inactive": [2], "finish_time": 0}, "lasts 0 seconds"),
    ],
)
def test_what_nobody_publishes_is_one_line(tmp_path, told, words):
    with pytest.raises(BadInput, match="device 'x'") as caught:
        read_public(written(tmp_path / "t.json", {"x": told}))
    assert words in str(caught.value)
