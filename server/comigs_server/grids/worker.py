"""What runs in a worker process of the ray engine; it knows nothing of Ray."""

import contextlib
import importlib
import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from flwr.app import Message

from comigs.errors import one_line
from comigs.heap import keep_freed_memory
from comigs.store.state import state_root
from comigs_clients.wire import decode, encode
from comigs_server.grids.client import client_context, failed_reply, run_client
from comigs_server.grids.shipping import lay_out, new_state


class ClientWorker:
    """Imports the ClientApp once, keeps it, and answers messages one at a time."""

    def start(self, app_ref: str, threads: int, num_clients: int, folder: str, cwd: str) -> str:
        """Get ready to answer. Returns why that is not possible, or "".

        Args:
            app_ref: "module:attribute" of the ClientApp.
            threads: torch threads of this process.
            num_clients: how many clients there are.
            folder: what clients receive as `state-dir`, unless their state comes with the message.
            cwd: the server's working directory; used where it exists.
        """
        try:
            with contextlib.suppress(OSError):
                os.chdir(cwd)
            from comigs.threads import use_threads

            use_threads(threads)
            keep_freed_memory()
            module, _, name = app_ref.partition(":")
            self.app = getattr(importlib.import_module(module), name)
        except Exception as error:
            return one_line(error)
        self.num_clients, self.folder = num_clients, folder
        return ""

    def ping(self) -> None:
        """Return: a dead worker cannot."""

    def answer(self, data: bytes, state: bytes | None = None) -> list[bytes | float]:
        """The reply to an encoded message, and the seconds it took. `Context.state` is empty.

        Args:
            state: what the client has saved, where this process does not see the run folder; what
                it saves now comes third.
        """
        started = time.perf_counter()
        message = decode(data)
        saved: list[bytes] = []
        try:
            if state is None:
                reply = self._reply(message, self.folder)
            else:
                with TemporaryDirectory(prefix="comigs-") as folder:
                    root = state_root(Path(folder), message.metadata.dst_node_id - 1)
                    known = lay_out(state, root)
                    reply = self._reply(message, folder)
                    saved.append(new_state(root, known))
        except Exception as error:
            reply = encode(failed_reply(message, error))
        return [reply, time.perf_counter() - started, *saved]

    def _reply(self, message: Message, folder: str) -> bytes:
        context = client_context(message.metadata.dst_node_id, self.num_clients, folder)
        return encode(run_client(self.app, message, context))
