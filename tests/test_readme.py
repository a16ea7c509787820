"""Every command and line of Python in the README runs, and what it links to is there."""

import re
from contextlib import contextmanager, nullcontext

import pytest
from ray.cluster_utils import Cluster

from comigs.threads import threads
from tests.documented import README, ROOT, SMALL, check, commands

pytest_plugins = ("tests.fixtures", "tests.place")
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_plans")]


@contextmanager
def cluster(monkeypatch):
    """A Ray cluster of one node, where `ray.address=auto` finds it."""
    monkeypatch.setenv("RAY_worker_niceness", "0")
    head = {"num_cpus": 2, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    try:
        yield
    finally:
        cluster.shutdown()


@pytest.mark.parametrize("arguments", commands(README), ids=" ".join)
def test_readme_commands_run(arguments, place, tmp_path, monkeypatch):
    monkeypatch.chdir(place)
    with cluster(monkeypatch) if "ray.address=auto" in arguments else nullcontext():
        check(arguments, tmp_path / "out")


def test_readme_python_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    data = {key.removeprefix("data."): v for key, v in SMALL.items() if key.startswith("data.")}
    small = f"rounds=1, local_steps=1, batch_size=2, data={data | {'name': 'multilingual'}}"
    code = code.replace('"comigs/models', f'"{ROOT}/comigs/models').replace("rounds=3", small)
    names: dict = {}
    with threads(1):
        exec(code, names)
    assert len(names["result"].table) == 4
    assert (tmp_path / "folder" / "generalist_0" / "adapter_model.safetensors").exists()


def test_readme_is_short_and_every_link_leads_somewhere():
    assert len(README.splitlines()) <= 130
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for link in re.findall(r"\]\((?!http|#)([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), (page.name, link)


def test_readme_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^    make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
