"""Which workers there are, and where one fits: plain functions, without Ray."""

import pytest

from comigs.config.pools import PoolConfig, RayConfig
from comigs.errors import BadInput
from comigs_server.grids.pools import make_pools, place, total

CLASSES = ["phone", "laptop", "phone", "desk"]
SMALL, LARGE = {"CPU": 1.0}, {"CPU": 2.0}


def pools_of(**pools):
    made = make_pools(RayConfig(pools=pools), CLASSES, 4, workers=3, threads=2)
    return {pool.name: pool for pool in made}


def test_without_pools_there_is_one_for_all():
    [pool] = make_pools(RayConfig(), None, 3, workers=2, threads=4)
    assert (pool.name, pool.workers, pool.demand) == ("default", 2, {"CPU": 4.0})
    assert pool.clients == {0, 1, 2}


def test_a_class_without_a_pool_uses_the_default_one():
    pools = pools_of(phone=PoolConfig(workers=1, cpus=0.5, gpus=0.25, resources={"npu": 1.0}))
    assert pools["phone"].clients == {0, 2}
    assert pools["phone"].demand == {"CPU": 0.5, "GPU": 0.25, "npu": 1.0}
    assert (pools["default"].clients, pools["default"].workers) == ({1, 3}, 3)


def test_there_is_no_default_pool_without_clients():
    every = {name: PoolConfig() for name in CLASSES}
    assert sorted(pools_of(**every)) == ["desk", "laptop", "phone"]


def test_the_default_pool_can_be_described():
    [pool] = make_pools(RayConfig(pools={"default": PoolConfig(gpus=0.5)}), None, 2, 1, 1)
    assert pool.demand == {"CPU": 1.0, "GPU": 0.5}


def test_an_unknown_class_is_refused():
    with pytest.raises(BadInput, match=r"ray\.pools\.phnoe: no client .*; did you mean phone\?"):
        pools_of(phnoe=PoolConfig())


def test_what_is_hardest_to_place_comes_first():
    pools = pools_of(phone=PoolConfig(cpus=4), desk=PoolConfig(resources={"far": 1.0}))
    assert list(pools) == ["desk", "phone", "default"]


def test_totals_count_every_worker():
    pools = pools_of(phone=PoolConfig(workers=2, cpus=1.5), desk=PoolConfig(workers=1))
    assert total(pools.values()) == {"CPU": 2 * 1.5 + 1 * 2 + 3 * 2}


def test_a_worker_goes_where_most_is_free():
    nodes = {"a": {"CPU": 4.0}, "b": {"CPU": 3.0}}
    assert place(SMALL, nodes, []) == "a"
    assert place(SMALL, nodes, [("a", LARGE)]) == "b"


def test_a_worker_goes_only_where_all_it_needs_is_free():
    nodes = {"a": {"CPU": 8.0}, "b": {"CPU": 1.0, "far": 1.0}}
    far = SMALL | {"far": 1.0}
    assert place(far, nodes, []) == "b"
    assert place(far, nodes, [("b", far)]) is None
    assert place({"CPU": 9.0}, nodes, []) is None


def test_shares_fill_a_node_to_the_last():
    share = {"CPU": 0.1}
    taken = [("a", share)] * 9
    assert place(share, {"a": {"CPU": 1.0}}, taken) == "a"
    assert place(share, {"a": {"CPU": 1.0}}, [*taken, ("a", share)]) is None


def test_a_node_to_avoid_is_the_last_choice():
    nodes = {"a": {"CPU": 4.0}, "b": {"CPU": 1.0}}
    assert place(SMALL, nodes, [], avoid="a") == "b"
    assert place(SMALL, nodes, [("b", SMALL)], avoid="a") == "a"


def test_workers_on_nodes_that_are_gone_take_nothing():
    assert place(SMALL, {"b": {"CPU": 1.0}}, [("a", SMALL)]) == "b"
