"""A real engine: compose projects in containers, for the tests that ask for one."""

import json
import os
import subprocess
from contextlib import contextmanager

import pytest
from typer.testing import CliRunner

import comigs
from comigs.cli.commands import app
from comigs.deploy.project import init_project
from experiments.benchmarks.loopback import QUIET, free_port, wait_for

MARKS = [
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

    def come_up(self, *words):
        """As docs/deploy.md has it: up, registered, healthy. Returns what registering says."""
        self.compose("up", "--detach", "--no-build", *words)
        told = self.deploy("register")
        wait_for(self.healthy, "all containers to be healthy")
        return told


@contextmanager
def started(parent, clients, federation, override=""):
    """A project of so many devices, up and registered; Flower's command knows its SuperLink."""
    found = subprocess.run(["docker", "image", "inspect", IMAGE], capture_output=True)
    assert not found.returncode, f"build it: docker build -f docker/Dockerfile -t {IMAGE} ."
    port = free_port()
    project = Project(parent / f"comigs-test-{port}")
    init_project(project.folder, clients, "phone-high", str(federation), 60, port)
    (project.folder / "compose.override.yaml").write_text(override or "services: {}\n")
    with pytest.MonkeyPatch.context() as environment:
        for key, value in (QUIET | {"FLWR_HOME": str(project.folder / "flwr")}).items():
            environment.setenv(key, value)
        try:
            assert all("registered as node" in line for line in project.come_up())
            yield project
        finally:
            print(project.compose("logs", "--tail", "60"))
            project.compose("down", "--timeout", "5")
