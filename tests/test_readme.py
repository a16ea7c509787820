"""Every command and line of Python in README and docs runs, on less text and fewer steps."""

import json
import re
import shlex
import shutil
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster
from typer.testing import CliRunner

from comigs.backbone.names import BUNDLED
from comigs.cli.commands import app
from comigs.threads import threads

pytest_plugins = ("tests.fixtures",)
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_plans")]

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
NAMES = (
    *("tutorial", "data", "simulate", "settings", "privacy", "methods", "results", "costs"),
    *("export", "talk"),
)
PAGES = [ROOT / "docs" / f"{name}.md" for name in NAMES]
TEXT = "\n".join([README, *(page.read_text() for page in PAGES)])
SMALL = {
    "rounds": 1,
    "local_steps": 1,
    "batch_size": 2,
    "data.train_tokens": 600,
    "data.valid_tokens": 300,
    "data.test_tokens": 300,
}


def commands():
    """Each command once, whatever stands behind it as a comment."""
    lines = re.findall(r"^    comigs (.*)$", TEXT, re.MULTILINE)
    return [*map(list, dict.fromkeys(tuple(shlex.split(line, comments=True)) for line in lines))]


def run(arguments, folder):
    small = [f"{key}={value}" for key, value in SMALL.items()]
    if arguments[0] == "run" and "--resume" not in arguments:
        # Beside `comigs run engine=ray` itself, one worker process that loads libraries is enough.
        one = ["engine.workers=1"] if {"engine=ray"} < set(arguments[1:]) else []
        arguments = [*arguments, *one, *small, "--out", str(folder)]
    if arguments[0] == "plan" or arguments[:2] == ["devices", "calibrate"]:
        arguments = [*arguments, *small]
    if arguments[0] == "compare":  # one cell of the grid
        cell = ["data.name=multilingual", "data.target=in_distribution", "seed=1"]
        arguments = [*arguments, *small, *cell, "--out", str(folder)]
    if arguments[0] == "join":
        arguments = [*arguments[:-1], str(folder), *small]
    if arguments[0] == "sweep":
        arguments = [*arguments[:-1], str(folder), *small]
    if arguments[:2] == ["data", "prepare"]:
        arguments = [*arguments[:-1], str(folder)]
    with threads(1):
        done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, (arguments, done.output)
    return done.output


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the user's own text and model, and two finished runs."""
    place = tmp_path_factory.mktemp("readme")
    (place / "my-folder").mkdir()
    for client in ("anna", "ben"):
        text = "".join(f"{client} wrote line {i} of this text.\n" for i in range(600))
        (place / "my-folder" / f"{client}.txt").write_text(text)
    shutil.copy(place / "my-folder" / "anna.txt", place / "new.txt")
    shutil.copytree(BUNDLED / "comigs-tiny", place / "my-model")
    shutil.copytree(place / "my-folder", place / "authors")
    with (place / "chats.jsonl").open("w") as chats, (place / "qa.csv").open("w") as answers:
        answers.write("question,answer\n")
        for i in range(400):
            turns = [("user", f"What is {i} + {i}?"), ("assistant", f"{i} + {i} is {2 * i}.")]
            messages = [{"role": role, "content": content} for role, content in turns]
            chat = {"user": f"u{i % 2}", "topic": "abc"[i % 3], "messages": messages}
            chats.write(json.dumps(chat) + "\n")
            answers.write(f"{turns[0][1]},{turns[1][1]}\n")
    question = {"question": "Il sole", "choices": ["e la luna", "non c'è"], "answer": 0}
    (place / "questions.jsonl").write_text(json.dumps(question) + "\n")
    run(
        ["data", "prepare", str(place / "chats.jsonl"), "--by", "user", "--out", ""],
        place / "my-data",
    )
    simulate = (ROOT / "docs" / "simulate.md").read_text()
    (mine,) = re.findall(r"```yaml\n(devices:.*?)```", simulate, re.DOTALL)
    (place / "mine.yaml").write_text(mine)
    run(["devices", "traces", "--clients", "4", "--out", str(place / "traces.json")], place)
    run(["run"], place / "FOLDER")
    for name in ("FOLDER1", "FOLDER2", "runs/first", "runs/second"):
        shutil.copytree(place / "FOLDER", place / name)
    return place


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


@pytest.mark.parametrize("arguments", commands(), ids=" ".join)
def test_readme_commands_run(arguments, place, tmp_path, monkeypatch):
    monkeypatch.chdir(place)
    with cluster(monkeypatch) if "ray.address=auto" in arguments else nullcontext():
        output = run(arguments, tmp_path / "out")
    if arguments[0] == "run" and "--quiet" not in arguments:
        assert "pretrained" in output
    if arguments[0] == "generate":
        assert output.startswith(arguments[-1])


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
