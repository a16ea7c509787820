"""The resident trainer of a device: it answers one message after the other, base model in hand.

    python -m comigs_clients.trainer FOLDER

It listens at `comigs_clients.place.socket_of(FOLDER)`, and ends when nothing has come for
`IDLE_SECONDS`.
"""

import json
import os
import signal
import sys
from contextlib import suppress
from multiprocessing.connection import Connection, Listener
from pathlib import Path

from flwr.app import Context, RecordDict
from flwr.clientapp import ClientApp

from comigs.heap import importing, own_process
from comigs_clients.device import ANSWER, FAILURE
from comigs_clients.place import socket_of
from comigs_clients.seam import told
from comigs_clients.wire import decode, encode

IDLE_SECONDS = 600


def serve(folder: str, app: ClientApp) -> None:
    """Answer messages with `app` until none has come for a while."""
    signal.signal(signal.SIGALRM, lambda *_: sys.exit())
    os.umask(0o077)
    with Listener(str(socket_of(Path(folder))), "AF_UNIX") as listener:
        while True:
            signal.alarm(IDLE_SECONDS)
            with listener.accept() as device:
                signal.alarm(0)
                with suppress(EOFError, OSError):  # the device went away
                    _answer(device, app)


def _answer(device: Connection, app: ClientApp) -> None:
    node, message = json.loads(device.recv_bytes()), decode(device.recv_bytes())
    context = Context(message.metadata.run_id, message.metadata.dst_node_id, node, RecordDict(), {})
    try:
        kind, body = ANSWER, encode(app(message, context))
    except Exception as error:
        kind, body = FAILURE, str(told(error)).encode()
    device.send_bytes(kind)
    device.send_bytes(body)


if __name__ == "__main__":
    own_process()
    with importing():
        from comigs_clients.app import app

    serve(sys.argv[1], app)
