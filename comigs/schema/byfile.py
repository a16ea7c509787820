"""What is found by its name: a folder of Python files, one thing each, and what packages add to it.

A package of the user's own adds a file through an entry point: its group is the folder's import
name, e.g. `comigs.methods`, its name is that of the thing, its value is the module.
"""

import importlib
import pkgutil
from collections.abc import Callable, Collection
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any

from comigs.errors import BadInput, one_line
from comigs.schema.bounds import shown
from comigs.schema.build import suggest

Members = dict[str, Callable[[], ModuleType]]


def members_of(package: ModuleType, house: Collection[str] = ()) -> Members:
    """By name, in order, what imports each file of a package, and each that others add.

    Args:
        house: files that hold something else.

    Raises:
        BadInput: somebody adds what is there already.
    """
    files = {m.name for m in pkgutil.iter_modules(package.__path__)} - set(house)
    found: Members = {
        name: partial(importlib.import_module, f"{package.__name__}.{name}") for name in files
    }
    for name, load in added_to(package.__name__, found).items():
        found[name] = load
    return dict(sorted(found.items()))


def added_to(group: str, known: Collection[str]) -> dict[str, Callable[[], Any]]:
    """By name, what loads each entry point of a group.

    Args:
        known: names that are taken.

    Raises:
        BadInput: a name is taken, or two packages add one.
    """
    found: dict[str, Callable[[], Any]] = {}
    for entry in entry_points(group=group):
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


def find_in(package: ModuleType, key: str, name: str, house: Collection[str] = ()) -> ModuleType:
    """The file of that name.

    Args:
        key: the setting that names it.

    Raises:
        BadInput: there is none.
    """
    known = members_of(package, house)
    if name not in known:
        options = f"expected {' or '.join(known)}{suggest(name, list(known))}"
        raise BadInput(f"{key} is {shown(name)}; {options}", key)
    return known[name]()
