"""One federation, the same numbers: in this process, in one Ray worker, in two, and in a mix."""

import os
import signal
import sys

import pytest
import ray
from typer.testing import CliRunner

import comigs
from comigs.cli.commands import app
from comigs.config.load import load_config
from comigs.config.pools import PoolConfig, RayConfig
from comigs.federation.run import resolve
from comigs_server.grids.ray import RayGrid
from comigs_server.grids.raystart import start_local_ray
from comigs_server.journal import Journal
from comigs_server.loop import run_rounds
from tests.helpers import assert_same_numbers, events, read_until, start_cli

pytest_plugins = ("tests.fixtures",)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def one_ray():
    """What the grids in this process find; it has room for the workers of two of them."""
    paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
    start_local_ray(ray, {"CPU": 4, "fast": 1.0}, {"PYTHONPATH": paths})
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory):
    """A grid that runs one configuration after the other, each in the folder it gives."""
    home = tmp_path_factory.mktemp("shared")
    with RayGrid("comigs_clients.app:app", 3, str(home / "run"), 2, 1) as grid:

        def run(tree, folder):
            (home / "run").mkdir()
            run_rounds(grid, resolve(load_config(tree)), home / "run", Journal(home / "run"))
            return (home / "run").rename(folder)

        yield run


def test_one_ray_worker_changes_no_bit(tree, finished, tmp_path):
    one = tree | {"engine": {"name": "ray", "workers": 1}}
    assert_same_numbers(comigs.run(one, out=tmp_path).folder, finished)


def test_pools_of_device_classes_change_no_bit(tree, finished, tmp_path):
    pools = {"phone": PoolConfig(cpus=0.5), "desk": PoolConfig(resources={"fast": 1.0})}
    config, classes = RayConfig(pools=pools), ["desk", "phone", "phone"]
    with RayGrid(
        "comigs_clients.app:app", 3, str(tmp_path), 1, 1, config=config, classes=classes
    ) as grid:
        run_rounds(grid, resolve(load_config(tree)), tmp_path, Journal(tmp_path))
    assert_same_numbers(tmp_path, finished)


def test_fused_clients_are_the_same_with_workers(tree, tmp_path):
    """Two shapes, a client that is not always there, and one that is left over."""
    experts = {"specialists": [1, 1, 0], "rank": 2}
    tree = tree | {"experts": experts, "participation": 0.7, "rounds": 4}
    inline = comigs.run(tree | {"engine": {"fuse": 2}}, out=tmp_path / "inline").folder
    engine = {"name": "ray", "workers": 2, "fuse": 2}
    workers = comigs.run(tree | {"engine": engine}, out=tmp_path / "ray").folder
    assert_same_numbers(inline, workers)
    assert all(e["train_seconds"] > 0 for e in events(workers, "client"))


def test_two_ray_workers_change_no_bit(tree, two_workers, finished, tmp_path):
    assert_same_numbers(two_workers(tree, tmp_path / "ray"), finished)


@pytest.mark.parametrize("method", ["hetlora", "fdlora", "apfl", "fedalt", "flame"])
def test_a_method_with_a_way_of_its_own_is_the_same_in_every_engine(
    tree, two_workers, tmp_path, method
):
    """Corrections of the base, mixed ranks, a search at the end, two models, others' mean, counts.

    Half of the clients a round: drawn from the seed, each goes on from its own last state.
    """
    unequal = {
        "hetlora": {"specialists": 1, "rank": [1, 2, 3]},
        "flame": {"specialists": 2, "rank": 2, "top_k": [1, 2, 3]},
    }
    experts = unequal.get(method, {"rank": 2})
    tree = tree | {"method": method, "experts": experts, "participation": 0.5, "rounds": 5}
    inline = comigs.run(tree, out=tmp_path / "inline").folder
    shared = two_workers(tree, tmp_path / "ray")
    assert_same_numbers(inline, shared)
    both = (inline, shared)
    drawn = [sorted((e["round"], e["client"]) for e in events(f, "client")) for f in both]
    assert drawn[0] == drawn[1]


def test_ctrl_c_ends_ray_and_the_run_can_go_on_inline(yaml_file, finished, tmp_path):
    out = tmp_path / "run"
    process = start_cli(
        "run", yaml_file, "engine.name=ray", "engine.workers=2", "rounds=3", "--out", out
    )
    read_until(process, "round 1:")
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130, err
    assert err.splitlines()[-1].endswith(f"go on with: comigs run --resume {out}")
    assert "Traceback" not in err
    resumed = CliRunner().invoke(app, ["run", "--resume", str(out), "engine=inline"])
    assert resumed.exit_code == 0, resumed.output
    assert_same_numbers(out, finished)
