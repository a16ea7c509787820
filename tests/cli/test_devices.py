"""`comigs devices ...`: lists profiles, measures this machine, makes traces."""

import json

import pytest
import yaml
from typer.testing import CliRunner

from comigs.cli.commands import app
from comigs.config.load import load_config
from comigs.config.profiles import library, profiles_of
from comigs.costs.calibrate import Speed
from comigs.traces.windows import read_traces

pytest_plugins = ("tests.fixtures",)


def call(*arguments):
    result = CliRunner(env={"COLUMNS": "80"}).invoke(app, ["devices", *map(str, arguments)])
    return result.exit_code, result.output


def test_the_word_list_may_be_left_out(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("devices: {define: {mine: {like: board, source: measured at home}}}")
    assert call() == call("list")
    assert call(mine) == call("list", mine)
    assert "measured at home" in call(mine)[1]
    assert "calibrate" in call("--help")[1]


def test_traces_are_shown_by_hour_and_written(tmp_path):
    out = tmp_path / "traces.json"
    code, text = call("traces", "--clients", 50, "--days", 2, "--zones", 3, "--out", out)
    assert code == 0 and "50 devices, 2 days" in text and f"devices.traces={out}" in text
    shares = [float(line.split()[1].strip("%")) for line in text.splitlines()[1:25]]
    assert max(shares[1:5]) > 50 > 10 > max(shares[12:18])
    assert len(read_traces(out).devices) == 50


def test_published_traces_are_read(tmp_path):
    path, out = tmp_path / "scale.json", tmp_path / "traces.json"
    path.write_text(json.dumps({"3": {"active": [0], "inactive": [3600], "finish_time": 86400}}))
    code, text = call("traces", "--read", path, "--out", out)
    assert code == 0
    assert text.splitlines()[1].startswith("00  100.0%") and text.splitlines()[2] == "01    0.0%"
    assert read_traces(out).devices == {"3": [(0, 3600)]}


@pytest.mark.parametrize("given", [[], ["--clients", "1", "--read", "x.json"]])
def test_traces_are_made_up_or_read(given, tmp_path):
    code, text = call("traces", "--out", tmp_path / "t.json", *given)
    assert (code, text.count("\n")) == (2, 1)
    assert "give either --clients" in text


def test_a_place_that_cannot_be_written_is_told_before_anything_is_made(tmp_path):
    code, text = call("traces", "--clients", 10**9, "--out", tmp_path / "none" / "t.json")
    assert (code, text.count("\n")) == (2, 1)
    assert "t.json cannot be written" in text and "is no folder" in text


def test_what_is_measured_is_a_profile(tree, tmp_path, monkeypatch):
    """Each dtype by the steps of the project's own training, in that dtype."""
    timed = []

    def measured(client):
        timed.append((client.dtype, client.compute))
        return Speed({"float32": 2.5e9, "bfloat16": 5e8}[client.dtype], 0.0, 0.0)

    monkeypatch.setattr("comigs.costs.calibrate.calibrate", measured)
    monkeypatch.setattr("comigs.app.measure.free_memory", lambda device: 3_000_000_000)
    path, out = tmp_path / "my.yaml", tmp_path / "out.yaml"
    path.write_text(json.dumps(tree))
    code, text = call("calibrate", path, "--name", "old pc", "--like", "board", "--out", out)
    assert (code, text) == (0, f"wrote {out}\n")
    assert timed == [("float32", "float32"), ("bfloat16", "bfloat16")]
    profile = profiles_of(load_config(out).devices.define)["old pc"]
    assert profile.flops == {"float32": 2.5e9, "bfloat16": 5e8}
    assert profile.memory == 3_000_000_000
    assert (profile.up, profile.dropout) == (library()["board"].up, library()["board"].dropout)
    assert "1 threads" in profile.source and "as board, not measured" in profile.source
    printed = yaml.safe_load(call("calibrate", path)[1])
    assert list(printed["devices"]["define"]) == ["this-machine"]


@pytest.mark.parametrize(
    "given, words",
    [
        (["--like", "lap"], "which is not in the library"),
        (["--name", "a/b"], "--name is 'a/b'"),
        (["method=pretrained"], "method is 'pretrained', which trains nothing"),
    ],
)
def test_what_cannot_be_measured_is_one_line(given, words):
    code, text = call("calibrate", *given)
    assert code == 2 and text.count("\n") == 1 and words in text
