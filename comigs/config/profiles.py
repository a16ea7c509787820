"""Device profiles: the library that comes with comigs, and users' own."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import yaml

from comigs.errors import BadInput
from comigs.schema.build import Origin, build, suggest
from comigs.schema.rules import at_least, positive, require

LIBRARY = Path(__file__).with_name("profiles.yaml")


@dataclass(frozen=True)
class DeviceConfig:
    """A profile as written in YAML; what is null comes from the profile `like`."""

    like: str | None = None
    """Profile of the library to start from."""
    memory: float | None = None
    """Bytes usable for training."""
    flops: dict[str, float] | None = None
    """Sustained training FLOP/s, by dtype of the frozen base."""
    up: float | None = None
    """Bytes sent per second."""
    down: float | None = None
    """Bytes received per second."""
    latency: float | None = None
    """Seconds, one way, of each message."""
    dropout: float | None = None
    """Probability of being lost in a round."""
    trace: str | None = None
    """Rounds in which it is there: "1", or not: "0"; repeated."""
    watts: float | None = None
    """Power in training, above idle."""
    speed_jitter: float | None = None
    """Sigma of the log-normal factor of its FLOP/s, drawn for each round, 0 to 3; null: none."""
    network_jitter: float | None = None
    """The same of its up and down together."""
    site: str | None = None
    """Site of `devices.sites` whose link it shares; null: none."""
    source: str | None = None
    """Where the numbers are from."""

    def check(self, key: str) -> None:
        """Check the ranges; `key` is the profile's own, e.g. devices.define.phone.

        Raises:
            BadInput: which value is out of range.
        """
        for name in ("memory", "up", "down"):
            positive(f"{key}.{name}", getattr(self, name))
        for name in ("latency", "watts"):
            at_least(f"{key}.{name}", getattr(self, name), 0)
        for name in ("speed_jitter", "network_jitter"):
            sigma = getattr(self, name)
            require(sigma is None or 0 <= sigma <= 3, f"{key}.{name}", sigma, "from 0 to 3")
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
class Profile:
    """One kind of device.

    Attributes:
        memory: bytes usable for training.
        flops: sustained training FLOP/s by dtype of the frozen base.
        up, down: bytes per second.
        latency: seconds, one way per message.
        dropout: probability of losing a round.
        trace: "1" for rounds in which it is available, "0" for others; repeated.
        watts: drawn above idle while training.
        source: where each number is from, and which of them are assumed.
        speed_jitter, network_jitter: sigma of the log-normal factor, with median 1, of `flops`, and
            of `up` and `down` together, that is drawn for each client and round.
        site: whose link it shares.
    """

    name: str
    memory: int
    flops: dict[str, float]
    up: float
    down: float
    latency: float
    dropout: float
    trace: str
    watts: float
    source: str
    speed_jitter: float = 0.0
    network_jitter: float = 0.0
    site: str | None = None


@lru_cache(maxsize=1)
def library() -> dict[str, Profile]:
    """The profiles that come with comigs, by name, in the order of the file."""
    tree = yaml.safe_load(LIBRARY.read_text(encoding="utf-8"))
    origin = Origin(LIBRARY.name, {})
    return {
        name: _profile(name, build(DeviceConfig, values, origin, name), {})
        for name, values in tree.items()
    }


def profiles_of(define: Mapping[str, DeviceConfig]) -> dict[str, Profile]:
    """The library and the user's own profiles, which come first where a name is the same.

    Raises:
        BadInput: for a profile that lacks a number, or is like one that does not exist.
    """
    known = library()
    return known | {name: _profile(name, own, known) for name, own in define.items()}


def _profile(name: str, own: DeviceConfig, known: Mapping[str, Profile]) -> Profile:
    key = f"devices.define.{name}"
    if own.like is not None and own.like not in known:
        hint = suggest(own.like, known) or f"; known: {', '.join(known)}"
        raise BadInput(
            f"{key}.like is {own.like!r}, which is not in the library{hint}", f"{key}.like"
        )
    start = dataclasses.asdict(known[own.like]) if own.like else {"source": "the user's own"}
    given = {k: v for k, v in dataclasses.asdict(own).items() if v is not None and k != "like"}
    values = start | given | {"name": name}
    if "flops" in given and own.like:
        values["flops"] = start["flops"] | given["flops"]
    fields = [f.name for f in dataclasses.fields(Profile) if f.default is dataclasses.MISSING]
    if missing := [field for field in fields if field not in values]:
        raise BadInput(f"{key} lacks {missing[0]}; give it, or say like: and a profile's name", key)
    for dtype in ("float32", "bfloat16"):
        if dtype not in values["flops"]:
            raise BadInput(
                f"{key}.flops lacks {dtype}; give a rate for float32 and bfloat16", f"{key}.flops"
            )
    return Profile(**values | {"memory": int(values["memory"])})
