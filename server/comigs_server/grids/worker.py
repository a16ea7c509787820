"""What runs in a worker process of the ray engine; it knows nothing of Ray."""

import contextlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from flwr.app import Message

from comigs.errors import one_line
from comigs.heap import importing, own_process
from comigs.store.state import state_root
from comigs_clients.wire import decode, encode
from comigs_server.grids.client import (
    client_context,
    failed_reply,
    imported,
    run_client,
    run_clients,
)
from comigs_server.grids.shipping import lay_out, new_state


class ClientWorker:
    """Imports the ClientApp once, keeps it, and answers one message or group at a time."""

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
            own_process()
            with importing():
                self.app = imported(app_ref)
        except Exception as error:
            return one_line(error)
        self.num_clients, self.folder = num_clients, folder
        return ""

    def ping(self) -> None:
        """Return: a dead worker cannot."""

    def answer(
        self, data: Sequence[bytes], states: Sequence[bytes], together_ref: str
    ) -> tuple[list[bytes], float, list[bytes]]:
        """The replies to encoded messages, the seconds they took, and what the clients have saved.

        `Context.state` is empty.

        Args:
            data: one message, or those that are answered together.
            states: what each client had saved, where this process does not see the run folder;
                otherwise empty, and so is the last of what is returned.
            together_ref: "module:attribute" of what answers several.
        """
        started = time.perf_counter()
        messages = [decode(each) for each in data]
        saved: list[bytes] = []
        try:
            if not states:
                replies = self._replies(messages, self.folder, together_ref)
            else:
                with TemporaryDirectory(prefix="comigs-") as folder:
                    roots = [state_root(Path(folder), m.metadata.dst_node_id - 1) for m in messages]
                    known = [lay_out(*each) for each in zip(states, roots, strict=True)]
                    replies = self._replies(messages, folder, together_ref)
                    saved = [new_state(*each) for each in zip(roots, known, strict=True)]
        except Exception as error:
            replies = [encode(failed_reply(message, error)) for message in messages]
        return replies, time.perf_counter() - started, saved

    def _replies(self, messages: Sequence[Message], folder: str, together_ref: str) -> list[bytes]:
        contexts = [
            client_context(message.metadata.dst_node_id, self.num_clients, folder)
            for message in messages
        ]
        if len(messages) > 1:
            replies = run_clients(together_ref, messages, contexts)
        else:
            replies = [run_client(self.app, messages[0], contexts[0])]
        return [encode(reply) for reply in replies]
