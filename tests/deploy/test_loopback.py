"""A generated project, its command lines run as processes: whatever happens, it trains the same.

TLS and node keys are on; each device has its own text only. One device is in a network of its own,
the clock of another is slow.
"""

import json
import shutil
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

import comigs
from comigs.app.run import resume
from comigs.cli.commands import app
from comigs.deploy.flowercli import ask_flwr
from comigs.deploy.keys import write_certificates, write_node_key
from comigs.deploy.project import HOSTS
from experiments.benchmarks.loopback import CONNECTED, QUIET, Services, free_port, wait_for
from tests.deploy.network import Network
from tests.helpers import assert_same_numbers, events
from tests.server.devices import InOrder, arrived, run_behind

pytest_plugins = ("tests.fixtures",)
pytestmark = pytest.mark.slow
PAUSE = 2.0  # seconds between calls of a command that itself takes more than one of a core
NAMES = ("ana", "bo", "cy")


def call(*arguments):
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def network():
    with Network() as network:
        yield network


@pytest.fixture(scope="module")
def services(tmp_path_factory, federation, tiny_model, network):
    """All services of a project; its devices are registered."""
    port, folder = free_port(), tmp_path_factory.mktemp("deploy") / "project"
    size = ("--clients", len(NAMES), "--port", port)
    call("deploy", "init", folder, *size, "--data", federation)
    for policy in folder.glob("devices/*/data/device.yaml"):
        policy.write_text(policy.read_text().replace("[/models]", f"[{tiny_model}]"))
    hosts = [*HOSTS, network.host]
    write_certificates(folder / "ca", folder / "server" / "keys", hosts, days=1)
    services = Services(
        folder, tmp_path_factory.mktemp("logs"), port, {"cy": network}, {"ana": -200.0}
    )
    try:
        services.start("superlink")
        wait_for(lambda: services.healthy("superlink"), "the SuperLink")
        registered = call("deploy", "register", folder).splitlines()
        assert [line.rpartition(" ")[0] for line in registered] == [
            f"{name}: registered as node" for name in NAMES
        ]
        for name in services.services:
            if name != "superlink":
                services.start(name)
        yield services
    finally:
        services.stop()


def flwr(services, *arguments):
    """What Flower's command says, with the connection that the project brings."""
    return ask_flwr(*arguments, home=services.folder / "flwr")


def test_every_service_starts_and_every_device_comes_online(services):
    for name in services.services:
        wait_for(lambda name=name: services.healthy(name), name)

    def nodes():
        return flwr(services, "supernode", "list")["nodes"]

    known = {(services.folder / f"devices/{c}/keys/node.id").read_text().strip() for c in NAMES}
    wait_for(
        lambda: known == {n["node-id"] for n in nodes() if n["status"] == "online"},
        "all devices",
        PAUSE,
    )
    assert {name: process.poll() for name, process in services.running.items()} == dict.fromkeys(
        services.services
    )


def test_registering_again_changes_nothing(services):
    again = call("deploy", "register", services.folder)
    assert again.splitlines() == [f"{name}: was registered before" for name in NAMES]


def gather(services, run, folder):
    """Put what server and devices have kept of a run where the inline engine would have it."""
    shutil.copytree(services.folder / "server" / "runs" / run / "server", folder / "server")
    for i, name in enumerate(NAMES):
        kept = services.folder / "devices" / name / "state" / run / "clients" / str(i)
        shutil.copytree(kept, folder / "clients" / str(i))


def test_nothing_is_lost_with_the_superlink_a_device_a_cable_or_the_serverapp(
    services, network, tree, finished, tmp_path, monkeypatch
):
    for key, value in (QUIET | {"FLWR_HOME": str(services.folder / "flwr")}).items():
        monkeypatch.setenv(key, value)
    remote = tree | {"engine": {"name": "flower"}, "data": tree["data"] | {"name": "data"}}

    def received(name):
        return services.log(f"supernode-{name}").count("Receiving: train message")

    def reached(name):
        """Whether round 2 got to the device: events are told late, so it may be through with it."""
        trained = services.folder.glob(f"devices/{name}/state/*/clients/*/round_*2")
        return received(name) > before[name] or any(trained)

    def trouble(event):
        match event["event"], event.get("round"):
            case "client", 1 if "superlink" in unharmed:
                unharmed.remove("superlink")
                services.kill("superlink")
                services.start("superlink")
            case "round", 1:
                before.update({name: received(name) for name in NAMES})
            case "round started", 2 if "devices" in unharmed:
                unharmed.remove("devices")
                for name in ("bo", "cy"):
                    wait_for(lambda name=name: reached(name), "round 2")
                network.pull_the_cable()
                services.kill_device("bo")
                services.bring_back("bo")
                network.plug_it_in()
            case "round", 2:
                services.kill("serverapp")
                services.start("serverapp")

    unharmed, before, folder = ["superlink", "devices"], {}, tmp_path / "run"
    with pytest.raises(comigs.ComigsError, match=r"the run ended as finished:failed"):
        comigs.run(remote, out=folder, watch=trouble)
    result = resume(folder)
    assert not unharmed
    gather(services, result.config.flower.run, folder)
    assert_same_numbers(folder, finished)
    for name in NAMES:
        texts = [path.name for path in (services.folder / "devices" / name / "data").iterdir()]
        assert set(texts) == {f"{name}.txt", "clients.json", "device.yaml"}


def test_flower_s_own_command_goes_on_after_kill_9_with_rounds_that_overlap(
    services, tree, federation, tiny_model, tmp_path, monkeypatch
):
    """As docs/deploy.md has it, with less to do. A step takes two updates, and one was there."""
    monkeypatch.chdir(services.folder)
    settings, kept = services.folder / "run.toml", services.folder / "server" / "runs" / "first"
    config = json.loads(tomllib.loads(settings.read_text())["config"])
    server = {"mode": "buffered", "buffer": 2, "round_timeout": 300}
    config |= tree | {"data": tree["data"] | {"name": "data"}, "rounds": 2, "server": server}
    settings.write_text(f"config = '''\n{json.dumps(config)}\n'''\n")

    def submit():
        return flwr(services, "run", "app", "--run-config", "run.toml")["run-id"]

    def in_round_2():
        written = (kept / "metrics.jsonl").exists()
        return written and any(event["round"] == 2 for event in events(kept, "client"))

    submit()
    wait_for(in_round_2, "one of its two updates", 0.02)
    services.kill("serverapp")
    assert not events(kept, "end")
    services.start("serverapp")
    run = submit()

    def status():
        return flwr(services, "ls", "--run-id", str(run))["runs"][0]["status"]

    wait_for(lambda: events(kept, "end"), "its last event")
    wait_for(lambda: status().startswith("finished"), "the run", PAUSE)
    assert status() == "finished:completed"
    assert {event["name"] for event in events(kept, "final")} == set(NAMES)
    told = arrived(kept)
    assert [number for number, *_ in told] == [1, 1, 2, 2]

    # never stopped, in one process, the same updates in the same order
    data, here = shutil.copytree(federation, tmp_path / "data"), tmp_path / "here"
    (data / "device.yaml").write_text(f"models: [{tiny_model}]\n")
    link = InOrder(tmp_path / "devices", [client for _, client, _ in told])
    run_behind(link, config | {"data": tree["data"] | {"name": str(data)}}, here)
    assert arrived(here) == told
    for i in range(len(NAMES)):
        state = tmp_path / "devices" / str(i) / "first" / "clients" / str(i)
        shutil.copytree(state, here / "clients" / str(i))
    gather(services, "first", tmp_path / "there")
    shutil.copy(kept / "metrics.jsonl", tmp_path / "there")
    assert_same_numbers(tmp_path / "there", here)


def test_no_secret_is_in_a_log_or_in_what_a_run_keeps(services):
    secrets = [p.read_text().strip() for p in services.folder.rglob("*.secret")]
    keys = [*services.folder.rglob("*.key"), *services.folder.rglob("*.pem")]
    secrets += [line for p in keys for line in p.read_text().splitlines()[1:-1] if len(line) > 30]
    assert len(secrets) > len(keys)
    told = [*services.logs.rglob("*"), *(services.folder / "server" / "runs").rglob("*")]
    for name in NAMES:
        state = services.folder / "devices" / name / "state"
        told += state.rglob("*")
        for folder in filter(Path.is_dir, (*state.iterdir(), *state.glob("*/clients/*"))):
            assert folder.stat().st_mode & 0o077 == 0, folder
    for path in filter(Path.is_file, told):
        text = path.read_bytes()
        assert not [path for secret in secrets if secret.encode() in text]


def start_another(services, name, *changes, **options):
    """Start one more SuperNode by the name of `name`."""
    port = str(services.ports["supernode-ana", 9094])
    services.start("supernode-ana", name, [(port, str(free_port())), *changes], **options)


def refused(services, name, *changes, **options):
    """The log of a SuperNode that must not get in."""
    start_another(services, name, *changes, **options)
    wait_for(lambda: services.running[name].poll() is not None, f"{name} to end")
    assert CONNECTED not in services.log(name)
    return services.log(name)


def test_a_key_that_is_not_registered_is_refused(services, tmp_path):
    write_node_key(tmp_path)
    own = str(services.folder / "devices" / "ana" / "keys" / "node.key")
    refused(services, "stranger", (own, str(tmp_path / "node.key")), skew=0)


def test_a_clock_that_is_fast_is_refused(services):
    told = refused(services, "hasty", skew=60)
    assert "SuperNode terminated gracefully" in told  # docs/deploy.md says what it means


def test_a_server_with_another_certificate_is_refused(services, tmp_path):
    write_certificates(tmp_path, tmp_path, HOSTS, days=1)
    own = str(services.folder / "ca" / "ca.crt")
    start_another(services, "wary", (own, str(tmp_path / "ca.crt")))
    wait_for(lambda: "certificate" in services.log("wary").lower(), "the node tells")
    assert CONNECTED not in services.log("wary")
    services.kill("wary")
