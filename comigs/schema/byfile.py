"""What is found by its name: a folder of Python files, one thing each, and what packages add to it.

A package of the user's own adds a file through an entry point: its group is the folder's import
name, e.g. `comigs.methods`, its name is that of the thing, its value is the module.
"""

import importlib
import pkgutil
from collections.abc import Callable, Collection
from functools import cache, partial
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any

from comigs.errors import BadInput, one_line
from comigs.schema.bounds import shown
from comigs.schema.build import suggest

Members = dict[str, Callable[[], ModuleType]]


def own_members(package: ModuleType, house: Collection[str] = ()) -> Members:
    """By name, in order, what imports each file of a package.

    Args:
        house: files that hold something else.
    """
    files = {m.name for m in pkgutil.iter_modules(package.__path__)} - set(house)
    name = package.__name__
    return {file: partial(importlib.import_module, f"{name}.{file}") for file in sorted(files)}


def members_of(package: ModuleType, house: Collection[str] = ()) -> Members:
    """`own_members`, and what others add.

    Raises:
        BadInput: somebody adds what is there already.
    """
    own = own_members(package, house)
    return dict(sorted((own | added_to(package.__name__, own)).items()))


def part_of(module: ModuleType, name: str) -> Any:
    """What a file defines.

    Raises:
        BadInput: it does not.
    """
    if not hasattr(module, name):
        raise BadInput(f"{module.__name__} does not define {name}")
    return getattr(module, name)


@cache
def entries_of(group: str) -> tuple[EntryPoint, ...]:
    """The entry points of a group, looked for once per process: every message asks for names."""
    return tuple(entry_points(group=group))


def added_to(group: str, known: Collection[str]) -> dict[str, Callable[[], Any]]:
    """By name, what loads each entry point of a group.

    Args:
        known: names that are taken.

    Raises:
        BadInput: a name is taken, or two packages add one.
    """
    found: dict[str, Callable[[], Any]] = {}
    for entry in entries_of(group):
        if entry.name in known or entry.name in found:
            raise BadInput(
                f"{_told(entry)} is called {entry.name!r}, as something of {group} that is there "
                "already; give it another name, or uninstall one"
            )
        found[entry.name] = partial(_load, entry)
    return found


def _load(entry: EntryPoint) -> Any:
    try:
        return entry.load()
    except Exception as error:  # of another's code
        raise BadInput(f"{_told(entry)} cannot be loaded: {one_line(error)}") from None


def _told(entry: EntryPoint) -> str:
    return f"{entry.value}, which {entry.dist.name if entry.dist else 'a package'} adds,"


def find_in(
    package: ModuleType, key: str, name: str, part: str, house: Collection[str] = ()
) -> Any:
    """What the file of that name defines.

    Args:
        key: the setting that names it.
        part: the name of what it defines.

    Raises:
        BadInput: there is none.
    """
    known = members_of(package, house)
    if name not in known:
        options = f"expected {' or '.join(known)}{suggest(name, list(known))}"
        raise BadInput(f"{key} is {shown(name)}; {options}", key)
    return part_of(known[name](), part)
