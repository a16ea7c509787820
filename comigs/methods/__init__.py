"""Methods, one file each: what travels, how the server combines it, how experts are laid out.

A new baseline is one file here that defines `METHOD`.
"""

import difflib
import importlib
import pkgutil
from functools import lru_cache

from comigs.config.strategies import STRATEGIES
from comigs.errors import BadInput
from comigs.methods.base import Method


@lru_cache
def all_methods() -> dict[str, Method]:
    """Every method by name, in the order of the files' names."""
    files = [m.name for m in pkgutil.iter_modules(__path__) if m.name not in ("base", "arrival")]
    found = [importlib.import_module(f"{__name__}.{name}").METHOD for name in sorted(files)]
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
