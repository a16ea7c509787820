"""Flower's executor, with each task forked from a process that has Flower loaded.

    python -m comigs_clients.executor clientapp --runtime-api-address supernode:9094 ...

What follows `clientapp` or `serverapp` is for `flower-superexec`. Left to itself that starts Python
for each task, and the task is given out again if it does not call back within 30 seconds. To load
Flower takes two seconds of processor time: too long for a small share of a busy machine.
"""

import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from typing import IO

from flwr.supercore.cli import flower_superexec
from flwr.supercore.constant import TaskType
from flwr.supercore.superexec import run_superexec
from flwr.supercore.superexec.executor import ExecutionSpec, LaunchResult, SubprocessExecutor

from comigs.heap import own_process

TASKS = {
    "clientapp": (TaskType.CLIENT_APP, "flwr.supernode.cli", "flwr_clientapp"),
    "serverapp": (TaskType.SERVER_APP, "flwr.superlink.cli", "flwr_serverapp"),
}
OVER = "401 Unauthorized"  # in errors about a task that is not this process's any more
TOLD = (
    "This task is over: it was stopped, or given out again because it took more than 30 seconds to"
    " start or was not heard of for 60. Then the machine is too busy, or the device's cpus too few."
)


class ForkingExecutor(SubprocessExecutor):
    """Tells a `nursery` what to start.

    Args:
        kind: the only tasks that are taken.
        orders: where the nursery reads.
    """

    def __init__(self, kind: TaskType, orders: IO[str]) -> None:
        self._kind, self._orders = kind, orders

    def get_eligible_capacity(
        self, supported_task_types: set[TaskType], **_: object
    ) -> tuple[set[TaskType], set[str]]:
        return supported_task_types & {self._kind}, set()

    def launch(self, spec: ExecutionSpec) -> LaunchResult:
        words = ["--runtime-api-address", spec.runtime_api_address, "--token", spec.token]
        words += ["--parent-pid", str(spec.parent_pid)]
        if spec.insecure:
            words.append("--insecure")
        elif spec.root_certificates_path:
            words += ["--root-certificates", spec.root_certificates_path]
        try:
            print(json.dumps(words), file=self._orders, flush=True)
        except BrokenPipeError:
            sys.exit("The process that starts tasks has died; start the executor again.")
        return LaunchResult.accepted()


def nursery(orders: IO[str], task: Callable[[], object]) -> None:
    """Fork a process for each line until there are no more; the line is its arguments, as JSON."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    for line in orders:
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            sys.argv[1:] = json.loads(line)
            logging.getLogger("flwr").addFilter(plain)
            threading.excepthook = of_thread
            task()
            return


def plain(record: logging.LogRecord) -> bool:
    """Say in one line what Flower has a traceback for."""
    if record.exc_info and OVER in str(record.exc_info[1]):
        record.msg, record.args, record.exc_info = TOLD, (), None
    return True


def of_thread(error: threading.ExceptHookArgs) -> None:
    """`plain`, for a thread of Flower's that ends."""
    if OVER in str(error.exc_value):
        print(TOLD, file=sys.stderr)
    else:
        threading.__excepthook__(error)


def main(kind: str) -> None:
    """Be the executor for tasks of a kind: `clientapp` or `serverapp`."""
    taken, module, name = TASKS[kind]
    task = getattr(import_module(module), name)
    read, write = os.pipe()
    if os.fork() == 0:  # before anything here has threads
        os.close(write)
        if kind == "serverapp":  # it loads torch; a device's task leaves that to the trainer
            own_process()
        nursery(os.fdopen(read), task)
        return
    os.close(read)
    executor = ForkingExecutor(taken, os.fdopen(write, "w"))
    if not hasattr(run_superexec, "get_executor"):
        sys.exit(f"flwr {version('flwr')} takes no executor; install the one that comigs asks for")
    run_superexec.get_executor = lambda *_, **__: executor
    flower_superexec()


if __name__ == "__main__":
    main(sys.argv.pop(1))
