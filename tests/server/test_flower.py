"""Real SuperLink and SuperNodes on loopback: the same numbers, whatever is killed on the way."""

import shutil

import pytest

import comigs
from comigs.api import resume
from tests.helpers import assert_same_numbers
from tests.server.superlink import Deployment

pytest_plugins = ("tests.fixtures",)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def deployment(tmp_path_factory):
    with Deployment(tmp_path_factory.mktemp("deployment"), 3) as deployment:
        yield deployment


@pytest.fixture
def remote(deployment, tree, monkeypatch):
    """`tree`, to be run by the deployment."""
    for key, value in deployment.environment.items():
        monkeypatch.setenv(key, value)
    return tree | {"engine": {"name": "flower"}}


def gather(deployment, result):
    """Put what server and devices have kept of a run where the inline engine would have it."""
    run = result.config.flower.run
    shutil.copytree(deployment.folder / "runs" / run / "server", result.folder / "server")
    (result.folder / "clients").mkdir()
    for i in range(deployment.clients):
        kept = deployment.folder / f"state{i}" / run / "clients" / str(i)
        shutil.copytree(kept, result.folder / "clients" / str(i))


def test_nothing_is_lost_with_the_superlink_or_the_serverapp(
    deployment, remote, finished, tmp_path
):
    def kill_superlink(event):
        if event["event"] == "client" and event["round"] == 1 and "superlink" in unharmed:
            unharmed.remove("superlink")
            deployment.kill("superlink")
            deployment.start_superlink()

    def kill_serverapp(event):
        kill_superlink(event)
        if event["event"] == "round" and event["round"] == 2:
            deployment.kill("serverapp")
            deployment.start_server_executor()

    unharmed = ["superlink"]
    folder = tmp_path / "run"
    with pytest.raises(comigs.ComigsError, match=r"the run ended as finished:failed"):
        comigs.run(remote, out=folder, watch=kill_serverapp)
    result = resume(folder)
    assert not unharmed
    gather(deployment, result)
    assert_same_numbers(folder, finished)


def test_the_run_goes_on_without_a_killed_node_and_takes_it_back(deployment, remote, tmp_path):
    def kill(event):
        if event["event"] == "round started" and event["round"] == 2:
            deployment.kill("node1")
            deployment.kill("clientapp1")
            deployment.start_node(1)

    result = comigs.run(remote, out=tmp_path / "run", watch=kill)
    assert [row["client"] for row in result.table] == [0, 1, 2]
