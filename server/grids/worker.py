"""What runs in a worker process of the ray engine; it knows nothing of Ray."""

import importlib
import time

from flwr.app import Message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage

from comigs.heap import keep_freed_memory
from server.grids.client import client_context, failed_reply, one_line, run_client


def encode(message: Message) -> bytes:
    """A message as protobuf bytes.

    Raises:
        ValueError: more than 2 GiB, protobuf's limit.
    """
    encoded: bytes = message_to_proto(message).SerializeToString()
    return encoded


def decode(data: bytes) -> Message:
    """The reverse of `encode`."""
    return message_from_proto(ProtoMessage.FromString(data))


class ClientWorker:
    """Imports the ClientApp once, keeps it, and answers messages one at a time."""

    def start(self, app_ref: str, threads: int, num_clients: int, state_dir: str) -> str:
        """Get ready to answer. Returns why that is not possible, or "".

        Args:
            app_ref: "module:attribute" of the ClientApp.
            threads: torch threads of this process.
            num_clients: how many clients there are.
            state_dir: folder that clients receive as `state-dir`.
        """
        try:
            import torch

            torch.set_num_threads(threads)
            keep_freed_memory()
            module, _, name = app_ref.partition(":")
            self.app = getattr(importlib.import_module(module), name)
        except Exception as error:
            return one_line(error)
        self.num_clients, self.state_dir = num_clients, state_dir
        return ""

    def ping(self) -> None:
        """Return: a dead worker cannot."""

    def answer(self, data: bytes) -> tuple[bytes, float]:
        """The reply to an encoded message, and the seconds it took. `Context.state` is empty."""
        started = time.perf_counter()
        message = decode(data)
        context = client_context(message.metadata.dst_node_id, self.num_clients, self.state_dir)
        reply = run_client(self.app, message, context)
        try:
            encoded = encode(reply)
        except Exception as error:
            encoded = encode(failed_reply(message, error))
        return encoded, time.perf_counter() - started
