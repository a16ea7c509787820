"""What each setting means: the text under a field of a section, for `comigs settings` and docs."""

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Iterator
from typing import Any, NamedTuple, get_type_hints

from comigs.schema.build import section_in, words


class Setting(NamedTuple):
    """One setting: dotted key, what it may be, its default, and what it means."""

    key: str
    kind: str
    default: str
    text: str


def settings_of(cls: type, prefix: str = "") -> Iterator[Setting]:
    """Every setting of a dataclass and of the sections in it, in their order.

    A section that is there any number of times has its name in angle brackets.
    """
    texts, hints = field_texts(cls), get_type_hints(cls)
    for field in dataclasses.fields(cls):
        key, hint = f"{prefix}{field.name}", hints[field.name]
        if dataclasses.is_dataclass(hint):
            yield from settings_of(hint, f"{key}.")  # type: ignore[arg-type]
            continue
        yield Setting(key, words(hint), _shown(_default(field)), texts.get(field.name, ""))
        if (section := section_in(hint)) is not None:
            yield from settings_of(section, f"{key}.<name>.")


def field_texts(cls: type) -> dict[str, str]:
    """By field of a dataclass, the string that stands under it."""
    [node] = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(node, ast.ClassDef)
    texts = {}
    for field, below in zip(node.body, node.body[1:], strict=False):
        match field, below:
            case ast.AnnAssign(target=ast.Name(name)), ast.Expr(ast.Constant(str(text))):
                texts[name] = text.strip()
    return texts


def _default(field: "dataclasses.Field[Any]") -> Any:
    made = field.default_factory
    return field.default if made is dataclasses.MISSING else made()


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)
