"""Tables on every terminal: columns are left out and named, numbers are whole."""

import io
import math
import re

import pytest
from rich.console import Console

from comigs.cli import deviceshow, plan
from comigs.config.profiles import library
from comigs.track.progress import final_table

pytest_plugins = ("tests.fixtures",)
ROW = {
    "name": "de",
    "pretrained": 1534.5,
    "before": 253.4,
    "after": 121.2,
    "bytes_up": 786432,
    "bytes_down": 1e9,
    "seconds": 3675.4,
}
LONG = "a client whose name is longer than any terminal that anybody has ever had is wide"
ROWS = [ROW, ROW | {"name": LONG}, ROW | {"name": "odd", "pretrained": math.inf, "after": math.inf}]


def drawn(rows, width):
    console = Console(width=width, file=io.StringIO())
    console.print(final_table(rows, console))
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [24, 30, 40, 50, 60, 80, 120, 200])
def test_numbers_are_whole_at_every_width(width):
    header, first, *_ = drawn(ROWS, width)
    whole = {
        "pretrained": "1534.5", "before": "253.4", "after": "121.2", "gain": "12.7x",
        "up": "0.79 MB", "down": "1000.00 MB", "seconds": "3675",
    }  # fmt: skip
    columns = header.split()[1:]
    assert columns == [name for name in whole if name in columns]
    assert "after" in columns
    assert re.split(r" {2,}", first.strip())[1:] == [whole[name] for name in columns]
    assert all(len(line) <= width for line in drawn(ROWS, width))


def test_what_is_left_out_is_named():
    lines = " ".join(drawn(ROWS, 40))
    assert "pretrained  before  after" in lines
    assert "on a wider terminal also: gain, up, down, seconds" in re.sub(r" +", " ", lines)
    assert "on a wider" not in " ".join(drawn(ROWS, 200))
    assert LONG in " ".join(drawn(ROWS, 200))


@pytest.mark.parametrize("after", [math.inf, math.nan, 1e300])
def test_no_gain_is_a_word_with_an_x(after):
    text = " ".join(drawn([ROW | {"after": after}, ROW | {"pretrained": after}], 120))
    assert "nanx" not in text and "infx" not in text
    assert len(text) < 600


@pytest.mark.parametrize("width", [40, 50, 80])
def test_device_profiles_are_whole_too(width, monkeypatch):
    console = Console(width=width, file=io.StringIO())
    monkeypatch.setattr(deviceshow, "Console", lambda: console)
    deviceshow.show_profiles(library())
    assert "…" not in console.file.getvalue()
    assert f"{library()['laptop'].flops['float32'] / 1e9:,.0f}" in console.file.getvalue()


@pytest.fixture(scope="module")
def planned(tree, quick_plans):
    from comigs.app import run as api

    return api.plan(tree, ["rounds=1", "devices.profiles={laptop: 3}"])


@pytest.mark.parametrize("width", [40, 60])
def test_a_plan_is_whole_too(width, planned, monkeypatch):
    console = Console(width=width, file=io.StringIO())
    monkeypatch.setattr(plan, "Console", lambda: console)
    plan.show_plan(*planned)
    text = console.file.getvalue()
    assert "…" not in text
    assert re.search(r"on a wider terminal\s+also:", text)
