"""What a user takes along of a finished run."""

import pytest
from typer.testing import CliRunner

import comigs
from comigs.cli.commands import app

pytest_plugins = ("tests.fixtures",)


@pytest.mark.parametrize("method", ["flora", "fedex-lora"])
@pytest.mark.parametrize("which", [[], ["--generalist-only"]])
def test_experts_without_their_corrections_are_not_exported(tree, tmp_path, method, which):
    experts = tree["experts"] | {"dropout": 0.0}
    comigs.run(tree | {"method": method, "experts": experts, "rounds": 2}, out=tmp_path / "run")
    command = ["export", str(tmp_path / "run"), "--to", str(tmp_path / "to"), *which]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2
    assert "corrections of the base weights" in result.output
    assert not (tmp_path / "to").exists()
