"""JSON that every reader takes, of numbers that may be none: `Infinity` and `NaN` are not JSON.

Such a number is null; beside it, under "nonfinite", is what it was: {"loss": "NaN"}.
"""

import json
import math
from typing import Any

BESIDE = "nonfinite"


def to_json(value: Any, indent: int | None = None) -> str:
    """`value` as strict JSON; `from_json` gives it back. In lists such numbers stay null."""
    return json.dumps(_strict(value), indent=indent, allow_nan=False)


def from_json(text: str | bytes) -> Any:
    """The value that `to_json`, or a version before it, has written.

    Raises:
        ValueError, RecursionError: it is no JSON.
    """
    return json.loads(text, object_hook=_restored)


def _strict(value: Any) -> Any:
    if isinstance(value, dict):
        odd = {key: _word(each) for key, each in value.items() if _is_odd(each)}
        plain = {key: _strict(each) for key, each in value.items()}
        return plain | {BESIDE: odd} if odd else plain
    if isinstance(value, list | tuple):
        return [_strict(each) for each in value]
    return None if _is_odd(value) else value


def _is_odd(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _word(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _restored(found: dict[str, Any]) -> dict[str, Any]:
    odd = found.get(BESIDE)
    words = ("NaN", "Infinity", "-Infinity")
    if not isinstance(odd, dict) or not all(word in words for word in odd.values()):
        return found
    plain = {key: value for key, value in found.items() if key != BESIDE}
    return plain | {key: float(word) for key, word in odd.items()}
