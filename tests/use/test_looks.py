"""Test text of finished runs on their page."""

import pytest
from typer.testing import CliRunner

import comigs
from comigs.cli.commands import app
from comigs.data.corpus import read_split
from comigs.use.looks import look_at

pytest_plugins = ("tests.fixtures",)


@pytest.fixture(scope="module")
def finished(tree, tmp_path_factory):
    folder = tmp_path_factory.mktemp("looks") / "run"
    comigs.run(tree | {"rounds": 1}, out=folder)
    return folder


@pytest.mark.slow
def test_every_client_s_view_is_of_its_own_model_and_text(finished, federation):
    looks = look_at([finished], 40)
    assert looks.missing == []
    assert [view.name for view in looks.views] == ["ana", "bo", "cy"]
    assert [view.trace.gates.shape for view in looks.views] == [(2, 32, n) for n in (1, 2, 4)]
    for view in looks.views:
        assert len(view.pieces) == 32
        assert "".join(view.pieces[:16]) in read_split(str(federation), view.name, "test")
    assert [view.trace.routed for view in looks.views] == [False, True, True]


def test_several_runs_share_the_room_and_what_is_not_finished_says_so(finished, tmp_path):
    (tmp_path / "config.yaml").write_text((finished / "config.yaml").read_text())
    looks = look_at([finished, tmp_path], 16)
    assert looks.views[0].name == "run: ana"
    assert "is not finished yet" in looks.missing[0]
    config = (tmp_path / "config.yaml").read_text().replace("name: inline", "name: flower")
    (tmp_path / "config.yaml").write_text(config)
    assert look_at([tmp_path], 16).missing == [
        f"{tmp_path}: its models and texts are on the devices"
    ]


def test_the_command_writes_the_page_where_it_is_told(finished, tmp_path):
    page = tmp_path / "page.html"
    before = (finished / "report.html").read_bytes()
    result = CliRunner().invoke(app, ["report", str(finished), "--out", str(page)])
    assert result.exit_code == 0, result.output
    assert '<script type="application/json" id="token-data">' in page.read_text()
    assert (finished / "report.html").read_bytes() == before
    plain = CliRunner().invoke(app, ["report", str(finished), "--tokens", "0"])
    assert plain.exit_code == 0 and "token-data" not in (finished / "report.html").read_text()
    nowhere = CliRunner().invoke(app, ["report", str(finished), "--out", str(tmp_path / "a/b")])
    assert nowhere.exit_code == 2 and "is no folder" in nowhere.output
    nothing = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert nothing.exit_code == 2 and "not a run folder" in nothing.output


@pytest.mark.parametrize("method", ["local", "comigs-2s", "pretrained", "flora", "apfl"])
def test_methods_of_every_kind_have_a_view(tree, tmp_path, method):
    experts = tree["experts"] | {"dropout": 0.0, "specialists": 1}
    comigs.run(tree | {"method": method, "rounds": 1, "experts": experts}, out=tmp_path / "run")
    looks = look_at([tmp_path / "run"], 16)
    assert len(looks.views) == 3 and looks.missing == []
