"""The commands: from a chat to a table of results; every bad input is one line."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from comigs.cli.commands import app
from tests.fixtures import made_up_text
from tests.prepare.made import jsonl, numbered

pytest_plugins = ("tests.fixtures",)


@pytest.fixture(autouse=True)
def silence(capfd):
    """Whatever is shown is shown by the command: no log or bar of a library beside it."""
    yield
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Where the commands are typed: the chats of two users."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    lines = made_up_text(3, 60).splitlines()
    rows = [
        {
            "user": f"user {i % 2}",
            "topic": "ab"[i % 3 == 0],
            "messages": [
                {"role": "user", "content": lines[i]},
                {"role": "assistant", "content": f"{lines[-i]} {i}"},
            ],
        }
        for i in range(60)
    ]
    jsonl(tmp_path / "chats.jsonl", rows)
    return tmp_path


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(*arguments):
    result = call(*arguments)
    assert isinstance(result.exception, SystemExit), result.exception
    assert (result.exit_code, result.stdout) == (2, "")
    [line] = result.stderr.splitlines()
    return line.removeprefix("comigs: ")


def test_from_a_chat_to_a_table_of_results(place, tiny_model):
    done = call(
        "data", "prepare", "chats.jsonl", "--by", "user", "--label", "topic", "--out", "my data"
    )
    assert done.exit_code == 0, done.output
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows[0] == ["client", "train", "valid", "test", "bytes", "labels"]
    assert rows[1][:4] == ["user_0", "24", "3", "3"] and rows[2][:4] == ["user_1", "24", "3", "3"]
    assert rows[1][5:] == ["a", "67%,", "b", "33%"]
    assert "60 rows read as messages, 60 examples kept" in done.stdout
    assert done.stdout.endswith("wrote my data; go on with:\n  comigs run data='my data'\n")

    shown = call("data", "describe", "my data", "--model", tiny_model)
    assert shown.exit_code == 0, shown.output
    assert [line.split()[2] for line in shown.stdout.splitlines()[1:7:3]] == ["24", "24"]
    assert "2 clients" in shown.stdout and "Jensen-Shannon" in shown.stdout

    small = (
        "data.seq_len=64",
        "rounds=1",
        "local_steps=1",
        "batch_size=2",
        "log.tensorboard=false",
    )
    run = call("run", "data=my data", f"model={tiny_model}", *small, "--out", "run")
    assert run.exit_code == 0, run.output
    assert "user_0" in run.stdout and "user_1" in run.stdout


def test_what_was_left_out_is_told(place):
    rows = [
        "{",
        *numbered(20, user=["ana"]),
        {"text": "", "user": "ana"},
        {"text": "x", "user": "bo"},
    ]
    (place / "rows").mkdir()
    jsonl(place / "rows" / "a.jsonl", [*rows, rows[1]])
    for name in ("b.jsonl.gz", "c.tsv", "notes.md", "LICENSE.txt"):
        (place / "rows" / name).touch()
    options = ("--by", "user", "--skip-damaged", "--min-examples", 3, "--out", "out")
    done = call("data", "prepare", "rows", *options)
    assert "24 rows read as text, 21 examples kept\n" in done.stdout
    for line in (
        "1 damaged, skipped",
        "1 empty, dropped",
        "1 duplicates of an earlier example, dropped",
        "1 clients with too few examples, left out",
        "1 examples that belong to no client, left out",
        "not read, of another kind: LICENSE.txt, b.jsonl.gz, c.tsv, ... (4 in all)",
    ):
        assert f"{line}\n" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("chats.jsonl", "it is not said who the clients are"),
        ("chats.jsonl --by nobody", "--by is 'nobody'; there is no such column"),
        ("chats.jsonl --clients 2 --partition idd", "did you mean iid?"),
        ("chats.jsonl --clients 2 --columns x", "--columns is 'x'"),
        ("nosuch.jsonl --clients 2", "there is no nosuch.jsonl"),
        ("somebody/something --clients 2", "cannot be loaded from the hub"),
        ("somebody/something --clients 2", "and give the folder"),
        (". --clients 2 --columns text=user --seed -1", "--seed is -1"),
        (". --clients 2 --split test", "--split is 'test'; . has none"),
    ],
)
def test_bad_input_is_one_line(place, arguments, words):
    assert words in refused("data", "prepare", *arguments.split(), "--out", "out")
    assert [path.name for path in place.iterdir()] == ["chats.jsonl"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("nosuch", "give a folder of text files or one of: domains"),
        ("multilingal", "did you mean multilingual?"),
        ("multilingual --model nosuch", "nosuch"),
    ],
)
def test_what_cannot_be_described_is_one_line(place, arguments, words):
    assert words in refused("data", "describe", *arguments.split())


@pytest.mark.slow
def test_without_the_libraries_it_says_what_to_install(place):
    script = """
        import sys
        from comigs.cli.commands import main
        sys.modules["datasets"] = None
        sys.argv = "comigs data prepare chats.jsonl --by user --out out".split()
        main()
    """
    lines = "\n".join(line[8:] for line in script.splitlines())
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.endswith("pip install 'comigs[data]'")
