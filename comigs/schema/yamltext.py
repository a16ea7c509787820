"""YAML that means what it looks like: no surprises of YAML 1.1, and nothing endless.

Numbers are decimal, `true` and `false` are the only truth values, and what looks like a time, a
date or `yes` is text.
"""

import os
import re
import stat
from pathlib import Path
from typing import Any

import yaml

from comigs.errors import BadInput
from comigs.store.plain import MIB

DEEPEST = 20  # levels
MOST = 100_000  # values, aliases counted as often as they are used
LONGEST = 400  # digits of a number: more are text

NULL = re.compile(r"~|null|Null|NULL|")
BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
INT = re.compile(rf"[-+]?(0|[1-9][0-9]{{0,{LONGEST}}})")
FLOAT = re.compile(
    rf"[-+]?([0-9]{{1,{LONGEST}}}\.[0-9]*|\.[0-9]+|[0-9]{{1,{LONGEST}}}(?=[eE]))([eE][-+]?[0-9]{{1,9}})?"
    r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)


class _Loader(yaml.SafeLoader):
    """SafeLoader with the numbers of YAML 1.2, keys that are text, no tags, and no key twice."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - as PyYAML declares it

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if getattr(event, "tag", None) not in (None, "!"):  # !!int "1:30" is 90
            raise yaml.constructor.ConstructorError(
                None, None, "tags are not read; leave it out", event.start_mark
            )
        node = super().compose_node(parent, index)
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and not key.tag.endswith(":merge"):
                key.tag = "tag:yaml.org,2002:str"
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            name = (key.tag, str(key.value))
            if name in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"found duplicate key {str(key.value)[:80]}", key.start_mark
                )
            seen.add(name)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes what `_Loader` would take for something else."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - as PyYAML declares it

    def ignore_aliases(self, data: Any) -> bool:
        return True


def write_yaml(tree: Any) -> str:
    """Text that `parse_yaml` reads back."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False)


for _tag, _pattern, _first in (
    ("null", NULL, ["~", "n", "N", ""]),
    ("bool", BOOL, list("tTfF")),
    ("int", INT, list("-+0123456789")),
    ("float", FLOAT, list("-+.0123456789")),
    ("merge", re.compile("<<"), ["<"]),
):
    _whole = re.compile(f"(?:{_pattern.pattern})$")
    for _kind in (_Loader, _Dumper):
        _kind.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _whole, _first)


def parse_yaml(text: str) -> tuple[Any, yaml.Node | None]:
    """The value that `text` stands for, and its node, which knows the lines.

    Raises:
        BadInput: it is no YAML, or too deep or too large.
        yaml.MarkedYAMLError: the same, where the place is known.
    """
    if "\x00" in text:
        raise BadInput("it holds a NUL character")
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None, None
        _measure(node)
        return loader.construct_document(node), node
    except RecursionError:
        raise BadInput("it is nested too deeply") from None
    except yaml.MarkedYAMLError:
        raise
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise BadInput(f"not valid YAML ({str(error).strip().splitlines()[0]})") from None


def _measure(node: yaml.Node) -> None:
    """Refuse what is too deep, or too large once aliases stand for what they name."""
    left, waiting = MOST, [(node, 0)]
    while waiting:
        one, depth = waiting.pop()
        left -= 1
        if depth > DEEPEST:
            raise BadInput("it is nested too deeply")
        if left < 0:
            raise BadInput(f"it holds more than {MOST:,} values")
        if isinstance(one, yaml.MappingNode):
            waiting += [(each, depth + 1) for pair in one.value for each in pair]
        elif isinstance(one, yaml.SequenceNode):
            waiting += [(each, depth + 1) for each in one.value]


def read_yaml_file(path: Path) -> tuple[Any, yaml.Node | None]:
    """`parse_yaml` for a file.

    Raises:
        BadInput: one line that names the file, and the line where that is known.
    """
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # a FIFO must not hang
        with open(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise BadInput(f"{path} is not a file")
            data = file.read(MIB + 1)
        if len(data) > MIB:
            raise BadInput(f"{path} is larger than 1 MiB; it cannot be a configuration")
        return parse_yaml(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not UTF-8 (byte {error.start})") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise BadInput(f"{path.name}, line {line}: not valid YAML ({error.problem})") from None
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from None
    except BadInput as error:
        words = str(error)
        raise BadInput(words if str(path) in words else f"{path}: {words}") from None
