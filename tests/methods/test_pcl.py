"""PCL's trust matrix."""

import math
from itertools import pairwise

import torch
from hypothesis import given
from hypothesis import strategies as st

from comigs.methods.pcl import trust


@given(st.lists(st.floats(1, 1e6), min_size=1, max_size=20))
def test_a_row_of_the_trust_matrix_sums_to_one_and_falls_with_perplexity(perplexities):
    weights = trust(torch.tensor(perplexities))
    assert math.isclose(float(weights.sum()), 1)
    order = sorted(range(len(perplexities)), key=perplexities.__getitem__)
    assert all(weights[i] >= weights[j] - 1e-12 for i, j in pairwise(order))


@given(st.floats(1, 50), st.floats(1, 50))
def test_two_peers_are_weighed_by_the_logistic_function_of_their_difference(mine, other):
    weights = trust(torch.tensor([mine, other], dtype=torch.float64))
    assert math.isclose(float(weights[0]), 1 / (1 + math.exp(mine - other)), rel_tol=1e-9)
