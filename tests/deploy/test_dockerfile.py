"""The Dockerfile: what it copies is there, everything has a version, nothing runs as root."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import comigs

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "docker" / "Dockerfile"
LINES = [
    line.strip()
    for line in DOCKERFILE.read_text("utf-8").replace("\\\n", " ").splitlines()
    if line.strip() and not line.startswith("#")
]


def arguments(instruction):
    return [line.split()[1:] for line in LINES if line.split()[0] == instruction]


def copied():
    """What comes from the build context."""
    own = [words for words in arguments("COPY") if not words[0].startswith("--from")]
    return [source for words in own for source in words[:-1]]


def test_a_linter_finds_nothing():
    here = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    if not (hadolint := shutil.which("hadolint", path=here)):
        pytest.skip("there is no hadolint")
    done = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_what_it_copies_is_in_the_build_context():
    context = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    for source in copied():
        assert (ROOT / source).exists(), source
        assert f"!{source}" in context, source


def test_it_copies_all_that_the_package_is_made_of():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    folders = {path.split("/")[0] for path in (*wheel["packages"], *wheel["force-include"])}
    wanted = {*folders, project["project"]["readme"], *project["project"]["license-files"]}
    assert wanted | {"pyproject.toml", "requirements.lock"} == set(copied())


def test_every_image_has_an_exact_version():
    stages = [words[2] for words in arguments("FROM") if words[1:2] == ["AS"]]
    for image, *_ in arguments("FROM"):
        if image not in stages and "${" not in image:
            assert re.fullmatch(r"[\w/]+:\d+\.\d+\.\d+[\w.-]*", image), image


@pytest.mark.parametrize("variant", ["cpu", "cuda"])
def test_there_is_a_stage_for_each_variant(variant):
    assert f"FROM python AS torch-{variant}" in LINES


def test_every_package_has_the_version_of_the_lock_file():
    for line in LINES:
        for install in re.findall(r"pip (?:--python \S+ +)?install[^&]*", line):
            assert "--constraint requirements.lock" in install
    assert not [line for line in LINES if "apt-get" in line]


def test_it_does_not_run_as_root():
    last = max(i for i, line in enumerate(LINES) if line.startswith("FROM"))
    users = [line.split()[1] for line in LINES[last:] if line.startswith("USER")]
    assert users == ["10001:10001"]


def test_it_asks_nobody_for_anything():
    settings = dict(word.split("=", 1) for words in arguments("ENV") for word in words)
    assert settings["FLWR_TELEMETRY_ENABLED"] == "0"
    assert settings["FLWR_DISABLE_UPDATE_CHECK"] == "1"
    assert settings["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
    assert settings["HF_HUB_OFFLINE"] == "1"


def test_the_commands_in_it_name_this_version():
    text = DOCKERFILE.read_text("utf-8")
    assert set(re.findall(r"comigs:([\d.]+)-", text)) == {comigs.__version__}
