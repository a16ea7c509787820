"""JSON from somebody else: one object, of bounded size and depth, that means what it says."""

import json
import math
import re
from collections.abc import Iterable
from typing import Any

from comigs.errors import Refusal

MOST_CHARACTERS = 8 * 2**20  # a list entry for each of some 100,000 clients
DEEPEST = 8
LONGEST = 2**16  # characters of one text
GREATEST = 2**63  # of a whole number
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def read_object(text: object) -> dict[str, Any]:
    """The JSON object that `text` holds.

    Raises:
        Refusal: it is something else, a key is there twice, or a value is out of bounds or would be
            filled in from outside.
    """
    if not isinstance(text, str) or len(text) > MOST_CHARACTERS:
        raise _refuse("is no text, or a very long one")
    try:
        tree = json.loads(text, object_pairs_hook=_once, parse_constant=_constant)
    except RecursionError:
        raise _refuse("is nested too deeply") from None
    except ValueError as error:
        raise _refuse(f"is not JSON ({type(error).__name__})") from None
    if not isinstance(tree, dict):
        raise _refuse(f"is a JSON {type(tree).__name__}; it has to be an object")
    _check(tree, DEEPEST)
    return tree


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in pairs:
        if key in out:
            raise _refuse(f"has the key {key!r:.80} twice")
        out[key] = value
    return out


def _constant(name: str) -> Any:
    raise _refuse(f"holds {name}, which is no JSON")


def _check(value: Any, depth: int) -> None:
    if depth < 0:
        raise _refuse("is nested too deeply")
    if isinstance(value, dict):
        for key, item in value.items():
            _check(key, 0)
            _check(item, depth - 1)
    elif isinstance(value, list):
        for item in value:
            _check(item, depth - 1)
    elif isinstance(value, str):
        if "${" in value:
            raise _refuse("holds ${...}; a device does not fill it in")
        if len(value) > LONGEST or _CONTROL.search(value):
            raise _refuse("holds a text that is too long or has control characters")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise _refuse("holds a number beyond a float")
    elif isinstance(value, int) and not -GREATEST <= value < GREATEST:
        raise _refuse("holds a whole number beyond 64 bits")


def _refuse(why: str) -> Refusal:
    return Refusal("bad-config", f"the server's configuration {why}")
