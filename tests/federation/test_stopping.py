"""When a run ends early, by values worked out by hand."""

import math

import pytest

from comigs.config.load import changed_keys, config_hash, load_config
from comigs.config.train import StopConfig
from comigs.errors import BadInput
from comigs.federation.stopping import Watched, over, watch
from comigs.store.chosen import RoundChosen

TWO = StopConfig(patience=2)


def watched_all(stop, *told):
    """What is known after round 1's models, round 2's, ... were evaluated."""
    seen = Watched()
    for number, ppl in enumerate(told, 1):
        seen = watch(stop, seen, number, ppl, {0: number, 1: number})
    return seen


def test_the_best_mean_is_kept_and_each_evaluation_that_is_no_better_is_counted():
    seen = watched_all(TWO, {0: 8.0, 1: 4.0}, {0: 5.0, 1: 3.0}, {0: 4.5, 1: 3.5})
    assert (seen.best, seen.value, seen.waited, seen.states) == (2, 4.0, 1, {0: 2, 1: 2})
    assert not over(TWO, seen)
    assert seen.tested(4) == 2
    again = watch(TWO, seen, 4, {0: 9.0, 1: 9.0}, {0: 4, 1: 4})
    assert over(TWO, again)
    assert again.tested(5) == 2
    better = watch(TWO, seen, 4, {0: 3.0, 1: 4.9}, {0: 4, 1: 4})
    assert (better.best, better.value, better.waited) == (4, pytest.approx(3.95), 0)
    assert better.tested(5) == 5, "the newest evaluation was the best"


def test_the_highest_perplexity_can_be_what_counts():
    worst = StopConfig(patience=1, metric="worst")
    told = {0: 8.0, 1: 4.0}, {0: 7.9, 1: 7.9}, {0: 8.0, 1: 1.0}
    seen = watched_all(worst, *told)
    assert (seen.best, seen.value) == (2, 7.9)
    assert over(worst, seen)
    assert watched_all(StopConfig(patience=1), *told).best == 3  # means 6, 7.9, 4.5


def test_a_client_that_is_not_drawn_counts_with_its_newest_value():
    seen = watched_all(TWO, {0: 8.0, 1: 4.0}, {0: 6.0})
    assert (seen.best, seen.value) == (2, 5.0)
    assert watch(TWO, seen, 3, {1: 4.0}, {}).waited == 1


def test_when_a_client_is_heard_for_the_first_time_the_best_begins_anew():
    seen = watched_all(TWO, {0: 3.0}, {0: 4.0}, {1: 90.0})
    assert (seen.best, seen.value, seen.waited) == (3, 47.0, 0)


def test_the_order_in_which_clients_answer_does_not_matter():
    told = {0: 0.1 + 1, 1: 1e16, 2: 0.7 + 1}
    one = watch(TWO, Watched(), 1, told, {})
    assert watch(TWO, Watched(), 1, dict(reversed(told.items())), {}) == one


def test_neither_the_start_nor_a_silent_round_nor_a_run_without_patience_is_an_evaluation():
    assert watch(TWO, Watched(), 0, {0: 3.0}, {}) == Watched()
    assert watch(TWO, Watched(), 1, {}, {}) == Watched()
    never = StopConfig()
    assert watch(never, Watched(), 1, {0: 3.0}, {}) == Watched()
    assert not over(never, Watched(waited=99))
    assert Watched().tested(7) == 7


def test_a_perplexity_that_diverged_is_never_better():
    seen = watched_all(TWO, {0: math.inf}, {0: math.inf}, {0: math.inf})
    assert (seen.best, seen.waited) == (1, 2)
    assert watch(TWO, seen, 4, {0: 1e300}, {}).best == 4


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (
            RoundChosen(5, 8, 20, "perplexity", 2, 2, 12.344),
            "stopped after round 8 of 20: mean validation perplexity 12.34 of round 5 was not "
            "bettered in 2 evaluations; the models of round 5 are tested",
        ),
        (
            RoundChosen(18, 20, 20, "worst", 2, 1, 1234.5),
            "the models of round 18 are tested: their highest validation perplexity 1,234.50 was "
            "the best",
        ),
        (
            RoundChosen(20, 20, 20, "perplexity", 2, 0, 3.0),
            "the models of round 20 are tested: the newest evaluation was the best",
        ),
        (
            RoundChosen(20, 20, 20, "perplexity", 2, 0, None),
            "the models of round 20 are tested: there was no evaluation",
        ),
        (  # of a file that somebody else wrote
            RoundChosen(20, 20, 20, "perplexity", 0, 1, None),
            "the models of round 20 are tested: there was no evaluation",
        ),
    ],
)
def test_what_people_are_told(event, words):
    assert event.told == words


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["stop.patience=0"], "stop.patience is 0; it must be at least 1"),
        (["stop.patience=2", "stop.metric=loss"], "stop.metric"),
        (
            ["stop.patience=2", "log.eval_every=0"],
            "stop.patience is 2, which needs evaluations: set log.eval_every, now 0, from 1 up and "
            "below rounds (10)",
        ),
        (["stop.patience=2", "log.eval_every=10"], "now 10, from 1 up and below rounds (10)"),
    ],
)
def test_what_cannot_stop_is_refused(settings, words):
    with pytest.raises(BadInput) as refused:
        load_config(None, settings)
    assert words in str(refused.value)


def test_how_often_is_evaluated_decides_the_numbers_of_a_run_that_may_stop_and_of_no_other():
    every = ["log.eval_every=2"]
    assert config_hash(load_config(None, every)) == config_hash(load_config(None))
    stop = ["stop.patience=2"]
    one, two = load_config(None, stop), load_config(None, stop + every)
    assert changed_keys(one, two) == ["log.eval_every"]
    assert len({config_hash(one), config_hash(two), config_hash(load_config(None))}) == 3


def test_what_is_no_number_is_never_the_best():
    seen = watched_all(TWO, {0: math.nan}, {0: 9.0}, {0: math.nan})
    assert (seen.best, seen.value, seen.waited) == (2, 9.0, 1)
