"""A device's ClientApp hands messages to a resident trainer, and outlives it."""

import errno
import io
import json
import os
import signal
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from comigs.errors import ComigsError
from comigs_clients import device
from comigs_clients.seam import told

pytestmark = pytest.mark.slow


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """What the device answers to a message."""
    monkeypatch.setattr(device, "TRAINER", "tests.clients.toy_trainer")
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    node = {"partition-id": 2, "num-partitions": 3, "state-dir": str(tmp_path)}
    seen = set()

    def ask(do="", timeout=None, run="toy"):
        config = {"flower": {"run": run}, "server": {"round_timeout": timeout}}
        record = ConfigRecord({"config": json.dumps(config), "do": do})
        message = Message(RecordDict({"config": record}), 1, "train")
        reply = device.answer(message, Context(1, 1, node, RecordDict(), {}))
        assert reply.metadata.reply_to_message_id == message.metadata.message_id
        about = dict(reply.content.config_records["about"])
        seen.add(about["pid"])
        return about

    ask.node = node
    yield ask
    for pid in seen:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_one_trainer_answers_all_messages_of_a_run(ask):
    first, second, other = ask(), ask(), ask(run="another")
    assert first == second
    assert first["client"] == 2
    assert other["pid"] != first["pid"]


def test_an_error_is_a_code_for_the_server_and_the_text_stays_in_the_log(ask, tmp_path):
    before = ask()
    with pytest.raises(ComigsError, match=r"^refused \(failed\)$"):
        ask("raise")
    assert ask() == before
    log = (tmp_path / "toy" / "trainer.log").read_text()
    assert log == "RuntimeError: no text for this client\n"


def test_a_trainer_that_dies_is_started_anew_and_the_message_redone(ask, tmp_path):
    before = ask()
    assert ask("die once")["pid"] != before["pid"]
    with pytest.raises(ComigsError, match=r"^refused \(trainer-died\)$"):
        ask("die")
    assert ask()["client"] == 2


def test_a_device_names_the_limit_that_its_trainer_died_of(ask, monkeypatch, capfd):
    killed = iter(range(9))
    monkeypatch.setattr(device, "memory_kills", lambda: next(killed))
    monkeypatch.setattr(device, "memory_limit", lambda: 1_500_000_000)
    with pytest.raises(ComigsError, match=r"^refused \(trainer-died\)$"):
        ask("die")
    assert "than its container has: mem_limit is 1,500 MB" in capfd.readouterr().err


def test_a_full_disk_has_a_code_and_a_line_that_names_the_folder(ask, tmp_path, monkeypatch, capfd):
    with pytest.raises(ComigsError, match=r"^refused \(disk-full\)$"):
        ask("fill")
    assert f"no space is left in {tmp_path / 'toy'}" in capfd.readouterr().err
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "trainer.lock")
    monkeypatch.setattr(device, "lock", lambda _: (_ for _ in ()).throw(full))
    with pytest.raises(ComigsError, match=r"^refused \(disk-full\)$"):
        ask()
    assert "No space left on device: 'trainer.lock'" in capfd.readouterr().err


def test_a_log_that_cannot_be_written_to_costs_no_answer(monkeypatch):
    class Full(io.StringIO):
        def write(self, _):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(sys, "stderr", Full())
    safetensors = RuntimeError("I/O error: No space left on device (os error 28)")
    assert str(told(safetensors)) == "refused (disk-full)"
    assert str(told(RuntimeError("else"))) == "refused (failed)"


def test_the_kernel_ends_a_trainer_before_the_process_that_tells_of_it(ask):
    scores = [Path(f"/proc/{pid}/oom_score").read_text() for pid in (ask()["pid"], "self")]
    assert int(scores[0]) > int(scores[1])


def test_a_trainer_that_hangs_is_killed(ask):
    before = ask()
    with pytest.raises(ComigsError, match=r"too-slow: server.round_timeout"):
        ask("hang", timeout=0.5)
    assert ask()["pid"] != before["pid"]


def test_the_device_s_policy_limits_the_time_too(ask, tmp_path):
    ask.node["policy"] = str(tmp_path / "device.yaml")
    (tmp_path / "device.yaml").write_text("hours: 0.001")
    before = ask()
    with pytest.raises(ComigsError, match=r"too-slow"):
        ask("hang")
    assert ask(timeout=60)["pid"] != before["pid"]


def test_a_trainer_that_cannot_start_says_why_on_the_device(ask, monkeypatch, capfd):
    monkeypatch.setattr(device, "TRAINER", "tests.clients.no_such_trainer")
    with pytest.raises(ComigsError, match=r"^refused \(trainer-failed\)$"):
        ask()
    assert "the trainer did not start: " in (log := capfd.readouterr().err)
    assert "no_such_trainer" in log


@pytest.mark.parametrize("run", ["../elsewhere", "/tmp/x", "", "a/b", ".hidden"])
def test_a_run_cannot_name_a_folder_elsewhere(ask, run, tmp_path):
    with pytest.raises(ComigsError, match=r"^refused \(bad-config: flower.run\)$"):
        ask(run=run)
    assert list(tmp_path.iterdir()) == []


def test_the_run_s_folder_is_nobody_else_s(ask, tmp_path):
    ask()
    assert stat.S_IMODE((tmp_path / "toy").stat().st_mode) == 0o700


def test_the_device_imports_no_torch():
    code = "import comigs_clients.device, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_device_takes_every_message_that_the_clientapp_takes():
    from comigs_clients.app import app

    assert set(device.app._registered_funcs) == set(app._registered_funcs)
