"""docs/deploy.md with a real engine: limits that are met, upgrade and new keys, another place.

COMIGS_DOCKER=1 python -m pytest tests/deploy/test_upkeep.py
"""

import subprocess

import pytest

import comigs
from tests.deploy.engine import IMAGE, MARKS, Project, docker, started
from tests.helpers import events

pytest_plugins = ("tests.fixtures",)
pytestmark = MARKS
SMALL = """\
x-old: &old {{image: {image}}}
services:
  superlink: *old
  serverapp: *old
  supernode-ana: *old
  clientapp-ana: *old
  supernode-bo: *old
  supernode-cy: *old
  clientapp-cy: *old
  clientapp-bo:
    <<: *old
    volumes: [{{type: tmpfs, target: /state, tmpfs: {{size: 64000000}}}}]
"""
FILL = """
with open("/state/other", "wb", buffering=0) as file:
    while file.write(bytes(4096)):
        pass
"""
FREE = "import os; os.remove('/state/other')"
# The trainer is the only process whose command names its module.
END_TRAINER = """
import os, pathlib
for place in pathlib.Path("/proc").glob("[0-9]*"):
    if b"comigs_clients.trainer" in (place / "cmdline").read_bytes().split(b"\\0"):
        os.kill(int(place.name), 9)
"""


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    """An image that differs from this version's in its label: the one to upgrade from."""
    name = "comigs-test:before"
    text = f"FROM {IMAGE}\nLABEL of=before\n"
    command = ["docker", "build", "--tag", name, "-"]
    subprocess.run(command, input=text, text=True, check=True, capture_output=True)
    yield name
    docker("image", "rm", "--force", name)


@pytest.fixture(scope="module")
def project(tmp_path_factory, federation, before):
    """Three devices of the version before; the state of one is on a small volume."""
    folder = tmp_path_factory.mktemp("docker")
    with started(folder, 3, federation, SMALL.format(image=before)) as project:
        yield project


@pytest.fixture(scope="module")
def settings(tree):
    return tree | {
        "model": {"name": "comigs-tiny"},
        "experts": {"specialists": 1, "rank": 2},
        "engine": {"name": "flower"},
        "data": tree["data"] | {"name": "/data"},
        "rounds": 5,
    }


def inside(project, service, program):
    done = subprocess.run(
        ["docker", "compose", "exec", "-T", service, "python", "-c", program],
        cwd=project.folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stderr


def limit(project, service, memory):
    docker("update", "--memory", memory, "--memory-swap", memory, project.container(service))


def final_names(folder):
    return {row["name"] for row in events(folder, "final")}


def test_a_device_without_memory_or_space_loses_rounds_and_the_run_goes_on(
    project, settings, tmp_path
):
    def trouble(event):
        match event:
            case {"event": "round", "round": 1}:
                assert "No space left" in inside(project, "clientapp-bo", FILL)
                limit(project, "clientapp-ana", "3g")
                inside(project, "clientapp-ana", END_TRAINER)
                limit(project, "clientapp-ana", "220m")
            case {"event": "failure", "name": name, "reason": reason} if name not in lost:
                lost[name] = reason
                if name == "bo":
                    inside(project, "clientapp-bo", FREE)
                else:
                    limit(project, "clientapp-ana", "3g")

    lost: dict[str, str] = {}
    comigs.run(settings, out=tmp_path / "run", watch=trouble)
    assert "refused (disk-full)" in lost["bo"]
    assert "refused (trainer-" in lost["ana"]
    assert "no space is left in /state/" in project.log("clientapp-bo")
    assert "than its container has: mem_limit is 231 MB" in project.log("clientapp-ana")
    assert len(events(tmp_path / "run", "round")) == 5
    assert final_names(tmp_path / "run") == {"ana", "bo", "cy"}


def test_upgrade_renews_keys_and_keeps_what_is_known(project, settings, tmp_path):
    (project.folder / "compose.override.yaml").write_text("services: {}\n")
    old = project.container("superlink")
    project.deploy("rotate")
    told = project.come_up("--force-recreate")
    assert all("registered as node" in line for line in told)
    new = project.container("superlink")
    assert old != new
    assert docker("inspect", "--format", "{{.Config.Image}}", new).strip() == IMAGE
    comigs.run(settings | {"rounds": 1}, out=tmp_path / "run")
    assert final_names(tmp_path / "run") == {"ana", "bo", "cy"}
    assert len(list((project.folder / "server/runs").glob("*/metrics.jsonl"))) == 2


def test_what_was_backed_up_runs_in_another_place(project, settings, tmp_path, monkeypatch):
    archive, other = tmp_path / "fed.tar.gz", tmp_path / "other"
    project.compose("stop")
    tar = ["tar", "--create", "--gzip", "--file", archive, "."]
    subprocess.run(tar, cwd=project.folder, check=True)
    project.compose("down")
    other.mkdir(mode=0o700)
    subprocess.run(["tar", "--extract", "--gzip", "--file", archive], cwd=other, check=True)
    restored, connection = Project(other), other / "flwr/config.toml"
    text = connection.read_text().replace(str(project.folder), str(other))
    connection.write_text(text)
    monkeypatch.setenv("FLWR_HOME", str(other / "flwr"))
    restored.deploy("check")
    told = restored.come_up()
    assert told == [f"{name}: was registered before" for name in ("ana", "bo", "cy")]
    run = comigs.run(settings | {"rounds": 1}, out=tmp_path / "run").config.flower.run
    assert final_names(tmp_path / "run") == {"ana", "bo", "cy"}
    generate = ("comigs", "generate", f"/state/{run}", "--client", "2", "mira tolu")
    said = restored.compose("run", "--rm", "clientapp-cy", *generate)
    assert said.startswith("mira tolu")
    restored.compose("down")
