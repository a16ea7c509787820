"""generate, chat and serve as commands."""

import logging
import socket
import threading
from dataclasses import replace

import pytest
import uvicorn
from typer.testing import CliRunner

import comigs
from comigs.cli.commands import app
from comigs.use.conversation import Conversation
from comigs.use.generate import open_stages
from tests.cli.test_commands import call, refused
from tests.data.chats import write_federation

pytest_plugins = ("tests.fixtures",)


@pytest.fixture(scope="module")
def chats(tree, tmp_path_factory):
    """A finished run of clients of chats."""
    place = tmp_path_factory.mktemp("chats")
    data = tree["data"] | {"name": str(write_federation(place / "data")), "seq_len": 48}
    return comigs.run(tree | {"data": data, "rounds": 1}, out=place / "run").folder


def test_greedy_text_does_not_depend_on_the_seed(finished):
    ask = ("generate", finished, "mira tolu", "--client", 2, "--tokens", 8, "--temperature", 0)
    assert call(*ask).stdout == call(*ask, "--seed", 5).stdout


def test_prompts_of_a_file_are_written_as_one_by_one(finished, tmp_path):
    path = tmp_path / "prompts.txt"
    prompts = ["mira", "sanke brifo zelt ando kypra", "no"]
    path.write_text("\n\n".join(prompts) + "\n")
    how = ("--client", 1, "--tokens", 8, "--repetition-penalty", 1.2)
    together = call("generate", finished, "--prompts", path, *how)
    alone = [call("generate", finished, prompt, *how).stdout for prompt in prompts]
    assert together.stdout == "\n".join(alone)


def test_a_stop_ends_the_text_and_is_not_written(finished):
    ask = ("generate", finished, "mira tolu", "--tokens", 20)
    whole = call(*ask).stdout
    word = whole.split()[4]
    assert call(*ask, "--stop", "no such", "--stop", word).stdout.rstrip("\n") == whole[
        : whole.index(word)
    ].rstrip("\n")


def test_base_generalist_and_mixture_stand_beside_each_other(finished):
    ask = ("generate", finished, "mira tolu", "--client", 2, "--tokens", 5)
    result = call(*ask, "--compare")
    assert result.exit_code == 0, result.output
    head = result.stdout.splitlines()[2]
    assert [name.strip() for name in head.strip("┃").split("┃")] == ["base", "generalist", "cy"]
    assert "generalist" not in call(*ask[:3], "--client", 0, "--compare").stdout  # it is all of ana


def test_who_was_trained_on_chats_is_asked_in_one(chats):
    result = call("generate", chats, "mira", "--tokens", 8)
    assert result.exit_code == 0, result.output
    assert "ana was trained on chats and is asked in one" in result.stderr
    text = call("generate", chats, "User: mira\nAssistant:", "--no-chat", "--tokens", 8)
    assert text.stderr == "" and text.stdout.startswith("User: mira\nAssistant:")
    assert text.stdout.removeprefix("User: mira\nAssistant:").strip() == result.stdout.strip()
    asked = call("generate", chats, "mira", "--chat", "--tokens", 8)
    assert (asked.stdout, asked.stderr) == (result.stdout, "")


def talk(folder, *lines):
    arguments = ["chat", str(folder), "--tokens", "6"]
    return CliRunner().invoke(app, arguments, input="".join(f"{line}\n" for line in lines))


def test_a_chat_is_remembered_reset_and_handed_over(chats):
    result = talk(
        chats, "mira", "tolu", "/reset", "mira", "/client cy", "mira", "/client 9", "/what"
    )
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    first, second = lines[1:3] if "Ctrl-D" in lines[0] else lines[2:4]
    assert lines.count(first) >= 2 and "forgotten" in lines
    assert first != second
    assert any(line.startswith("cy answers") for line in lines)
    assert "there is no client '9'; this run has 0 to 2" in result.stdout
    assert "Traceback" not in result.output


def test_the_oldest_turns_are_forgotten_where_the_context_is_full(chats):
    [stage] = open_stages(chats, [0])
    conversation = Conversation(stage, lambda own: replace(own, tokens=8, temperature=0))
    for _ in range(6):
        assert "".join(conversation.ask("mira tolu sanke brifo"))
    assert conversation.forgotten > 0
    assert len(conversation.chat) + conversation.forgotten == 12
    with pytest.raises(comigs.BadInput, match="context of 64"):
        list(conversation.ask("mira " * 80))
    assert len(conversation.chat) + conversation.forgotten == 12


def test_bad_use_is_one_line(finished, tmp_path):
    assert "give a prompt, or a file" in refused("generate", finished)
    assert "give a prompt, or a file" in refused(
        "generate", finished, "a", "--prompts", tmp_path / "p"
    )
    assert "cannot be read" in refused("generate", finished, "--prompts", tmp_path / "none.txt")
    (tmp_path / "empty.txt").write_text("\n\n")
    assert "holds no prompts" in refused("generate", finished, "--prompts", tmp_path / "empty.txt")
    assert "top_p is 0.0; it must be above 0" in refused("generate", finished, "a", "--top-p", 0)
    assert "stop is an empty text" in refused("generate", finished, "a", "--stop", "")
    assert "not a run folder" in refused("chat", tmp_path)
    piped = CliRunner().invoke(app, ["chat", str(finished), "--device", "cpu"], input=b"\xff\n")
    assert (piped.exit_code, piped.stderr) == (2, "comigs: the input is not UTF-8: b'\\xff\\n'\n")


def test_what_cannot_be_served_is_one_line(finished, monkeypatch):
    for wrong in ("", "ana,,cy"):
        assert f"--clients is '{wrong}'; give numbers, from 0, or names" in refused(
            "serve", finished, "--clients", wrong
        )
    unknown = refused("serve", finished, "--clients", "cy, anna", "--port", 0)
    assert "there is no client 'anna'" in unknown and "did you mean ana?" in unknown
    line = refused("serve", finished, "--host", "0.0.0.0")
    assert "can be reached by others: give a secret with --key or COMIGS_SERVE_KEY" in line
    monkeypatch.setenv("COMIGS_SERVE_KEY", "")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"--port {port} cannot be listened on" in refused("serve", finished, "--port", port)
    assert "this run has 0 to 2" in refused("serve", finished, "--clients", 3, "--port", 0)


def test_ctrl_c_ends_the_server_and_its_engine(finished, monkeypatch):
    def run(self, sockets):
        assert "comigs-engine" in [thread.name for thread in threading.enumerate()]
        raise KeyboardInterrupt

    closed = []
    handler = logging.Handler()
    monkeypatch.setattr(handler, "close", lambda: closed.append(handler))
    monkeypatch.setattr(uvicorn.Server, "run", run)
    result = call("serve", finished, "--clients", "2,0", "--port", 0)
    assert not closed, "handlers of others stay open"
    assert result.exit_code == 0, result.output
    assert "serving cy, ana, base, generalist" in result.stdout
    assert "comigs-engine" not in [thread.name for thread in threading.enumerate()]
