"""The examples of docs/extend.md work as they stand there."""

import importlib
import re
import shlex
from pathlib import Path

import pytest
import yaml

import comigs
from comigs.config.load import load_config
from comigs.config.strategies import STRATEGIES
from comigs.methods import own_methods
from tests.helpers import events

pytest_plugins = ("tests.fixtures",)

TEXT = (Path(__file__).parents[1] / "docs" / "extend.md").read_text()
CODE = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
NAMES = re.findall(r"^`(comigs/\S+\.py)`\n\n```python$", TEXT, re.MULTILINE)
FILES = dict(zip(NAMES, [code for code in CODE if code.startswith('"""')], strict=True))
[ROW] = [code for code in CODE if "STRATEGIES[" in code]
COMMANDS = [
    shlex.split(line)[2:] for line in re.findall(r"^    (comigs run .*)$", TEXT, re.MULTILINE)
]


@pytest.fixture
def extended(tmp_path, monkeypatch):
    """The files of the page lie where they belong, for this test."""
    for name, source in FILES.items():
        place = Path(name)
        package = importlib.import_module(".".join(place.parent.parts))
        home = tmp_path / "more" / place.parent
        home.mkdir(parents=True, exist_ok=True)
        (home / place.name).write_text(source)
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(home)])
    before = dict(STRATEGIES)
    exec(compile(ROW, "docs/extend.md", "exec"), {})
    own_methods.cache_clear()
    yield
    own_methods.cache_clear()
    STRATEGIES.clear()
    STRATEGIES.update(before)


@pytest.fixture
def equal(tree):
    return tree | {"experts": {"specialists": 1, "rank": 2}}


def test_the_page_has_a_file_for_every_command():
    assert len(FILES) >= 4 and len(COMMANDS) >= 4


@pytest.mark.parametrize("settings", COMMANDS, ids=" ".join)
def test_what_the_page_adds_runs(settings, extended, equal, tmp_path):
    config = load_config(equal | {"log": {"tensorboard": False, "eval_every": 1}}, settings)
    folder = comigs.run(equal, settings, out=tmp_path / "run").folder
    assert [event["clients"] for event in events(folder, "round")] == [3] * config.rounds
    assert len(events(folder, "final")) == 3


def test_the_predicted_bytes_of_an_added_rule_are_those_that_travel(extended, equal, tmp_path):
    settings = ["method=comigs-median"]
    _, plan = comigs.app.run.plan(equal, settings)
    folder = comigs.run(equal, settings, out=tmp_path / "run").folder
    moved = [(row["bytes_up"], row["bytes_down"]) for row in events(folder, "final")]
    assert moved == [(client.up_run, client.down_run) for client in plan.clients]


def test_the_device_of_the_page_is_one():
    [block] = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    config = load_config(yaml.safe_load(block))
    assert config.devices.define["old-phone"].memory == 300e6
