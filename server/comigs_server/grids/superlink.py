"""Tensors on their way through a SuperLink: a message has one array there, whatever it holds."""

import math
from collections.abc import Iterable, Iterator, Mapping

from flwr.app import ArrayRecord, Message, RecordDict

from comigs.errors import one_line
from comigs_clients.wire import bundle, unbundle

Outcome = Message | str  # a reply, or the reason why there is none


def bundled(messages: Iterable[Message]) -> Iterator[Message]:
    """The messages with one array each; those with the same arrays share it."""
    bundles: dict[int, ArrayRecord] = {}
    for message in messages:
        content, about = RecordDict(dict(message.content)), message.metadata
        if (arrays := content.array_records.get("arrays")) is not None:
            if id(arrays) not in bundles:
                bundles[id(arrays)] = bundle(arrays)
            content["arrays"] = bundles[id(arrays)]
        yield Message(content, about.dst_node_id, about.message_type)


def opened(outcome: Outcome, shapes: Mapping[str, tuple[int, ...]]) -> Outcome:
    """A reply with its arrays one by one, or why they cannot be had.

    Args:
        shapes: of the tensors that the client shares: no codec makes more bytes of them than twice
            their float32 values, and a header each.
    """
    if isinstance(outcome, str) or outcome.has_error():
        return outcome
    if (arrays := outcome.content.array_records.get("arrays")) is not None:
        limit = 8 * sum(map(math.prod, shapes.values())) + 4096 * (len(shapes) + 1)
        try:
            outcome.content["arrays"] = unbundle(arrays, limit)
        except Exception as error:  # of whatever kind: it is about what a client sent
            return f"its reply cannot be used ({one_line(error)})"
    return outcome
