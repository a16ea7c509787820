"""The executor: it takes one kind of task, and forks it from a process that is ready."""

import io
import json
import logging
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from flwr.supercore.constant import TaskType
from flwr.supercore.superexec import run_superexec
from flwr.supercore.superexec.executor import ExecutionSpec

from comigs_clients.executor import TOLD, ForkingExecutor, of_thread, plain

FORKS = """
import io, os, sys
from comigs_clients.executor import nursery
def task():
    os.write(1, f"{' '.join(sys.argv[1:])} {os.getppid()}\\n".encode())  # at once
    os._exit(0)
print(os.getpid(), flush=True)
nursery(io.StringIO('["a", "b"]\\n["c"]\\n'), task)
"""


def spec(**changes):
    given = {
        "task_type": TaskType.CLIENT_APP, "runtime_api_address": "node:9094", "token": "secret",
        "insecure": False, "root_certificates_path": "/ca.crt", "parent_pid": 1, "task_id": 7,
        "runtime_dependency_install": False, "suppress_output": False,
    }  # fmt: skip
    return ExecutionSpec(**given | changes)


def launched(**changes):
    orders = io.StringIO()
    ForkingExecutor(TaskType.CLIENT_APP, orders).launch(spec(**changes))
    return json.loads(orders.getvalue())


def test_a_task_is_started_as_flower_starts_it():
    common = ["--runtime-api-address", "node:9094", "--token", "secret", "--parent-pid", "1"]
    assert launched() == [*common, "--root-certificates", "/ca.crt"]
    assert launched(insecure=True, root_certificates_path=None) == [*common, "--insecure"]


def test_a_device_takes_no_other_kind_of_task():
    executor = ForkingExecutor(TaskType.CLIENT_APP, io.StringIO())
    assert executor.get_eligible_capacity(set(TaskType)) == ({TaskType.CLIENT_APP}, set())


def test_flower_asks_for_its_executor_by_the_name_that_is_replaced(monkeypatch):
    class AskedError(Exception):
        pass

    def get_executor(*_, **__):
        raise AskedError

    monkeypatch.setattr(run_superexec, "get_executor", get_executor)
    with pytest.raises(AskedError):
        run_superexec.run_superexec("127.0.0.1:1", insecure=True)


@pytest.mark.slow
def test_each_order_is_a_process_of_its_own_with_its_arguments():
    done = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, check=True)
    pid, *tasks = done.stdout.split("\n")
    assert sorted(filter(None, tasks)) == [f"a b {pid}", f"c {pid}"]


def test_an_executor_whose_nursery_has_died_ends():
    read, write = os.pipe()
    os.close(read)
    executor = ForkingExecutor(TaskType.CLIENT_APP, os.fdopen(write, "w"))
    with pytest.raises(SystemExit, match="has died"):
        executor.launch(spec())


def test_the_end_of_a_task_is_one_line_and_other_errors_are_whole(capsys):
    over = OSError("Client error '401 Unauthorized' for url 'http://node/v1/pull'")
    lines = []
    for error in (over, OSError("disk")):
        told = logging.makeLogRecord({"msg": "%s raised", "args": ("App",)})
        told.exc_info = (OSError, error, None)
        assert plain(told)
        lines.append(logging.Formatter().format(told))
    assert lines[0] == TOLD
    assert lines[1].startswith("App raised\nOSError: disk")
    of_thread(SimpleNamespace(exc_value=over))
    assert capsys.readouterr().err == TOLD + "\n"
