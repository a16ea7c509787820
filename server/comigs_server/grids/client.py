"""One message at one client: its context, and a reply whatever happens."""

import importlib
import logging
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode

from comigs.errors import one_line

logger = logging.getLogger(__name__)

RUN_ID = 1


def client_context(node_id: int, num_clients: int, state_dir: str) -> Context:
    """The context of one client; its partition-id is `node_id - 1`."""
    return Context(
        run_id=RUN_ID,
        node_id=node_id,
        node_config={
            "partition-id": node_id - 1,
            "num-partitions": num_clients,
            "state-dir": state_dir,
            "embedded": True,
        },
        state=RecordDict(),
        run_config={},
    )


def run_client(app: ClientApp, message: Message, context: Context) -> Message:
    """The reply of `app`, or an error reply when it raises or returns something else."""
    try:
        reply = app(message, context)
        if not isinstance(reply, Message):
            raise TypeError(f"the ClientApp returned {type(reply).__name__}, not a Message")
        if reply.metadata.reply_to_message_id != message.metadata.message_id:
            raise ValueError("the ClientApp returned a Message made without reply_to=message")
    except Exception as error:
        return failed_reply(message, error)
    return reply


Answer = Callable[[Sequence[Message], Sequence[Context]], list[Message | Exception]]


@dataclass(frozen=True)
class Together:
    """How several messages are answered at once.

    Attributes:
        size: at most this many.
        alike: equal for messages that may be answered together; None: alone.
        answer_ref: "module:attribute" of what returns their replies, or why there is none; a
            worker process imports it.
    """

    size: int
    alike: Callable[[Message, Context], Hashable]
    answer_ref: str


def run_clients(
    answer_ref: str, messages: Sequence[Message], contexts: Sequence[Context]
) -> list[Message]:
    """The replies to messages that are alike, an error reply where there is none."""
    try:
        answer: Answer = imported(answer_ref)
        answers = answer(messages, contexts)
    except Exception as error:
        answers = [error] * len(messages)
    return [
        failed_reply(message, answer) if isinstance(answer, Exception) else answer
        for message, answer in zip(messages, answers, strict=True)
    ]


def imported(ref: str) -> Any:
    """What "module:attribute" names."""
    module, _, name = ref.partition(":")
    return getattr(importlib.import_module(module), name)


def failed_reply(message: Message, error: Exception) -> Message:
    """The error reply of a client that raised `error`."""
    logger.debug("node %d failed", message.metadata.dst_node_id, exc_info=error)
    reason = one_line(error)
    return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=message)


def late_reply(message: Message, timeout: float) -> Message:
    """The error reply of a client that was given up after `timeout` seconds."""
    reason = f"did not answer within {timeout:g} s (server.round_timeout)"
    return Message(Error(ErrorCode.REPLY_MESSAGE_UNAVAILABLE, reason), reply_to=message)


def dead_reply(message: Message) -> Message:
    """The error reply of a client whose worker process ended while it worked."""
    return Message(Error(ErrorCode.CLIENT_APP_CRASHED, "its worker process died"), reply_to=message)
