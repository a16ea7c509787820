"""The greatest value of each number in a configuration: more runs for ever, or fills everything.

The bounds are far above what a large machine can do. They catch a slip of the hand, not ambition:
COMIGS_NO_LIMITS=1 in the environment lifts them.
"""

import math
import os
from typing import Any

from comigs.errors import BadInput

LIFT = "COMIGS_NO_LIMITS"
WORD = 2**63 - 1  # of a whole number in C; not lifted
SHOWN = 60  # characters of a value in an error

COUNT = 1_000_000
MOST: dict[str, float] = {
    "rounds": COUNT,
    "local_steps": COUNT,
    "clients": COUNT,
    "batch_size": 65_536,
    "micro_batch_size": 65_536,
    "threads": 1024,
    "seed": WORD,
    "data.seq_len": 2**20,
    "data.train_tokens": 10**12,
    "data.valid_tokens": 10**12,
    "data.test_tokens": 10**12,
    "experts.generalists": 1024,
    "experts.specialists": 1024,
    "experts.top_k": 2048,
    "experts.rank": 16_384,
    "router.steps": COUNT,
    "router.inner_steps": 10_000,
    "engine.workers": 4096,
    "engine.fuse": 4096,
    "ray.pools.workers": 4096,
    "devices.profiles": COUNT,
    "faults.scale": 1e20,
    "devices.define.flops": 1e21,
}
WHOLE, BROKEN = 10**9, 1e18  # of any other whole number, and any other number


def check_bound(key: str, value: Any) -> None:
    """Refuse a number, or one in a list or mapping, that is not finite or beyond its bound.

    Args:
        key: dotted; names between sections (`devices.define.phone.memory`) do not matter.

    Raises:
        BadInput: key, value and bound.
    """
    if isinstance(value, dict):
        for name, each in value.items():
            check_bound(f"{key}.{name}", each)
    elif isinstance(value, list):
        for each in value:
            check_bound(key, each)
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        return
    elif isinstance(value, float) and not math.isfinite(value):
        raise BadInput(f"{key} is {value!r}; it must be finite", key)
    elif abs(value) > (most := _bound(key, value)):
        lift = "" if abs(value) > WORD and isinstance(value, int) else f" ({LIFT}=1 lifts this)"
        if lift and os.environ.get(LIFT) == "1":
            return
        raise BadInput(f"{key} is {shown(value)}; it must be at most {_plain(most)}{lift}", key)


def shown(value: object) -> str:
    """A value in an error, cut to a sane length."""
    text = repr(value) if not isinstance(value, int) or abs(value) < 10**SHOWN else _cut(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _cut(value: int) -> str:
    return f"a number of {round(abs(value).bit_length() * math.log10(2)):,} digits"


def _bound(key: str, value: float) -> float:
    parts = key.split(".")
    unnamed = ".".join(parts[:2] + parts[3:])  # without the name of a profile or pool
    known = (MOST[name] for name in (key, unnamed) if name in MOST)
    return next(known, WHOLE if isinstance(value, int) else BROKEN)


def _plain(value: float) -> str:
    return f"{value:,.0f}" if value < 10**15 else f"{value:g}"
