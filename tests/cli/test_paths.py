"""Every path that a command takes may begin with ~, also where no shell has expanded it."""

from pathlib import Path

import click
import pytest
import typer
from typer.testing import CliRunner

import comigs
from comigs.cli.commands import app

pytest_plugins = ("tests.fixtures",)


def path_parameters(command, name=""):
    if isinstance(command, click.Group):
        for word, inner in command.commands.items():
            yield from path_parameters(inner, f"{name} {word}")
    for each in command.params:
        if isinstance(each.type, click.Path):
            yield f"{name} {each.name}".strip(), command, each


PARAMETERS = {name: (c, p) for name, c, p in path_parameters(typer.main.get_command(app))}


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_tilde_is_the_home_folder(name, monkeypatch):
    monkeypatch.setenv("HOME", "/somebody's home")
    command, parameter = PARAMETERS[name]
    context = click.Context(command)
    given = ["~/x"] if parameter.nargs == -1 or parameter.multiple else "~/x"
    value = parameter.process_value(context, given)
    assert value in (Path("/somebody's home/x"), [Path("/somebody's home/x")])


def test_there_are_paths_to_look_at():
    assert {"run out", "run resume", "export to", "report runs", "deploy init folder"} <= set(
        PARAMETERS
    )


def test_a_home_that_nobody_has_is_one_line():
    result = CliRunner().invoke(app, ["report", "~nobody-of-this-name/x"])
    assert result.exit_code == 2
    assert "no home folder is known" in result.output


def test_the_python_api_takes_it_too(tree, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    tree = tree | {"rounds": 1, "local_steps": 1}
    assert comigs.run(tree, out="~/mine").folder == tmp_path / "mine"
    assert comigs.app.run.resume("~/mine").folder == tmp_path / "mine"
    assert not (tmp_path / "~").exists()
