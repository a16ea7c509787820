"""The wheel: what it puts on a machine clashes with nothing, and has all that a run needs."""

import os
import subprocess
import sys
import zipfile

import pytest

from tests.helpers import ROOT

RUN = """
from comigs.heap import own_process
own_process()  # libraries load as fast as for the command
import comigs, comigs_clients, comigs_server
print(comigs.__file__)
result = comigs.run("quickstart", ["local_steps=1", "batch_size=1", "log.eval_every=0",
    "data.train_tokens=600", "data.valid_tokens=300", "data.test_tokens=300"], rounds=1, out="run")
print(len(result.table), result.client(0).model() is not result.client(1).model())
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with the wheel's files."""
    folder = tmp_path_factory.mktemp("wheel")
    command = ["-m", "pip", "-qq", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    subprocess.run([sys.executable, *command, folder, ROOT], check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.mark.slow
def test_every_top_level_name_is_comigs_own(site):
    names = {path.name for path in site.iterdir() if not path.name.endswith(".dist-info")}
    assert names == {"comigs", "comigs_clients", "comigs_server"}


@pytest.mark.slow
def test_a_run_from_a_folder_with_packages_of_the_same_old_names(site, tmp_path):
    for package in ("clients", "experiments", "server"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise ImportError('not this one')\n")
    (tmp_path / "server.py").write_text("raise ImportError('not this one')\n")
    environment = os.environ | {"PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-c", RUN], cwd=tmp_path, env=environment, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(site / "comigs" / "__init__.py"), "4", "True"]


@pytest.mark.slow
def test_the_command_finds_its_presets_and_suites(site, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(site)}
    for words, known in ((["run", "no-such"], "paper, quickstart"), (["compare", "no"], "table1")):
        done = subprocess.run(
            [sys.executable, "-m", "comigs", *words],
            cwd=tmp_path, env=environment, text=True, capture_output=True,
        )  # fmt: skip
        assert done.returncode == 2
        assert known in " ".join(done.stderr.split())
