"""Flower messages as bytes: protobuf, never a pickle."""

from flwr.app import Message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage


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
