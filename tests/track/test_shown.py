"""How a run is shown: bars, lines, JSON or nothing, each where it belongs."""

import json
import sys
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from comigs.app.suites.tally import Tally
from comigs.cli.commands import app
from comigs.errors import BadInput
from comigs.store.eventjson import from_object
from comigs.store.events import Failed, RoundDone, Started
from comigs.store.passing import FolderMade
from comigs.track.notebook import LINES, Notebook, in_notebook

pytest_plugins = ("tests.fixtures",)


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def lines_of(folder):
    return (folder / "metrics.jsonl").read_text().splitlines()


def done(number):
    return RoundDone(number, 2, 0, 1.5, 30.0, 1.0, 2.0, 100.0, 10, 20)


@pytest.mark.slow
def test_json_is_every_event_on_standard_output_and_nothing_else(yaml_file, tmp_path):
    result = call("run", yaml_file, "--out", tmp_path, "--log", "json")
    assert (result.exit_code, result.stderr) == (0, "")
    told = [json.loads(line) for line in result.stdout.splitlines()]
    assert all(from_object(event) for event in told)
    assert told[0] == {"event": "folder", "folder": str(tmp_path)}
    kept = [line for line in result.stdout.splitlines() if line in lines_of(tmp_path)]
    assert kept == lines_of(tmp_path)
    assert len([event for event in told if event["event"] == "round started"]) == 3


def test_plain_is_lines_and_a_table(finished):
    result = call("watch", finished, "--log", "plain")
    assert [line.split(":")[0] for line in result.stderr.splitlines()] == [
        "comigs on ana, bo, cy", "round 1", "round 2", "round 3",
    ]  # fmt: skip
    assert "pretrained" in result.stdout and "report.html" in result.stdout


def test_rich_keeps_the_finished_rounds_above_its_bars(finished):
    shown = call("watch", finished, "--log", "rich").stderr
    assert "━" in shown
    assert all(shown.count(f"round {number}: ") == 1 for number in (1, 2, 3))


def test_quiet_is_the_folder_alone(finished):
    result = call("watch", finished, "--quiet")
    assert (result.stdout, result.stderr) == (f"{finished}\n", "")


def test_quiet_does_not_hide_an_error():
    result = call("run", "ruonds=2", "--quiet")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "did you mean rounds?" in result.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("run",),
        ("watch", "x"),
        ("compare", "quickstart"),
        ("sweep", "train.lr=1,2"),
        ("join", "x", "--data", "y"),
    ],
)
def test_two_ways_at_once_are_refused(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call(*command, "--quiet", "--log", "json")
    assert result.exit_code == 2
    assert result.stderr == "comigs: --log is json, and --quiet is given; give one of them\n"
    assert not list(tmp_path.iterdir())


def tell(tally):
    tally.say("2 runs")
    with tally.over(2) as done:
        done("comigs seed 1", None)
        done("local seed 1", "it broke")
    tally.result("a table")


def test_a_suite_is_told_in_lines_in_json_or_not_at_all(capsys):
    tell(Tally("plain"))
    told = capsys.readouterr()
    assert told.err == "2 runs\n1/2 comigs seed 1\nlocal seed 1 failed: it broke\n"
    assert told.out == "a table\n"
    tell(Tally("json"))
    told = capsys.readouterr()
    assert told.err == ""
    assert [json.loads(line) for line in told.out.splitlines()] == [
        {"event": "suite run", "run": "comigs seed 1", "done": 1, "of": 2},
        {"event": "suite run", "run": "local seed 1", "done": 2, "of": 2, "error": "it broke"},
    ]
    tell(Tally(quiet=True))
    assert capsys.readouterr() == ("", "")
    with pytest.raises(BadInput, match="--quiet is given"):
        Tally("rich", quiet=True)


@pytest.fixture
def cell(monkeypatch):
    """The output of a notebook's cell: what was drawn, from first to last."""
    drawn: list = []
    handle = SimpleNamespace(update=lambda shown, raw: drawn.append(shown))

    def display(shown, raw, display_id):
        assert not drawn, "it is one output"
        drawn.append(shown)
        return handle

    shell = SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display))
    return drawn


def test_a_notebook_has_one_output_with_bars_however_many_rounds(cell, tmp_path):
    assert in_notebook()
    notebook = Notebook()
    notebook.start(None, tmp_path)
    for event in (
        FolderMade(str(tmp_path)),
        Started("comigs", ["ana", "<b>o"], 300, 0),
        *map(done, range(1, 301)),
    ):
        notebook.event(event)
    notebook.end(finished=True)
    text, html = cell[-1]["text/plain"], cell[-1]["text/html"]
    assert "300/300" in text and "━" in text and str(tmp_path) in text
    assert len(text.splitlines()) <= LINES
    assert html.startswith("<pre") and "&lt;b&gt;o" in html and "<b>o" not in html


def test_a_notebook_says_how_an_interrupted_run_goes_on_and_keeps_the_newest_troubles(
    cell, tmp_path
):
    notebook = Notebook()
    notebook.start(None, tmp_path)
    notebook.event(FolderMade("runs/mine"))
    for number in range(50):
        notebook.event(Failed("ana", f"reason {number}", 0, number))
    notebook.end(finished=False)
    text = cell[-1]["text/plain"]
    assert "comigs run --resume runs/mine goes on" in text
    assert "reason 49" in text and "reason 20" not in text


def test_elsewhere_there_is_no_notebook():
    assert not in_notebook()
