"""A Ray cluster of two nodes: state travels, and a node may die in the middle of a round."""

import threading
import time
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from comigs.config.load import load_config
from comigs.config.pools import PoolConfig, RayConfig
from comigs.errors import BadInput, ComigsError
from comigs.federation.run import resolve
from comigs_server.grids.ray import RayGrid
from comigs_server.journal import Journal
from comigs_server.loop import run_rounds
from tests.helpers import assert_same_numbers, events
from tests.server.grids.asking import ask, by_client, failures

pytest_plugins = ("tests.fixtures",)
pytestmark = pytest.mark.slow

CLASSES = ["laptop", "sensor"]
FAR = {"sensor": PoolConfig(workers=1, resources={"far": 1.0})}
TOY = "tests.server.grids.toy:app"
QUICK = {  # a dead node is found out in a second
    "health_check_initial_delay_ms": 500,
    "health_check_period_ms": 300,
    "health_check_failure_threshold": 3,
}


@pytest.fixture(scope="module")
def doomed(tmp_path_factory):
    """The folder of tests/server/doomed.py."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("doomed")
        patch.setenv("DOOMED_FOLDER", str(folder))
        yield folder


@pytest.fixture(scope="module")
def cluster(doomed):
    """A node with one CPU, where the driver is."""
    head = {"num_cpus": 1, "include_dashboard": False, "_system_config": QUICK}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    yield cluster
    cluster.shutdown()


@pytest.fixture(autouse=True)
def address(cluster, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    yield
    ray.shutdown()


@pytest.fixture
def far(cluster, doomed):
    """A second node, with one CPU and the resource `far`; if none is left, a new one."""
    if not cluster.worker_nodes:
        cluster.add_node(num_cpus=1, resources={"far": 1.0})
    [node] = cluster.worker_nodes
    (doomed / "node").write_text(node.node_id)
    return node


def test_a_node_that_dies_in_mid_round_changes_no_bit(
    cluster, far, doomed, tree, finished, tmp_path
):
    folder = tmp_path / "run"
    folder.mkdir()
    killed, done = threading.Event(), threading.Event()

    def kill_when_at_work():
        while not (doomed / "here").exists():
            if done.wait(0.05):
                return
        cluster.remove_node(far, allow_graceful=False)
        killed.set()

    thread = threading.Thread(target=kill_when_at_work, daemon=True)
    thread.start()
    config = RayConfig(address="auto")
    with RayGrid("tests.server.doomed:app", 3, str(folder), 2, 1, config=config) as grid:
        run_rounds(grid, resolve(load_config(tree)), folder, Journal(folder))
    done.set()
    thread.join()
    assert killed.is_set()
    assert events(folder, "failure") == []
    assert_same_numbers(folder, finished)


def test_a_worker_on_another_node_does_not_see_the_run_folder(far, tmp_path):
    config = RayConfig(address="auto", pools=FAR)
    with RayGrid(TOY, 2, str(tmp_path), 1, 1, config=config, classes=CLASSES) as grid:
        replies = by_client(grid.send_and_receive(ask(grid)))
    here, there = (replies[i].content.config_records["about"]["state-dir"] for i in (0, 1))
    assert here == str(tmp_path)
    assert there != here
    assert not Path(there).exists()


def test_a_pool_that_loses_its_only_node_ends_the_run(cluster, far, tmp_path):
    config = RayConfig(address="auto", pools=FAR)
    with RayGrid(TOY, 2, str(tmp_path), 1, 1, config=config, classes=CLASSES) as grid:
        assert not failures(grid.send_and_receive(ask(grid)))
        cluster.remove_node(far, allow_graceful=False)
        while sum(node["Alive"] for node in ray.nodes()) > 1:
            time.sleep(0.1)
        assert not failures(grid.send_and_receive(ask(grid, nodes=[1])))
        with pytest.raises(ComigsError, match="pool 'sensor' has lost its last worker"):
            grid.send_and_receive(ask(grid))


@pytest.mark.parametrize(
    ("workers", "pools", "said"),
    [
        (3, {}, r"engine.workers: 3 workers with 1 CPU each do not fit .* only 2 do"),
        (
            1,
            {"sensor": PoolConfig(cpus=2)},
            r"ray.pools.sensor: 1 workers with 2 CPU each do not fit",
        ),
        (
            1,
            {"sensor": PoolConfig(resources={"near": 1.0})},
            r"ray.pools.sensor: 1 workers with 1 CPU, 1 near each",
        ),
        (
            1,
            {"sensor": PoolConfig(gpus=1)},
            r"ray.pools.sensor: 1 workers with 1 CPU, 1 GPU each do not fit",
        ),
    ],
)
def test_more_than_the_cluster_has_is_refused(far, tmp_path, workers, pools, said):
    config = RayConfig(address="auto", pools=pools)
    with pytest.raises(BadInput, match=said):
        RayGrid(TOY, 2, str(tmp_path), workers, 1, config=config, classes=CLASSES)
    assert not ray.is_initialized()
