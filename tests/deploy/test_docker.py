"""docs/deploy.md with a real engine: whatever is killed, it trains the same.

    COMIGS_DOCKER=1 python -m pytest tests/deploy/test_docker.py

Only that variable turns it on; it builds no image.
"""

import shutil

import pytest

import comigs
from comigs.app.run import resume
from tests.deploy.engine import MARKS, docker, started
from tests.helpers import assert_same_numbers, events

pytest_plugins = ("tests.fixtures",)
pytestmark = MARKS


@pytest.fixture(scope="module")
def project(tmp_path_factory, federation):
    """Two devices, up and registered."""
    with started(tmp_path_factory.mktemp("docker"), 2, federation) as project:
        yield project


@pytest.fixture(scope="module")
def settings(tree):
    return tree | {
        "model": {"name": "comigs-tiny"},
        "experts": {"specialists": [0, 1], "rank": 2},
        "engine": {"name": "flower"},
        "data": tree["data"] | {"name": "/data"},
    }


def test_nothing_is_lost_whatever_is_killed(project, settings, federation, tmp_path):
    def trouble(event):
        seen = event["event"], event.get("round")
        if seen in past:
            return
        past.append(seen)
        match seen:
            case "round started", 1:
                project.crash("clientapp-ana")
                project.compose("kill", "supernode-bo")
                project.compose("start", "supernode-bo")
            case "round started", 2:
                network = f"{project.folder.name}_fleet"
                docker("network", "disconnect", network, project.container("supernode-ana"))
                project.compose("restart", "superlink")
                docker("network", "connect", network, project.container("supernode-ana"))
            case "round", 2:
                project.crash("serverapp")

    past, folder = [], tmp_path / "run"
    with pytest.raises(comigs.ComigsError, match="the run ended as finished:failed"):
        comigs.run(settings, out=folder, watch=trouble)
    result = resume(folder)
    assert {("round started", 1), ("round started", 2)} < set(past)
    run, text = result.config.flower.run, tmp_path / "text"
    shutil.copytree(project.folder / "server/runs" / run / "server", folder / "server")
    text.mkdir()
    for i, name in enumerate(project.names):
        kept = project.folder / "devices" / name / "state" / run / "clients" / str(i)
        shutil.copytree(kept, folder / "clients" / str(i))
        shutil.copy(federation / f"{name}.txt", text)
    here = settings | {"engine": "inline", "data": settings["data"] | {"name": str(text)}}
    assert_same_numbers(folder, comigs.run(here, out=tmp_path / "here").folder)


def test_what_is_known_survives_down_and_up_and_a_client_is_added(
    project, settings, federation, tmp_path
):
    project.compose("down")
    project.deploy("add-client", "--text", federation / "cy.txt", "--device", "phone-high")
    project.compose("up", "--detach", "--no-build")
    told = project.deploy("register")
    assert told[:2] == [f"{name}: was registered before" for name in ("ana", "bo")]
    assert told[2].startswith("cy: registered as node")
    specialists = {"experts": {"specialists": 1, "rank": 2}, "rounds": 1}
    comigs.run(settings | specialists, out=tmp_path / "run")
    assert {row["name"] for row in events(tmp_path / "run", "final")} == {"ana", "bo", "cy"}
