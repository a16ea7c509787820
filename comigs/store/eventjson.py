"""Events as JSON objects, and back."""

import json
from dataclasses import MISSING, fields
from functools import cache
from typing import TYPE_CHECKING, Any

from comigs.store.events import KINDS, Event
from comigs.store.strict import from_json, to_json

if TYPE_CHECKING:
    from pydantic import TypeAdapter

_SPELT = {"num_examples": "num-examples"}  # as in messages
_MEANT = {there: here for here, there in _SPELT.items()}


def to_object(event: Event) -> dict[str, Any]:
    """The object of an event: its kind, and every field that is not at its default."""
    said: dict[str, Any] = {"event": event.kind}
    for field in fields(event):
        value = getattr(event, field.name)
        if field.default is MISSING or value != field.default:
            said[_SPELT.get(field.name, field.name)] = value
    return said


def to_line(event: Event) -> str:
    return to_json(to_object(event)) + "\n"


def from_object(told: object) -> Event | None:
    """The event that an object is; None where it is none. Fields that are unknown are left out."""
    kind = told.get("event") if isinstance(told, dict) else None
    if not isinstance(told, dict) or not isinstance(kind, str) or kind not in KINDS:
        return None
    named = {_MEANT.get(str(key), str(key)): value for key, value in told.items()}
    try:
        event: Event = _adapter(kind).validate_json(json.dumps(named), strict=True)
        return event
    except ValueError:  # pydantic's, too
        return None


def from_line(line: str | bytes) -> Event | None:
    """The event of a line of JSON; None where it is none."""
    try:
        return from_object(from_json(line))
    except (ValueError, RecursionError):
        return None


@cache
def _adapter(kind: str) -> "TypeAdapter[Any]":
    from pydantic import TypeAdapter

    return TypeAdapter(KINDS[kind])
