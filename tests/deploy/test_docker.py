"""docs/deploy.md with a real engine: whatever is killed, it trains the same.

    COMIGS_DOCKER=1 python -m pytest tests/deploy/test_docker.py

Only that variable turns it on; it builds no image.
"""

import json
import os
import shutil
import subprocess

import pytest
from typer.testing import CliRunner

import comigs
from comigs.cli.commands import app
from comigs.deploy.project import init_project
from experiments.benchmarks.loopback import QUIET, free_port, wait_for
from tests.helpers import assert_same_numbers, events

pytest_plugins = ("tests.fixtures",)
pytestmark = [
    pytest.mark.docker,
    pytest.mark.slow,
    pytest.mark.skipif(
        os.environ.get("COMIGS_DOCKER") != "1", reason="COMIGS_DOCKER=1 is not set: see the docs"
    ),
]
IMAGE = f"comigs:{comigs.__version__}-cpu"
CRASH = "import os; os.kill(-1, 9)"  # every process of a container but the first


def docker(*words, where=None):
    done = subprocess.run(["docker", *words], cwd=where, capture_output=True, text=True)
    assert done.returncode == 0, f"docker {' '.join(words)}: {done.stderr[-2000:]}"
    return done.stdout


class Project:
    """A compose project with a name of its own."""

    def __init__(self, folder):
        self.folder = folder

    def compose(self, *words):
        return docker("compose", *words, where=self.folder)

    def container(self, service):
        return self.compose("ps", "--all", "--quiet", service).strip()

    def crash(self, service):
        """What runs in the container dies; the engine starts it again."""
        inside = ["compose", "exec", "-T", service, "python", "-c", CRASH]
        subprocess.run(["docker", *inside], cwd=self.folder, capture_output=True, check=False)

    def log(self, service):
        return self.compose("logs", "--no-log-prefix", service)

    def healthy(self):
        rows = map(json.loads, self.compose("ps", "--format", "json").splitlines())
        states = [row["Health"] for row in rows]
        return len(states) == 2 + 2 * len(self.names) and set(states) == {"healthy"}

    @property
    def names(self):
        return sorted(path.name for path in (self.folder / "devices").iterdir())

    def deploy(self, command, *words):
        done = CliRunner().invoke(app, ["deploy", command, str(self.folder), *map(str, words)])
        assert done.exit_code == 0, done.output
        return done.output.splitlines()


@pytest.fixture(scope="module")
def project(tmp_path_factory, federation):
    """Two devices, up and registered."""
    found = subprocess.run(["docker", "image", "inspect", IMAGE], capture_output=True)
    assert not found.returncode, f"build it: docker build -f docker/Dockerfile -t {IMAGE} ."
    port = free_port()
    project = Project(tmp_path_factory.mktemp("docker") / f"comigs-test-{port}")
    init_project(project.folder, 2, "phone-high", str(federation), 2, port)
    with pytest.MonkeyPatch.context() as environment:
        for key, value in (QUIET | {"FLWR_HOME": str(project.folder / "flwr")}).items():
            environment.setenv(key, value)
        try:
            project.compose("up", "--detach", "--no-build")
            assert all("registered as node" in line for line in project.deploy("register"))
            wait_for(project.healthy, "all containers to be healthy")
            yield project
        finally:
            print(project.compose("logs", "--tail", "60"))
            project.compose("down", "--timeout", "5")


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

    past, folder = [], tmp_path / "run"
    result = comigs.run(settings, out=folder, watch=trouble)
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
