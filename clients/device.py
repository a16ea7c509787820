"""The ClientApp of a device behind a SuperLink: it hands each message to a resident trainer.

Flower starts a process for each message. This one imports no torch and is there in a second; the
trainer (`clients.trainer`), one for each run, keeps the base model between the messages. What hangs
or dies over there costs this client one answer.
"""

import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Client, Connection
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from clients.place import run_folder, socket_of
from clients.wire import decode, encode
from comigs.errors import ComigsError

TRAINER = "clients.trainer"  # module that a trainer's process runs
LOG = "trainer.log"
ANSWER, FAILURE = b"a", b"f"

app = ClientApp()


@app.query()
@app.train()
@app.train("keys")
@app.train("shares")
@app.train("unmask")
@app.evaluate()
def answer(message: Message, context: Context) -> Message:
    """The trainer's reply; a trainer that dies at work is started anew, once.

    Raises:
        ComigsError: the reason why there is no reply.
    """
    config = json.loads(str(message.content.config_records["config"]["config"]))
    folder = run_folder(str(context.node_config["state-dir"]), config["flower"]["run"])
    timeout = config["server"]["round_timeout"]
    node = json.dumps(dict(context.node_config)).encode()
    request = [node, encode(message)]
    try:
        return decode(ask(folder, request, timeout))
    except (EOFError, OSError):
        pass
    try:
        return decode(ask(folder, request, timeout, anew=True))
    except (EOFError, OSError) as error:
        raise ComigsError(f"the trainer died, twice; see {folder / LOG}") from error


def ask(folder: Path, request: list[bytes], timeout: float | None, anew: bool = False) -> bytes:
    """Send a request to the run's trainer, which is started if need be; return its answer.

    Args:
        timeout: seconds until the trainer is killed; None for no limit.
        anew: do not look for one that runs: it is about to end.

    Raises:
        ComigsError: what went wrong at the trainer, or it took longer than `timeout`.
        OSError, EOFError: it died.
    """
    with _connected(folder, anew) as trainer:
        for part in request:
            trainer.send_bytes(part)
        if not trainer.poll(timeout):
            with suppress(ProcessLookupError):
                os.kill(_process_of(trainer), signal.SIGKILL)
            raise ComigsError(f"no answer within server.round_timeout = {timeout:g} s")
        kind, body = trainer.recv_bytes(), trainer.recv_bytes()
    if kind == FAILURE:
        raise ComigsError(body.decode())
    return body


@contextmanager
def _connected(folder: Path, anew: bool) -> Iterator[Connection]:
    with open(folder / "trainer.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        trainer = (None if anew else _connect(folder)) or _start(folder)
    with trainer:
        yield trainer


def _connect(folder: Path) -> Connection | None:
    """The trainer of this run, if there is one."""
    try:
        return Client(str(socket_of(folder)), "AF_UNIX")
    except OSError:
        return None


def _start(folder: Path) -> Connection:
    socket_of(folder).unlink(missing_ok=True)
    with open(folder / LOG, "w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", TRAINER, str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    while process.poll() is None:
        if trainer := _connect(folder):
            return trainer
        time.sleep(0.05)
    raise ComigsError(f"the trainer did not start: {_last_line(folder / LOG)}")


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def _process_of(connection: Connection) -> int:
    """The id of the process that listens at the other end of a Unix socket."""
    with socket.socket(fileno=os.dup(connection.fileno())) as end:
        credentials = end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[0])
