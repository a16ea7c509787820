"""What an example looks like in its source, and the line or the plain text that it becomes.

A prompt and an instruction are the user's, what answers them is the assistant's; the input of an
instruction stands below it. Plain text stays as it is.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from comigs.data.chats import (
    ANSWERS,
    Turn,
    Unfit,
    asked_and_answered,
    chat_of,
    clean,
    line_of,
    messages,
    plain,
    valid,
)
from comigs.errors import BadInput
from comigs.schema.build import suggest

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Shape:
    """One way to hold an example.

    Attributes:
        needs: names of its columns.
        turns: makes a chat of the values of its columns; None for plain text.
        may: columns that may be missing.
    """

    name: str
    needs: tuple[str, ...]
    turns: Callable[[Values], Iterable[Turn]] | None
    may: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reader:
    """A shape, and the columns of one source that it is read from."""

    shape: Shape
    columns: dict[str, str]

    @property
    def chats(self) -> bool:
        """Whether its examples are chats."""
        return self.shape.turns is not None

    def text(self, row: Values) -> str:
        """The plain text of one row, or its chat as a line of JSON; "" where nothing is in it.

        Raises:
            Unfit: a column is missing, or holds something else.
        """
        for name in self.shape.needs:
            if self.columns[name] not in row:
                raise Unfit(f"there is no {self.columns[name]!r}")
        values = {name: row.get(column) for name, column in self.columns.items()}
        if self.shape.turns is None:
            return valid(clean(plain(values["text"])))
        chat = chat_of(self.shape.turns(values))
        return line_of(chat) if chat else ""


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


def _listed(names: list[str]) -> str:
    return ", ".join(names[:30]) + (", ..." if len(names) > 30 else "") if names else "none"


def _of_instruction(values: Values) -> Iterable[Turn]:
    asked = (plain(values["instruction"]), plain(values.get("input")))
    question = "\n".join(part.strip() for part in asked if part.strip())
    return Turn("user", question), Turn(ANSWERS, plain(values["output"]))


SHAPES = (
    Shape("messages", ("messages",), lambda values: messages(values["messages"])),
    Shape(
        "conversations",
        ("conversations",),
        lambda values: messages(values["conversations"], "from", "value"),
    ),
    Shape("instruction", ("instruction", "output"), _of_instruction, may=("input",)),
    Shape("prompt", ("prompt", "completion"), asked_and_answered),
    Shape("text", ("text",), None),
)
