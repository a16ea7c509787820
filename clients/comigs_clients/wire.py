"""Flower messages, and the arrays in them, as bytes: protobuf, never a pickle."""

from flwr.app import Array, ArrayRecord, Message
from flwr.common.serde import (
    array_record_from_proto,
    array_record_to_proto,
    message_from_proto,
    message_to_proto,
)
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.recorddict_pb2 import ArrayRecord as ProtoArrayRecord

BUNDLE = "bundle"  # key of an array that holds a whole record


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


def bundle(arrays: ArrayRecord) -> ArrayRecord:
    """The record as one array of bytes: through a SuperLink, each array is two requests each way.

    Raises:
        ValueError: more than 2 GiB, protobuf's limit.
    """
    data = array_record_to_proto(arrays).SerializeToString()
    return ArrayRecord({BUNDLE: Array("uint8", (len(data),), "protobuf", data)})


def unbundle(arrays: ArrayRecord, limit: int | None = None) -> ArrayRecord:
    """The reverse of `bundle`.

    Args:
        limit: in bytes; a larger bundle is not opened.

    Raises:
        ValueError: this is no bundle, or one that is too large.
    """
    if list(arrays) != [BUNDLE]:
        raise ValueError(f"its arrays come one by one: {', '.join(sorted(arrays)[:3])}")
    data = arrays[BUNDLE].data
    if limit is not None and len(data) > limit:
        raise ValueError(f"its arrays have {len(data):,} bytes; {limit:,} are enough")
    try:
        return array_record_from_proto(ProtoArrayRecord.FromString(data))
    except Exception as error:  # protobuf's, or Flower's about what is inside
        raise ValueError(f"its arrays cannot be read: {error}") from None
