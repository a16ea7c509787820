"""Methods, one file each: what travels, how the server combines it, how experts are laid out.

A new baseline is one file here that defines `METHOD`.
"""

import difflib
import sys
from functools import lru_cache

from comigs.config.strategies import STRATEGIES
from comigs.errors import BadInput
from comigs.methods.base import Method
from comigs.schema.byfile import members_of


@lru_cache
def all_methods() -> dict[str, Method]:
    """Every method by name, in the order of the files' names.

    Raises:
        BadInput: an installed package adds one that cannot be used.
    """
    files = members_of(sys.modules[__name__], ("base", "arrival"))
    found = [load().METHOD for load in files.values()]
    return {method.name: method for method in found}


def find_method(name: str) -> Method:
    """Return a method by name.

    Raises:
        BadInput: when there is none of that name.
    """
    methods = all_methods()
    if name not in methods:
        close = difflib.get_close_matches(name, methods, 1)
        strategy = next((known for known in STRATEGIES if known.lower() == name.lower()), None)
        hint = f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(methods)}"
        if strategy:
            hint = f"; that is a strategy of the server, for any method: server.strategy={strategy}"
        raise BadInput(f"method is {name!r}{hint}")
    return methods[name]
