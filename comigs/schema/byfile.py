"""What is found by the name of its file: a folder of Python files, one thing each."""

import importlib
import pkgutil
from collections.abc import Collection
from types import ModuleType

from comigs.errors import BadInput
from comigs.schema.bounds import shown
from comigs.schema.build import suggest


def names_in(package: ModuleType, house: Collection[str] = ()) -> list[str]:
    """The names of the files of a package, in order.

    Args:
        house: files that hold something else.
    """
    return sorted({m.name for m in pkgutil.iter_modules(package.__path__)} - set(house))


def find_in(package: ModuleType, key: str, name: str, house: Collection[str] = ()) -> ModuleType:
    """The file of that name.

    Args:
        key: the setting that names it.

    Raises:
        BadInput: there is none.
    """
    known = names_in(package, house)
    if name not in known:
        options = f"expected {' or '.join(known)}{suggest(name, known)}"
        raise BadInput(f"{key} is {shown(name)}; {options}", key)
    return importlib.import_module(f"{package.__name__}.{name}")
