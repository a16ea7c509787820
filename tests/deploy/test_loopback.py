"""The command lines of a generated compose file, run as processes: TLS, keys, health checks."""

import json
import os
import subprocess

import pytest
from typer.testing import CliRunner

from comigs.cli import app
from tests.deploy.services import BIN, QUIET, Services, free_port, wait_for

pytestmark = pytest.mark.slow
CLIENTS = ("de", "fr")


def call(*arguments):
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    """All services of a project; its devices are registered."""
    port, folder = free_port(), tmp_path_factory.mktemp("deploy") / "project"
    call("deploy", "init", folder, "--clients", len(CLIENTS), "--port", port)
    services = Services(folder, tmp_path_factory.mktemp("logs"), port)
    try:
        services.start("superlink")
        wait_for(lambda: services.healthy("superlink"), "the SuperLink")
        registered = call("deploy", "register", folder).splitlines()
        assert [line.rpartition(" ")[0] for line in registered] == [
            f"{name}: registered as node" for name in CLIENTS
        ]
        for name in services.services:
            if name != "superlink":
                services.start(name)
        yield services
    finally:
        services.stop()


def nodes(services):
    """What `flwr supernode list` says, with the connection that the project brings."""
    home = {"FLWR_HOME": str(services.folder / "flwr")}
    command = [str(BIN / "flwr"), "supernode", "list", "--format", "json"]
    done = subprocess.run(command, env=os.environ | QUIET | home, capture_output=True, text=True)
    return json.loads(done.stdout)["nodes"]


def test_every_service_starts_and_every_device_comes_online(services):
    for name in services.services:
        wait_for(lambda name=name: services.healthy(name), name)
    known = {(services.folder / f"devices/{c}/keys/node.id").read_text().strip() for c in CLIENTS}
    wait_for(
        lambda: {n["node-id"] for n in nodes(services) if n["status"] == "online"} == known,
        "both devices",
    )
    assert {name: process.poll() for name, process in services.running.items()} == dict.fromkeys(
        services.services
    )


def test_registering_again_changes_nothing(services):
    again = call("deploy", "register", services.folder)
    assert again.splitlines() == [f"{name}: was registered before" for name in CLIENTS]
