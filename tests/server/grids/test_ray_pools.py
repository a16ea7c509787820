"""Pools of workers by device class: who runs where."""

import pytest
from flwr.app import ConfigRecord, RecordDict

from comigs.config.pools import PoolConfig, RayConfig
from comigs_server.grids.ray import RayGrid
from tests.server.grids.asking import ask, by_client, failures

POOLS = {"phone": PoolConfig(workers=1, cpus=0.5), "desk": PoolConfig(resources={"fast": 1.0})}
CLASSES = ["phone", "desk", "phone", "desk"]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def state_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def grid(state_dir):
    config = RayConfig(pools=POOLS)
    app = "tests.server.grids.toy:app"
    with RayGrid(app, 4, str(state_dir), 1, 1, config=config, classes=CLASSES) as grid:
        yield grid


def test_each_class_has_workers_of_its_own(grid):
    replies = by_client(grid.send_and_receive(ask(grid)))
    pids = {
        client: reply.content.config_records["about"]["pid"] for client, reply in replies.items()
    }
    assert pids[0] == pids[2] != pids[1] == pids[3]


def test_the_slowest_of_each_class_start_first(grid, state_dir):
    seconds = {"0": 0.0, "1": 0.0, "2": 0.3, "3": 0.5}
    content = RecordDict({"seconds": ConfigRecord(seconds)})
    log = state_dir / "log"
    for expected in ([0, 2, 1, 3], [2, 0, 3, 1]):
        log.write_text("")
        assert not failures(grid.send_and_receive(ask(grid, "query.sleep", content=content)))
        lines = log.read_text().splitlines()
        starts = [int(line.split()[1]) for line in lines if line.startswith("start")]
        assert sorted(starts, key=lambda client: CLASSES[client] == "desk") == expected
