"""Making a project, adding to it and renewing it: keys, permissions, the clients' own text."""

import json
import os
import ssl
import subprocess
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store
from flwr.cli.build import build_fab_from_disk
from flwr.cli.supernode.register import try_load_public_key
from flwr.common.constant import FAB_CONFIG_FILE
from typer.testing import CliRunner

import comigs
from comigs.cli.commands import app
from comigs.config.load import load_config
from comigs.deploy.flowerapp import BUNDLE
from comigs.deploy.keys import expiry
from tests.fixtures import made_up_text


def call(*arguments):
    return CliRunner().invoke(app, ["deploy", *map(str, arguments)])


def done(*arguments):
    result = call(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*arguments):
    result = call(*arguments)
    assert result.exit_code == 2, result.output
    [line] = result.stderr.splitlines()
    return line


def files(folder):
    """Content by path."""
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def roster(folder):
    return json.loads((folder / "data" / "clients.json").read_text())


@pytest.fixture
def texts(tmp_path):
    folder = tmp_path / "texts"
    (folder / "bo").mkdir(parents=True)
    for i, name in enumerate(("ana.txt", "bo/train.txt", "bo/valid.txt", "bo/test.txt", "cy.txt")):
        (folder / name).write_text(made_up_text(i), encoding="utf-8")
    return folder


@pytest.fixture
def project(texts, tmp_path):
    folder = tmp_path / "project"
    done("init", folder, "--clients", 2, "--data", texts, "--devices", "laptop,board")
    return folder


@pytest.mark.parametrize(
    "command", ["init", "add-client", "register", "rotate", "check", "kubernetes"]
)
def test_every_command_has_help(command):
    assert "Usage:" in done(command, "--help")


def test_a_device_holds_its_own_text_and_everybodys_name(project, texts):
    held = {path.name: set(files(path / "data")) for path in (project / "devices").iterdir()}
    assert held == {
        "ana": {Path("clients.json"), Path("device.yaml"), Path("ana.txt")},
        "bo": {
            *map(Path, ("clients.json", "device.yaml", "bo/train.txt", "bo/valid.txt")),
            Path("bo/test.txt"),
        },
    }
    assert set(files(project / "server" / "data")) == {Path("clients.json")}
    for place in ("server", "devices/ana", "devices/bo"):
        assert roster(project / place) == ["ana", "bo"]
    assert (project / "devices/ana/data/ana.txt").read_text() == (texts / "ana.txt").read_text()


def test_what_is_private_is_for_its_owner_only(project):
    assert project.stat().st_mode & 0o777 == 0o700
    private = [p for p in project.rglob("*") if {"keys", "ca", "state"} & set(p.parts[-2:])]
    assert len(private) > 12
    for path in private:
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path
    user = json.loads((project / "project.json").read_text())["user"]
    assert user.split(":")[0] != "0"
    assert (project / "devices/ana/keys/node.key").stat().st_uid == int(user.split(":")[0])


def test_git_takes_nothing_private(project):
    subprocess.run(["git", "init", "--quiet", project], check=True)
    (project / "flwr" / "source").write_text("written by Flower")
    environment = os.environ | {"GIT_CONFIG_COUNT": "0"}
    listed = subprocess.run(
        ["git", "ls-files", "--others", "--exclude-standard"],
        cwd=project, env=environment, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert set(listed) == {
        ".gitignore", "app/pyproject.toml", "compose.yaml", "flwr/config.toml", "project.json",
        "run.toml",
        "run.yaml",
    }  # fmt: skip


def test_the_server_certificate_is_good_for_its_names(project):
    authority = x509.load_pem_x509_certificate((project / "ca/ca.crt").read_bytes())
    own = x509.load_pem_x509_certificate((project / "server/keys/server.crt").read_bytes())
    trusted = PolicyBuilder().store(Store([authority]))
    for name in ("superlink", "localhost"):
        trusted.build_server_verifier(x509.DNSName(name)).verify(own, [])
    with pytest.raises(x509.verification.VerificationError):
        trusted.build_server_verifier(x509.DNSName("elsewhere")).verify(own, [])
    names = own.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(a) for a in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(project / "server/keys/server.crt", project / "server/keys/server.key")


def test_flower_takes_the_public_keys_and_each_device_has_its_own(project):
    keys = {try_load_public_key(p) for p in project.glob("devices/*/keys/node.pub")}
    assert len(keys) == 2
    secrets = [p.read_bytes() for p in project.rglob("superexec.secret")]
    assert len(set(secrets)) == len(secrets) == 3


def test_certificates_last_as_long_as_asked_for(project, tmp_path, texts):
    for folder, days in ((project, 365), (tmp_path / "short", 10)):
        if days == 10:
            said = done("init", folder, "--clients", 1, "--data", texts, "--days", days)
            assert "without a device: bo, cy; comigs deploy add-client adds the next" in said
        for name in ("ca/ca.crt", "server/keys/server.crt"):
            assert expiry(folder / name).date() == (datetime.now(UTC) + timedelta(days)).date()


def test_the_bundle_is_thin_and_what_it_runs_is_a_configuration(project):
    assert len(build_fab_from_disk(project / "app")) < 5000
    bundle = tomllib.loads((project / "app" / FAB_CONFIG_FILE).read_text())
    assert bundle["project"]["version"] == comigs.__version__
    run = tomllib.loads((project / "run.toml").read_text())
    assert run.keys() == bundle["tool"]["flwr"]["app"]["config"].keys()
    config = load_config(json.loads(run["config"]))
    assert config == load_config(project / "run.yaml", ["flower.run=first"])
    assert config.data.name == "/data"
    assert config.engine.name == "flower"
    assert config.clients is None
    connection = tomllib.loads((project / "flwr/config.toml").read_text())["superlink"]
    assert Path(connection[connection["default"]]["root-certificates"]).is_file()


def test_a_client_that_is_added_comes_last_and_changes_nobody(project, texts):
    before = files(project)
    assert "added cy: phone-high" in done("add-client", project)
    (texts / "aa.txt").write_text(made_up_text(9))
    done("add-client", project, "--text", texts / "aa.txt", "--device", "tablet")
    after = files(project)
    for place in ("server", *(f"devices/{name}" for name in ("ana", "bo", "cy", "aa"))):
        assert roster(project / place) == ["ana", "bo", "cy", "aa"]
    changed = {path.name for path, content in before.items() if after[path] != content}
    assert changed == {"clients.json", "compose.yaml", "project.json"}
    text = (project / "compose.yaml").read_text()
    for number, name in enumerate(("ana", "bo", "cy", "aa")):
        assert f"supernode-{name}:" in text
        assert f"--node-config=partition-id={number} " in text


def test_rotation_renews_every_key_and_nothing_else(project):
    (project / "devices/ana/keys/node.id").write_text("7")
    before = files(project)
    shown = done("rotate", project, "--days", 20)
    assert "docker compose up -d --force-recreate" in shown
    assert f"until {datetime.now(UTC) + timedelta(20):%Y-%m-%d}" in shown
    after = files(project)
    assert after.keys() == before.keys()
    same = {path for path in before if after[path] == before[path]}
    keys = {p for p in before if {"keys", "ca"} & set(p.parts)} - {Path("devices/ana/keys/node.id")}
    assert not keys & same
    assert {path.name for path in before.keys() - keys - same} == {"project.json"}
    assert call("check", project).exit_code == 1  # 20 days are few


def test_check_finds_what_is_wrong(project):
    assert "valid until" in done("check", project)
    (project / "ca/ca.key").chmod(0o644)
    (project / "devices/bo/keys/node.key").unlink()
    moved = project.rename(project.with_name("elsewhere"))
    result = call("check", moved)
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert len(lines) == 3
    for line, words in zip(
        lines,
        ("node.key is missing", "has mode 0644; chmod 600 it", "does not name"),
        strict=True,
    ):
        assert words in line


def test_a_device_s_policy_stays_as_its_owner_wrote_it_and_is_checked(project):
    policy = project / "devices/ana/data/device.yaml"
    assert policy.stat().st_mode & 0o777 == 0o600
    policy.write_text("threads: 2\nthread: 3\n")
    (project / "app" / "pyproject.toml").write_text(BUNDLE.replace("comigs_server.app", "old.app"))
    done("rotate", project)
    assert (project / "app" / "pyproject.toml").read_text() == BUNDLE
    done("add-client", project)
    assert policy.read_text() == "threads: 2\nthread: 3\n"
    assert (project / "devices/cy/data/device.yaml").is_file()
    result = call("check", project)
    assert result.exit_code == 1
    assert "ana/data/device.yaml: unknown key thread; did you mean threads?" in result.stdout
    text = (project / "compose.yaml").read_text()
    assert text.count('policy="/data/device.yaml"') == 3


def test_bad_input_is_one_line_and_writes_nothing(texts, project, tmp_path):
    new, before = tmp_path / "new", files(project)
    init = ("init", new, "--data", texts, "--clients")
    assert "--clients is 4; " in refused(*init, 4)
    assert "--clients is 0; it must be from 1 to 10000" in refused(*init, 0)
    assert "--days is 0; it must be from 1 to 36500" in refused(*init, 1, "--days", 0)
    assert "--port is 0; it must be between" in refused(*init, 1, "--port", 0)
    assert "did you mean laptop?" in refused(*init, 1, "--devices", "latop")
    assert "2 profiles; give one for each of the 3" in refused(*init, 3, "--devices", "board,board")
    assert "is not an empty folder" in refused("init", project, "--clients", 1, "--data", texts)
    assert "give a folder of text files" in refused("init", new, "--clients", 1, "--data", "no")
    for i, names in enumerate((("cy", "CY!"), ("ana", "!!"))):
        odd = tmp_path / f"odd{i}"
        odd.mkdir()
        for name in names:
            (odd / f"{name}.txt").write_text(made_up_text(3))
    init = ("init", new, "--clients", 2, "--data")
    assert "would both be supernode-cy" in refused(*init, tmp_path / "odd0")
    assert "has no letter a-z or digit" in refused(*init, tmp_path / "odd1")
    assert not new.exists()
    for command in ("add-client", "rotate", "check", "register", "kubernetes"):
        assert "holds no project.json" in refused(command, tmp_path)
    assert "a client 'ana' already" in refused("add-client", project, "--text", texts / "ana.txt")
    assert "does not exist" in refused("add-client", project, "--text", texts / "zoe.txt")
    assert files(project) == before
    (project / "project.json").write_text("{}")
    assert "project.json is damaged" in refused("check", project)


@pytest.fixture
def flwr(project, monkeypatch):
    """Stands for Flower's command: answers `replies` in turn, and notes what it was asked."""
    asked, replies = [], []

    def run(command, **options):
        asked.append(command[2:])
        assert options["env"]["FLWR_HOME"] == str(project / "flwr")
        return subprocess.CompletedProcess(command, 0, stdout=replies.pop(0), stderr="")

    monkeypatch.setattr("comigs.deploy.flowercli.subprocess.run", run)
    return asked, replies


def test_registering_without_a_superlink_says_what_to_start(project, flwr):
    flwr[1].append('Using it\n{"success": false, "error-message": "nobody\\nanswers"}')
    result = call("register", project)
    assert result.exit_code == 1
    assert "ana could not be registered (nobody answers)" in result.stderr
    assert "docker compose up -d" in result.stderr


def test_a_renewed_key_takes_the_place_of_the_old_one(project, flwr):
    asked, replies = flwr
    (project / "devices/ana/keys/node.id").write_text("7\n")
    known = '{"success": false, "error-message": "[code: 23] Public key already in use."}'
    replies += ['{"success": true, "node-id": 8}', '{"success": true}', known]
    shown = done("register", project)
    assert shown.splitlines() == ["ana: registered as node 8", "bo: was registered before"]
    assert [words[:2] for words in asked] == [
        ["register", str(project / "devices/ana/keys/node.pub")],
        ["unregister", "7"],
        ["register", str(project / "devices/bo/keys/node.pub")],
    ]
    assert (project / "devices/ana/keys/node.id").read_text() == "8\n"
