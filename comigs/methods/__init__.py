"""Methods, one file each: what travels, how the server combines it, how experts are laid out.

A new baseline is one file here that defines `METHOD`.
"""

import difflib
import sys
from functools import lru_cache

from comigs.config.strategies import STRATEGIES
from comigs.errors import BadInput
from comigs.methods.base import Method
from comigs.schema.byfile import added_to, own_members, part_of


@lru_cache
def own_methods() -> dict[str, Method]:
    """The methods of this folder by name, in the order of the files' names."""
    files = own_members(sys.modules[__name__], ("base", "arrival", "peers"))
    found = [part_of(load(), "METHOD") for load in files.values()]
    return {method.name: method for method in found}


def method_names() -> list[str]:
    """All that `method` may be; what installed packages add is not loaded.

    Raises:
        BadInput: one of them adds a name that is taken.
    """
    return [*own_methods(), *added_to(__name__, own_methods())]


def all_methods() -> dict[str, Method]:
    """Every method by name.

    Raises:
        BadInput: an installed package adds one that cannot be used.
    """
    return {name: find_method(name) for name in method_names()}


def find_method(name: str) -> Method:
    """Return a method by name.

    Raises:
        BadInput: when there is none of that name, or a package's own cannot be used.
    """
    if name in own_methods():
        return own_methods()[name]
    methods = method_names()
    if name not in methods:
        close = difflib.get_close_matches(name, methods, 1)
        strategy = next((known for known in STRATEGIES if known.lower() == name.lower()), None)
        hint = f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(methods)}"
        if strategy:
            hint = f"; that is a strategy of the server, for any method: server.strategy={strategy}"
        raise BadInput(f"method is {name!r}{hint}")
    return _added(name)


@lru_cache
def _added(name: str) -> Method:
    method: Method = part_of(added_to(__name__, own_methods())[name](), "METHOD")
    if method.name != name:
        raise BadInput(
            f"an installed package adds method {name!r}, whose METHOD is called {method.name!r}; "
            "give both one name"
        )
    return method
