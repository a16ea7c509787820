"""FDLoRA's search and its alternating steps."""

from hypothesis import given, settings
from hypothesis import strategies as st

import comigs
from comigs.methods.fdlora import BUDGET, METHOD, search
from tests.helpers import events

pytest_plugins = ("tests.fixtures",)


@settings(max_examples=50)
@given(st.floats(-1.5, 1.5), st.floats(-1.5, 1.5), st.floats(0.01, 100))
def test_the_fused_weights_do_no_worse_than_either_end_point(x, y, steep):
    chosen, tried = search(lambda w: steep * ((w[0] - x) ** 2 + (w[1] - y) ** 2))
    assert tried[chosen] <= min(tried[1.0, 0.0], tried[0.0, 1.0])
    assert all(-1 <= w <= 1 for point in tried for w in point)
    assert len(tried) <= BUDGET


def test_the_search_comes_near_a_minimum_inside():
    chosen, tried = search(lambda w: 10 * ((w[0] - 0.6) ** 2 + (w[1] - 0.3) ** 2))
    assert tried[chosen] < 0.5 * min(tried[1.0, 0.0], tried[0.0, 1.0])


def test_where_both_are_useless_nothing_is_made_up():
    chosen, tried = search(lambda w: 1.0)
    assert tried[chosen] == 1.0


def test_global_and_local_lora_train_in_turn():
    assert METHOD.phases == ("generalist_0", "specialist_0")


def test_fedprox_works_where_a_step_trains_no_shared_tensor(tree, tmp_path):
    fedprox = {"strategy": "FedProx", "options": {"proximal_mu": 1.0}}
    config = {"method": "fdlora", "experts": {"specialists": 1, "rank": 2}, "server": fedprox}
    comigs.run(tree | config, out=tmp_path)
    assert not events(tmp_path, "failure")
