"""The compose file: valid, complete, and no container can do more than it must."""

import json
import shutil
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml

from comigs.deploy.project import init_project
from docker.example import example

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "tests/data/compose-spec.json").read_text("utf-8"))
SLUGS = ("de", "fr", "it")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("deploy") / "My Federation"
    init_project(folder, len(SLUGS), "laptop,board,phone-low", "multilingual", 365, 8000)
    return folder


@pytest.fixture(scope="module")
def compose(folder):
    return yaml.safe_load((folder / "compose.yaml").read_text("utf-8"))


def mounts(service):
    return dict(volume.split(":")[:2][::-1] for volume in service["volumes"])


@pytest.mark.parametrize("text", ["project", "example"])
def test_it_follows_the_compose_specification(folder, text):
    text = (folder / "compose.yaml").read_text("utf-8") if text == "project" else example()
    jsonschema.Draft7Validator(SCHEMA).validate(yaml.safe_load(text))


def test_the_schema_refuses_what_is_no_compose_file(compose):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft7Validator(SCHEMA).validate(compose | {"servces": {}})


def test_docker_compose_reads_it(folder):
    command = ["docker", "compose", "--project-directory", folder, "config", "--quiet"]
    if not shutil.which("docker") or subprocess.run(["docker", "compose", "version"]).returncode:
        pytest.skip("there is no docker compose")
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr


def test_the_example_is_what_the_command_writes():
    assert (ROOT / "docker" / "compose.yaml").read_text("utf-8") == example(), (
        "write it again: python -m docker.example"
    )


def test_there_are_two_services_for_the_server_and_two_for_each_device(compose):
    devices = {f"{kind}-{slug}" for kind in ("supernode", "clientapp") for slug in SLUGS}
    assert set(compose["services"]) == {"superlink", "serverapp"} | devices
    assert compose["name"] == "my-federation"


def test_no_container_has_more_rights_than_it_needs(compose):
    for service in compose["services"].values():
        assert service["user"].split(":")[0] not in ("0", "root")
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["restart"] == "unless-stopped"
        assert service["healthcheck"]["test"][0] == "CMD"
        assert service["image"].startswith("comigs:0.1.0-")
        assert "privileged" not in service


def test_everything_mounted_is_there_and_only_folders_to_write_to_are_writable(folder, compose):
    for service in compose["services"].values():
        for volume in service["volumes"]:
            source, target, *mode = volume.split(":")
            assert (folder / source).exists(), volume
            assert bool(mode) != (target in ("/state", "/runs")), volume


def test_a_device_reaches_its_own_text_state_and_keys_only(compose):
    for slug in SLUGS:
        for kind in ("supernode", "clientapp"):
            sources = [Path(s) for s in mounts(compose["services"][f"{kind}-{slug}"]).values()]
            own = {path.parts[1] for path in sources if path.parts[0] == "devices"}
            assert own == {slug}
            assert not [path for path in sources if path.parts[0] == "server"]
    everything = [v for s in compose["services"].values() for v in mounts(s).values()]
    assert not [source for source in everything if source.endswith("ca.key")]


def test_only_a_supernode_sees_its_key_and_only_a_clientapp_its_text(compose):
    for slug in SLUGS:
        supernode, clientapp = (
            mounts(compose["services"][f"{kind}-{slug}"]) for kind in ("supernode", "clientapp")
        )
        assert "/keys/node.key" in supernode.keys() - clientapp.keys()
        assert {"/data", "/state"} <= clientapp.keys() - supernode.keys()


def test_a_clientapp_shares_a_network_with_its_supernode_only(compose):
    for slug in SLUGS:
        network = f"device-{slug}"
        assert compose["services"][f"clientapp-{slug}"]["networks"] == [network]
        members = {n for n, s in compose["services"].items() if network in s["networks"]}
        assert members == {f"clientapp-{slug}", f"supernode-{slug}"}
        assert compose["networks"][network] == {"internal": True}
    outside = [n for n, s in compose["services"].items() if "outside" in s["networks"]]
    assert outside == ["superlink"]
    assert compose["services"]["superlink"]["ports"] == ["127.0.0.1:8000:8000"]


def test_a_device_has_the_memory_of_its_profile(compose):
    limits = [compose["services"][f"clientapp-{slug}"]["mem_limit"] for slug in SLUGS]
    assert limits == [8_000_000_000, 3_000_000_000, 1_000_000_000]
    cpus = [compose["services"][f"clientapp-{slug}"]["cpus"] for slug in SLUGS]
    assert cpus == sorted(cpus, reverse=True)
    assert cpus[-1] < cpus[0]
