"""What an example looks like in its source, and the plain text that it becomes.

The one template: each turn of a chat is a line `User: ...`, `Assistant: ...` or `System: ...`, any
other role its own name. A prompt and an instruction are the user's, what answers them is the
assistant's; the input of an instruction stands below it. Plain text stays as it is.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from comigs.errors import BadInput
from comigs.schema.build import suggest

Values = Mapping[str, Any]
ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}


class Unfit(Exception):
    """An example that does not look like its shape; the message says why."""


@dataclass(frozen=True)
class Turn:
    """What one side of a chat says at once."""

    role: str
    text: str


@dataclass(frozen=True)
class Shape:
    """One way to hold an example.

    Attributes:
        needs: names of its columns.
        text: makes plain text of the values of its columns.
        may: columns that may be missing.
    """

    name: str
    needs: tuple[str, ...]
    text: Callable[[Values], str]
    may: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reader:
    """A shape, and the columns of one source that it is read from."""

    shape: Shape
    columns: dict[str, str]

    def text(self, row: Values) -> str:
        """The plain text of one row, "" where nothing is in it.

        Raises:
            Unfit: a column is missing, or holds something else.
        """
        for name in self.shape.needs:
            if self.columns[name] not in row:
                raise Unfit(f"there is no {self.columns[name]!r}")
        values = {name: row.get(column) for name, column in self.columns.items()}
        return valid(self.shape.text(values).replace("\r\n", "\n").replace("\r", "\n").strip())


def find_shape(names: Iterable[str], columns: Mapping[str, str]) -> Reader:
    """The first shape whose columns are there.

    Args:
        names: the columns of the source.
        columns: what is named with --columns; every name in it is one that the shape has.

    Raises:
        BadInput: none fits; with the columns that there are.
    """
    there = list(names)
    known = dict.fromkeys(name for shape in SHAPES for name in (*shape.needs, *shape.may))
    for name, column in columns.items():
        if name not in known:
            hint = f"expected {', '.join(known)}{suggest(name, known)}"
            raise BadInput(f"--columns names {name!r}; {hint}")
        if column not in there:
            hint = f"there are {_listed(there)}{suggest(column, there)}"
            raise BadInput(f"--columns {name}={column}: there is no column {column!r}; {hint}")
    for shape in SHAPES:
        has = {name: columns.get(name, name) for name in (*shape.needs, *shape.may)}
        if set(columns) <= set(has) and all(has[name] in there for name in shape.needs):
            return Reader(shape, {name: column for name, column in has.items() if column in there})
    shapes = "; ".join(" and ".join(shape.needs) for shape in SHAPES)
    raise BadInput(
        f"it is not clear what an example is; the columns are {_listed(there)}; expected {shapes}: "
        "name them, e.g. --columns text=COLUMN or --columns prompt=COLUMN,completion=COLUMN"
    )


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


def _listed(names: list[str]) -> str:
    return ", ".join(names[:30]) + (", ..." if len(names) > 30 else "") if names else "none"


def _chat(turns: Iterable[Turn]) -> str:
    """The template."""
    said = (Turn(turn.role, turn.text.strip()) for turn in turns)
    return "\n".join(f"{turn.role.capitalize()}: {turn.text}" for turn in said if turn.text)


def _plain(value: Any) -> str:
    """A text; numbers too, as CSV has them; a missing value is none."""
    if value is None:
        return ""
    if isinstance(value, list):  # of parts of a message
        parts = (part.get("text") if isinstance(part, dict) else part for part in value)
        return "".join(part for part in parts if isinstance(part, str))
    if not isinstance(value, str | int | float):
        raise Unfit(f"a text is expected, not {type(value).__name__}")
    return str(value)


def _said(value: Any, role: str) -> Iterator[Turn]:
    """A prompt or an answer: a text, or a list of messages."""
    if isinstance(value, list):
        yield from _messages(value)
    else:
        yield Turn(role, _plain(value))


def _messages(value: Any, role: str = "role", content: str = "content") -> Iterator[Turn]:
    """A list of messages, also one that is written as JSON."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise Unfit("a list of messages is expected, not a text") from None
    if isinstance(value, dict) and {role, content} <= set(value):  # a list of each, from Arrow
        pairs = zip(value[role], value[content], strict=True)
        value = [{role: who, content: what} for who, what in pairs]
    if not isinstance(value or [], list):
        raise Unfit(f"a list of messages is expected, not {type(value).__name__}")
    for message in value or ():
        who = message.get(role) if isinstance(message, dict) else None
        if not isinstance(who, str):
            raise Unfit(f"a list of messages with {role!r} and {content!r} is expected")
        yield Turn(ROLES.get(who, who), _plain(message.get(content)))


def _of_messages(values: Values) -> str:
    return _chat(_messages(values["messages"]))


def _of_conversations(values: Values) -> str:
    return _chat(_messages(values["conversations"], "from", "value"))


def _of_prompt(values: Values) -> str:
    turns = (*_said(values["prompt"], "user"), *_said(values["completion"], "assistant"))
    return _chat(turns)


def _of_instruction(values: Values) -> str:
    asked = (_plain(values["instruction"]), _plain(values.get("input")))
    question = "\n".join(part.strip() for part in asked if part.strip())
    return _chat((Turn("user", question), Turn("assistant", _plain(values["output"]))))


SHAPES = (
    Shape("messages", ("messages",), _of_messages),
    Shape("conversations", ("conversations",), _of_conversations),
    Shape("instruction", ("instruction", "output"), _of_instruction, may=("input",)),
    Shape("prompt", ("prompt", "completion"), _of_prompt),
    Shape("text", ("text",), lambda values: _plain(values["text"])),
)
