"""What is written is JSON for every reader, and comes back as it was; old files are still read."""

import json
import math
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comigs.store.eventjson import to_object
from comigs.store.events import Evaluated
from comigs.store.metrics import damaged_lines, events_of, gain
from comigs.store.strict import from_json, to_json
from comigs_server.journal import Journal


def strictly(text):
    def refuse(token):
        raise AssertionError(f"{token} is no JSON")

    return json.loads(text, parse_constant=refuse)


keys = st.sampled_from(["loss", "valid_ppl", "name", "NaN", "Infinity"])
values = st.floats() | st.integers() | st.sampled_from(["NaN", "Infinity", "", None, True])


@given(st.dictionaries(keys, values | st.dictionaries(keys, values), max_size=4))
def test_events_come_back_as_they_were(event):
    text = to_json(event)
    strictly(text)
    assert json.dumps(from_json(text), sort_keys=True) == json.dumps(event, sort_keys=True)


def test_a_number_that_is_none_is_null_and_told_beside_it():
    event = {"event": "final", "name": "NaN", "after": math.inf, "before": 2.5}
    assert strictly(to_json(event)) == {
        "event": "final",
        "name": "NaN",
        "after": None,
        "before": 2.5,
        "nonfinite": {"after": "Infinity"},
    }


def test_finite_events_are_written_as_before():
    event = {"event": "round", "round": 1, "loss": 0.1, "valid_ppl": None, "clients": ["a", "ü"]}
    assert to_json(event) == json.dumps(event)
    assert to_json([event], indent=1) == json.dumps([event], indent=1)


def a_test(**numbers):
    row = {"pretrained": 9.5, "before": 3.5, "after": 2.5, "seconds": 1.0, "valid": 2.0}
    counts = dict.fromkeys(("client", "bytes_up", "bytes_down", "test_tokens"), 1)
    row |= counts | {"trainable": 1, "communicated": 1, "name": "NaN"} | numbers
    return Evaluated(**{f.name: row[f.name] for f in fields(Evaluated) if f.name in row})


def test_a_journal_is_strict_and_reads_its_infinities_back(tmp_path):
    event = a_test(pretrained=math.inf, before=-math.inf)
    Journal(tmp_path).write(event)
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        assert strictly(line)["pretrained"] is None
    assert events_of(tmp_path) == [event]
    assert damaged_lines(tmp_path) == []


def test_lines_of_before_are_still_read(tmp_path):
    old = json.dumps(to_object(a_test(pretrained=math.inf, after=math.nan)))
    assert "Infinity" in old and "NaN," in old
    (tmp_path / "metrics.jsonl").write_text(old + "\n")
    [event] = events_of(tmp_path)
    assert event.pretrained == math.inf and math.isnan(event.after)
    assert damaged_lines(tmp_path) == []


@pytest.mark.parametrize(
    ("pretrained", "after", "times"),
    [
        (10.0, 5.0, 2.0),
        (10.0, math.inf, 0.0),
        (math.inf, math.inf, None),
        (math.inf, 5.0, None),
        (math.nan, 5.0, None),
        (10.0, math.nan, None),
        (10.0, None, None),
    ],
)
def test_a_gain_is_a_number_or_none(pretrained, after, times):
    assert gain({"pretrained": pretrained, "after": after}) == times
