"""No update and no weight of one client takes the mean over."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comigs_server.combine.outliers import outliers, with_share

weights = st.dictionaries(st.integers(0, 20), st.floats(0.1, 1e13), min_size=1, max_size=9)


@pytest.mark.parametrize(
    ("norms", "out"),
    [
        ({0: 1.0, 1: 1.1, 2: 1e38}, {2}),
        ({0: 1.0, 1: math.inf}, {1}),
        ({0: 1.0, 1: math.nan, 2: 1.0}, {1}),
        ({0: 1e38}, {0}),
        ({0: 1.0, 1: 1e7}, {1}),
        ({0: 0.0, 1: 0.0, 2: 5.0}, set()),
        ({0: 0.01, 1: 1.0, 2: 20.0, 3: 90.0}, set()),
        ({0: 5.0, 1: 700.0}, set()),
        ({}, set()),
    ],
)
def test_what_is_absurd_beside_the_others_is_left_out(norms, out):
    assert set(outliers(norms)) == out


def test_alone_an_update_is_not_measured_by_others():
    assert set(outliers({0: 1.0, 1: 1.1, 2: 1e5, 3: 1e7, 4: math.inf}, alone=True)) == {3, 4}


@given(weights, st.floats(0.05, 1.0))
def test_no_weight_is_more_than_its_share(told, most):
    given_out = with_share(told, most)
    total = math.fsum(given_out.values())
    least = max(most, 1 / len(told))
    assert all(weight <= least * total * (1 + 1e-9) for weight in given_out.values())


@given(weights)
def test_weights_within_the_share_are_left_as_they_are(told):
    assert with_share(told, None) == told
    if max(told.values()) <= 0.5 * math.fsum(told.values()):
        assert with_share(told, 0.5) == told


def test_a_boast_is_worth_the_share_and_the_others_keep_their_proportions():
    given_out = with_share({0: 100.0, 1: 300.0, 2: 1e12}, 0.5)
    assert given_out[2] == pytest.approx(given_out[0] + given_out[1])
    assert given_out[1] == pytest.approx(3 * given_out[0])
