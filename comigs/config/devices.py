"""The configuration's `devices` section: which device each client is, and what must fit on it."""

import re
from dataclasses import dataclass, field
from typing import Literal

from comigs.config.rules import at_least, positive, require


@dataclass(frozen=True)
class DeviceConfig:
    """A profile as written in YAML; what is null comes from the profile `like`."""

    like: str | None = None  # profile of the library to start from
    memory: float | None = None  # bytes usable for training
    flops: dict[str, float] | None = None  # sustained training FLOP/s by dtype
    up: float | None = None  # bytes per second
    down: float | None = None
    latency: float | None = None  # seconds, one way per message
    dropout: float | None = None  # probability of losing a round
    trace: str | None = None  # "1" available, "0" not, one per round, repeated
    watts: float | None = None  # above idle while training
    source: str | None = None  # where each number is from

    def check(self, key: str) -> None:
        """Check the ranges; `key` is the profile's own, e.g. devices.define.phone.

        Raises:
            BadInput: which value is out of range.
        """
        for name in ("memory", "up", "down"):
            positive(f"{key}.{name}", getattr(self, name))
        for name in ("latency", "watts"):
            at_least(f"{key}.{name}", getattr(self, name), 0)
        for dtype, rate in (self.flops or {}).items():
            known = dtype in ("float32", "bfloat16")
            require(known, f"{key}.flops", dtype, "a rate for float32 or bfloat16")
            positive(f"{key}.flops.{dtype}", rate)
        if self.dropout is not None:
            require(0 <= self.dropout < 1, f"{key}.dropout", self.dropout, "in [0, 1)")
        if self.trace is not None:
            good = bool(re.fullmatch("[01]*1[01]*", self.trace))
            require(good, f"{key}.trace", self.trace, 'text of 0 and 1 with a 1, e.g. "110"')


@dataclass(frozen=True)
class DevicesConfig:
    profiles: list[str] | dict[str, int] | None = None  # one per client, or how many of each
    order: Literal["independent", "agreeing", "opposed"] = "independent"  # of power and of text
    define: dict[str, DeviceConfig] = field(default_factory=dict)  # profiles of your own
    fit: Literal["check", "derive"] = "check"  # refuse what is too large, or make it fit
    margin: float = 0.1  # share of a device's memory to leave free

    def __post_init__(self) -> None:
        require(0 <= self.margin < 1, "devices.margin", self.margin, "in [0, 1)")
        for name, device in self.define.items():
            device.check(f"devices.define.{name}")
        if isinstance(self.profiles, dict):
            counts = self.profiles
            good = all(n >= 0 for n in counts.values()) and any(counts.values())
            require(good, "devices.profiles", counts, "numbers from 0 up, not all 0")
