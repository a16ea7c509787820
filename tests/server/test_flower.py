"""Real SuperLink and SuperNodes on loopback: the same numbers, whatever is killed on the way."""

import shutil

import pytest

import comigs
from comigs.api import resume
from tests.helpers import assert_same_numbers
from tests.server.superlink import CONNECTED, Deployment, certificate, node_key, wait_for

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


def test_nothing_is_lost_with_the_superlink_a_device_or_the_serverapp(
    deployment, remote, finished, tmp_path
):
    def kill(event):
        match event["event"], event.get("round"):
            case "client", 1 if "superlink" in unharmed:
                unharmed.remove("superlink")
                deployment.kill("superlink")
                deployment.start_superlink()
            case "round started", 2 if "device" in unharmed:
                unharmed.remove("device")
                wait_for(
                    lambda: deployment.log("node1").count("Receiving: train message") == 2,
                    "the device takes its message",
                )
                deployment.kill_device(1)
                deployment.bring_back_device(1)
            case "round", 2:
                deployment.kill("serverapp")
                deployment.start_server_executor()

    unharmed, folder = ["superlink", "device"], tmp_path / "run"
    with pytest.raises(comigs.ComigsError, match=r"the run ended as finished:failed"):
        comigs.run(remote, out=folder, watch=kill)
    result = resume(folder)
    assert not unharmed
    gather(deployment, result)
    assert_same_numbers(folder, finished)


def test_a_node_with_a_key_that_is_not_registered_is_refused(deployment):
    node_key(deployment.folder / "stranger")
    deployment.start_node(0, "stranger", name="stranger")
    wait_for(lambda: deployment.running["stranger"].poll() is not None, "the stranger ends")
    assert CONNECTED not in deployment.log("stranger")
    deployment.kill("stranger")


def test_a_server_with_another_certificate_is_refused(deployment, tmp_path):
    certificate(tmp_path)
    (deployment.folder / "other.crt").write_bytes((tmp_path / "ca.crt").read_bytes())
    deployment.start_node(0, name="wary", authority="other.crt")
    wait_for(lambda: "certificate" in deployment.log("wary").lower(), "the node tells")
    assert CONNECTED not in deployment.log("wary")
    deployment.kill("wary")
