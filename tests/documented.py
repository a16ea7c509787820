"""How the commands of README and docs are run: on less text and in fewer steps."""

import re
import shlex
from pathlib import Path

from typer.testing import CliRunner

from comigs.cli.commands import app
from comigs.threads import threads

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
SMALL = {
    "rounds": 1,
    "local_steps": 1,
    "batch_size": 2,
    "data.train_tokens": 600,
    "data.valid_tokens": 300,
    "data.test_tokens": 300,
}


def commands(text):
    """Each command once, whatever stands behind it as a comment."""
    lines = re.findall(r"^    comigs (.*)$", text, re.MULTILINE)
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


def check(arguments, folder):
    """Run a command, and see that it says what it is asked for."""
    output = run(arguments, folder)
    if arguments[0] == "run" and "--quiet" not in arguments:
        assert "pretrained" in output
    if arguments[0] == "generate":
        assert output.startswith(arguments[-1])
