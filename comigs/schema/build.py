"""Turn plain dicts into the configuration's dataclasses; say where a mistake was made."""

import dataclasses
import difflib
import re
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from comigs.errors import BadInput
from comigs.schema.bounds import check_bound, shown
from comigs.schema.yamltext import FLOAT, INT

COMMAND_LINE = -1
_NUMBER = re.compile(rf"{FLOAT.pattern}|{INT.pattern}|[-+]?(nan|inf)", re.IGNORECASE)
LONGEST = 4096  # characters of a text
_CONTROL = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True)
class Origin:
    """Where keys were given: a file, and the line of each dotted key."""

    file: str
    lines: dict[str, int]

    def with_command_line(self, keys: Iterable[str]) -> "Origin":
        return Origin(self.file, self.lines | dict.fromkeys(keys, COMMAND_LINE))

    def of(self, key: str) -> str:
        """`my.yaml, line 7`, `command line`, or the file alone."""
        while key and key not in self.lines:
            key = key.rpartition(".")[0]
        line = self.lines.get(key)
        if line is None:
            return self.file
        return "command line" if line == COMMAND_LINE else f"{self.file}, line {line}"


def suggest(name: str, known: Iterable[str]) -> str:
    """`; did you mean rank?`, or nothing."""
    close = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {close[0]}?" if close else ""


def _suggest_key(name: str, hints: dict[str, Any], prefix: str) -> str:
    """`; did you mean experts.rank?`: the same key in a section, one like it here, or below."""
    start = f"{prefix}." if prefix else ""
    below: dict[str, list[str]] = {}
    for section, hint in hints.items():
        for field in dataclasses.fields(hint) if dataclasses.is_dataclass(hint) else ():
            below.setdefault(field.name, []).append(f"{start}{section}.{field.name}")
    here = difflib.get_close_matches(name, hints, 1)
    if here and name not in below:
        return f"; did you mean {start}{here[0]}?"
    near = difflib.get_close_matches(name, below, 1)
    return f"; did you mean {' or '.join(below[near[0]])}?" if near else ""


def build(cls: type, tree: Any, origin: Origin, prefix: str = "") -> Any:
    """Return `cls` made from `tree`, checked key by key.

    Raises:
        BadInput: for an unknown key, a wrong type, or a value out of range.
    """
    hints = get_type_hints(cls)
    if not isinstance(tree, dict):
        if "name" not in hints or not isinstance(tree, str):
            raise BadInput(
                f"{origin.of(prefix)}: {prefix or 'it'} is {shown(tree)}; expected keys below",
                prefix,
            )
        tree = {"name": tree}
    values = {}
    for key, value in tree.items():
        dotted = f"{prefix}.{key}" if prefix else str(key)
        if not isinstance(key, str) or key not in hints:
            dotted = dotted if len(dotted) < 200 else f"{dotted[:200]}..."
            where = f" in {prefix}" if prefix else ""
            hint = _suggest_key(str(key), hints, prefix)
            hint = hint or f"; known{where}: {', '.join(hints)}"
            raise BadInput(f"{origin.of(dotted)}: unknown key {dotted}{hint}", dotted)
        if dataclasses.is_dataclass(hints[key]):
            values[key] = build(hints[key], value, origin, dotted)
        elif (named := section_in(hints[key])) and isinstance(value, dict):
            values[key] = {n: build(named, v, origin, f"{dotted}.{n}") for n, v in value.items()}
        else:
            ok, values[key] = _convert(value, hints[key])
            if not ok:
                raise BadInput(
                    f"{origin.of(dotted)}: {dotted} is {shown(value)}; expected "
                    f"{words(hints[key])}" + suggest(shown(value), _options(hints[key])),
                    dotted,
                )
            _bounded(dotted, values[key], origin)
    try:
        return cls(**values)
    except BadInput as error:
        raise BadInput(f"{origin.of(error.key)}: {error}", error.key) from None


def _bounded(key: str, value: Any, origin: Origin) -> None:
    try:
        check_bound(key, value)
        for text in _texts(value):
            if _CONTROL.search(text) or len(text) > LONGEST:
                raise BadInput(f"{key} is {shown(text)}; it is too long or has control characters")
    except BadInput as error:
        raise BadInput(f"{origin.of(key)}: {error}", key) from None


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in (*value.keys(), *value.values()):
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)


def section_in(hint: Any) -> Any:
    """The dataclass of a section that holds any number of them by name, or None."""
    kind = get_args(hint)[1] if get_origin(hint) is dict else None
    return kind if dataclasses.is_dataclass(kind) else None


def _options(hint: Any) -> tuple[str, ...]:
    """The words that a setting may be, where it is one of a few."""
    if get_origin(hint) is Literal:
        return get_args(hint)
    parts = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else ()
    return tuple(option for part in parts for option in _options(part))


def _convert(value: Any, hint: Any) -> tuple[bool, Any]:
    """Return whether `value` fits `hint`, and it as that type."""
    kind = get_origin(hint)
    if kind is Literal:
        return value in get_args(hint), value
    if kind in (Union, types.UnionType):
        for option in get_args(hint):
            ok, converted = _convert(value, option)
            if ok:
                return True, converted
        return False, value
    if kind is list:
        if not isinstance(value, list):
            return False, value
        parts = [_convert(v, get_args(hint)[0]) for v in value]
        return bool(parts) and all(ok for ok, _ in parts), [v for _, v in parts]
    if kind is dict:
        if not isinstance(value, dict):
            return False, value
        items = {str(k): _convert(v, get_args(hint)[1]) for k, v in value.items()}
        return all(ok for ok, _ in items.values()), {k: v for k, (_, v) in items.items()}
    if hint is Any:
        return True, value
    if hint is float:
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            return False, value
        if isinstance(value, str) and not _NUMBER.fullmatch(value):
            return False, value
        try:
            return True, float(value)  # some YAML reads 1e-3 as text
        except (ValueError, OverflowError):
            return False, value
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool), value
    if hint is type(None):
        return value is None, value
    if hint is str:
        if isinstance(value, int) and not isinstance(value, bool):
            return abs(value) < 10**60, shown(value)
        return isinstance(value, str), value
    return isinstance(value, kind or hint), value


def words(hint: Any) -> str:
    kind = get_origin(hint)
    if kind is Literal:
        return " or ".join(get_args(hint))
    if kind in (Union, types.UnionType):
        return " or ".join(words(option) for option in get_args(hint))
    if kind is list:
        each = words(get_args(hint)[0]).removeprefix("a ")
        return f"a list of {each}" if " or " in each else f"a list of {each}s"
    if kind is dict:
        return "`key: value` pairs"
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    return names.get(hint, "null")
