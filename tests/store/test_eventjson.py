"""Events as lines of metrics.jsonl, and back."""

import json
import math

import pytest

from comigs.store.chosen import RoundChosen
from comigs.store.eventjson import from_line, from_object, to_line, to_object
from comigs.store.events import KINDS, Ended, Failed, RoundDone, Started, Untold
from tests.samples import ROUND, TESTED, TRAINED, round_done, trained


@pytest.mark.parametrize(
    "event",
    [
        Started("comigs", ["a", "\u00fc\n"], 2, 0),
        TRAINED,
        trained(2, 1, "b", device="phone", sim_down=1.0, sim_compute=2.0, sim_up=3.0),
        ROUND,
        round_done(3, loss=None, epsilon=None, abandoned=False, late=0),
        TESTED,
        Failed("a", "gone", 0),
        RoundChosen(2, 5, 9, "perplexity", 3, 3, math.inf),
        Ended(1.0),
    ],
)
def test_an_event_comes_back_as_it_was(event):
    assert from_line(to_line(event)) == event


def test_every_kind_has_a_name_of_its_own():
    assert len(KINDS) == len(set(KINDS.values()))
    assert all(cls.kind == kind for kind, cls in KINDS.items())


def test_what_is_at_its_default_is_not_said_and_what_is_null_is():
    assert to_object(Failed("a", "gone", 0)) == {
        "event": "failure", "name": "a", "reason": "gone", "client": 0
    }  # fmt: skip
    said = to_object(round_done(1, loss=None))
    assert said["loss"] is None and not {"epsilon", "sim_clock", "abandoned"} & set(said)
    assert to_object(round_done(1, epsilon=None))["epsilon"] is None
    assert to_object(TRAINED)["num-examples"] == 900


def test_a_private_run_without_bound_is_told_from_one_without_privacy():
    assert ROUND.epsilon is Untold.UNTOLD
    told = from_object(to_object(round_done(1, epsilon=None)))
    assert isinstance(told, RoundDone) and told.epsilon is None


def test_a_perplexity_that_diverged_comes_back():
    event = from_line(to_line(trained(1, 0, "a", valid_ppl=math.inf)))
    assert event.valid_ppl == math.inf


def test_a_field_of_a_later_version_is_left_out():
    assert from_object({"event": "end", "seconds": 1.0, "mood": "good"}) == Ended(1.0)


@pytest.mark.parametrize(
    "told",
    [
        5, None, [], {}, {"event": 5}, {"event": "ended", "seconds": 1.0}, {"event": "end"},
        {"event": "end", "seconds": "1"}, {"event": "end", "seconds": True},
        to_object(ROUND) | {"bytes_up": 1.5},
    ],
    ids=json.dumps,
)  # fmt: skip
def test_what_is_no_event_is_none(told):
    assert from_object(told) is None
