"""The ClientApp of a device behind a SuperLink: it hands each message to a resident trainer.

Flower starts a process for each message. This one imports no torch and is there in a second; the
trainer (`comigs_clients.trainer`), one for each run, keeps the base model between the messages.
What hangs or dies over there costs this client one answer.
"""

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import Any

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from comigs.errors import Refusal
from comigs.memory import first_to_die, memory_kills, memory_limit
from comigs.messages.plain import read_object
from comigs.store.lock import lock
from comigs_clients.place import run_folder, socket_of
from comigs_clients.policy import policy_of
from comigs_clients.seam import DISK_FULL, Told, is_full, told
from comigs_clients.wire import decode, encode

TRAINER = "comigs_clients.trainer"  # module that a trainer's process runs
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
        Told: a code for the reason why there is no reply.
    """
    try:
        return _answer(message, context)
    except Exception as error:
        raise told(error) from None


def _answer(message: Message, context: Context) -> Message:
    folder, timeout = _place(message, context.node_config)
    node = json.dumps(dict(context.node_config)).encode()
    request, killed = [node, encode(message)], memory_kills()
    for anew in (False, True):
        try:
            return decode(ask(folder, request, timeout, anew))
        except (EOFError, OSError) as error:
            if is_full(error):
                raise
            died = error
    why = _of_memory(killed) or f"see {folder / LOG}"
    raise Refusal("trainer-died", f"the trainer died, twice; {why}") from died


def _place(message: Message, node: Mapping[str, Any]) -> tuple[Path, float]:
    """The run's folder, and seconds that this message may take.

    Raises:
        Refusal: the configuration is none, or the device's policy cannot be read.
    """
    record = message.content.config_records.get("config")
    config = read_object(record.get("config") if record else None)
    sections = [config.get(name) for name in ("flower", "server", "data")]
    flower, server, data = (part if isinstance(part, dict) else {} for part in sections)
    run, timeout = flower.get("run"), server.get("round_timeout")
    if not isinstance(run, str):
        raise Refusal("bad-config", f"flower.run is {run!r:.80}; a run has a name", "flower.run")
    if timeout is not None and not (type(timeout) in (int, float) and timeout > 0):
        raise Refusal("bad-config", "server.round_timeout is no time", "server.round_timeout")
    most = policy_of(node, data.get("name")).hours * 3600
    return run_folder(str(node["state-dir"]), run), min(timeout or most, most)


def ask(folder: Path, request: list[bytes], timeout: float, anew: bool = False) -> bytes:
    """Send a request to the run's trainer, which is started if need be; return its answer.

    Args:
        timeout: seconds until the trainer is killed.
        anew: do not look for one that runs: it is about to end.

    Raises:
        Told: what went wrong at the trainer, as a code.
        Refusal: it took longer than `timeout`, did not start, or had no space to write to.
        OSError, EOFError: it died.
    """
    with _connected(folder, anew) as trainer:
        for part in request:
            trainer.send_bytes(part)
        if not trainer.poll(timeout):
            with suppress(ProcessLookupError):
                os.kill(_process_of(trainer), signal.SIGKILL)
            why = f"no answer within server.round_timeout = {timeout:g} s"
            raise Refusal("too-slow", why, "server.round_timeout")
        kind, body = trainer.recv_bytes(), trainer.recv_bytes()
    if kind == FAILURE:
        if DISK_FULL in body.decode():  # its log is in the same place
            raise Refusal(DISK_FULL, f"no space is left in {folder}; make some, or give it more")
        raise Told(body.decode())
    return body


@contextmanager
def _connected(folder: Path, anew: bool) -> Iterator[Connection]:
    with open(folder / "trainer.lock", "w") as file:
        lock(file.fileno())
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
    killed = memory_kills()
    with open(folder / LOG, "w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", TRAINER, str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    first_to_die(process.pid)
    while process.poll() is None:
        if trainer := _connect(folder):
            return trainer
        time.sleep(0.05)
    why = _of_memory(killed) or _last_line(folder / LOG)
    raise Refusal("trainer-failed", f"the trainer did not start: {why}")


def _of_memory(killed: int) -> str:
    """The reason, if the kernel has killed more than `killed` processes since for their memory."""
    limit = memory_limit()
    if limit is None or memory_kills() <= killed:
        return ""
    return f"it needs more memory than its container has: mem_limit is {limit / 1e6:,.0f} MB"


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def _process_of(connection: Connection) -> int:
    """The id of the process that listens at the other end of a Unix socket."""
    with socket.socket(fileno=os.dup(connection.fileno())) as end:
        credentials = end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[0])
