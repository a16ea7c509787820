"""A chat: who says what. As JSON holds it, and as one line of a federation's file.

A line of <client>/train.jsonl is {"messages": [{"role": ..., "content": ...}, ...]}, or a prompt
and its completion, {"prompt": ..., "completion": ...}: texts or lists of messages.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}
ANSWERS = "assistant"  # who is to be learnt from


class Unfit(Exception):
    """An example that does not look as it should; the message says why.

    Attributes:
        place: its number among those that were looked at together.
    """

    def __init__(self, why: str, place: int = 0) -> None:
        super().__init__(why)
        self.place = place


@dataclass(frozen=True)
class Turn:
    """What one side of a chat says at once."""

    role: str
    content: str


Chat = tuple[Turn, ...]


def chat_of(turns: Iterable[Turn]) -> Chat:
    """Turns as they are kept: without space around what is said, without those that say nothing.

    Raises:
        Unfit: as `valid`.
    """
    said = (Turn(valid(turn.role), valid(clean(turn.content))) for turn in turns)
    return tuple(turn for turn in said if turn.content)


def line_of(chat: Chat) -> str:
    """A chat as a line of a file, without its end."""
    messages = [{"role": turn.role, "content": turn.content} for turn in chat]
    return json.dumps({"messages": messages}, ensure_ascii=False)


def read_line(line: str) -> Chat:
    """The chat that a line of a file holds.

    Raises:
        Unfit: it holds something else.
    """
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", "") or str(error)
        raise Unfit(f"it is not JSON ({reason})") from None
    if not isinstance(values, dict):
        raise Unfit("it is not a JSON object")
    if "messages" in values:
        return chat_of(messages(values["messages"]))
    if {"prompt", "completion"} <= set(values):
        return chat_of(asked_and_answered(values))
    names = ", ".join(map(repr, list(values)[:5])) or "nothing"
    raise Unfit(f"it holds {names}; expected 'messages', or 'prompt' and 'completion'")


def messages(value: Any, role: str = "role", content: str = "content") -> Iterator[Turn]:
    """A list of messages, also one that is written as JSON.

    Raises:
        Unfit: it is none.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise Unfit("a list of messages is expected, not a text") from None
    if isinstance(value, dict) and {role, content} <= set(value):  # a list of each, from Arrow
        pair = value[role], value[content]
        if not all(isinstance(each, list) for each in pair) or len(pair[0]) != len(pair[1]):
            raise Unfit("a list of messages is expected, not one message")
        value = [{role: who, content: what} for who, what in zip(*pair, strict=True)]
    if not isinstance(value or [], list):
        raise Unfit(f"a list of messages is expected, not {type(value).__name__}")
    for message in value or ():
        who = message.get(role) if isinstance(message, dict) else None
        if not isinstance(who, str):
            raise Unfit(f"a list of messages with {role!r} and {content!r} is expected")
        yield Turn(ROLES.get(who, who), plain(message.get(content)))


def asked_and_answered(values: Mapping[str, Any]) -> Iterator[Turn]:
    """A prompt and its completion: texts or lists of messages. Raises: Unfit, as `messages`."""
    for name, role in (("prompt", "user"), ("completion", ANSWERS)):
        if isinstance(value := values[name], list):
            yield from messages(value)
        else:
            yield Turn(role, plain(value))


def plain(value: Any) -> str:
    """A text; numbers too, as CSV has them; a missing value, which pandas calls NaN, is none.

    Raises:
        Unfit: it is something else.
    """
    if value is None or value != value:
        return ""
    if isinstance(value, list):  # of parts of a message
        parts = [part.get("text") if isinstance(part, dict) else part for part in value]
        texts = [part for part in parts if isinstance(part, str)]
        if len(texts) < len(parts):
            raise Unfit("a part of a message is no text")
        return "".join(texts)
    if not isinstance(value, str | int | float):
        raise Unfit(f"a text is expected, not {type(value).__name__}")
    return str(value)


def clean(text: str) -> str:
    """The text with one kind of line end, and no space around it."""
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()


def valid(text: str) -> str:
    """The text, which can be written.

    Raises:
        Unfit: JSON can spell halves of characters, which no file can hold.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Unfit("the text is not valid Unicode") from None
    return text
