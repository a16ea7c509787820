"""The configuration's `devices` section: which device each client is, and what must fit on it."""

from dataclasses import dataclass, field
from typing import Literal

from comigs.config.model import Compute, Dtype
from comigs.config.profiles import DeviceConfig, profiles_of
from comigs.errors import BadInput
from comigs.schema.build import suggest
from comigs.schema.rules import at_least, place, positive, require


@dataclass(frozen=True)
class SiteConfig:
    """The link of a site, shared by its devices that take part in a round."""

    up: float | None = None
    """Bytes per second to the server; null: no limit."""
    down: float | None = None
    """Bytes per second from the server; null: no limit."""


@dataclass(frozen=True)
class FittedConfig:
    """What clients with devices of one profile train, where it is less than what is asked for."""

    dtype: Dtype
    """How the frozen base is stored."""
    compute: Compute
    """How its products are done."""
    specialists: int
    """Experts of its own."""
    rank: int
    """Rank of each expert."""
    micro_batch_size: int | None = None
    """Sequences of a forward pass; null: a whole batch."""

    def __post_init__(self) -> None:
        least = {"specialists": 0, "rank": 1, "micro_batch_size": 1}
        for key, value in least.items():
            at_least(f"devices.fitted: {key}", getattr(self, key), value)


@dataclass(frozen=True)
class DevicesConfig:
    profiles: list[str] | dict[str, int] | None = None
    """Device of each client, or how many there are of each; null: no devices are simulated."""
    order: Literal["independent", "agreeing", "opposed"] = "independent"
    """Whether clients with more text have devices of more power (agreeing) or less (opposed)."""
    define: dict[str, DeviceConfig] = field(default_factory=dict)
    """Profiles of your own, by name."""
    sites: dict[str, SiteConfig] = field(default_factory=dict)
    """Links that several devices share, by name; a profile says its `site`."""
    traces: str | None = None
    """File that says when, in simulated time, each device is there; null: always."""
    fit: Literal["check", "derive"] = "check"
    """Refuse what is too large for a device, or make it fit."""
    fitted: dict[str, FittedConfig] = field(default_factory=dict)
    """By profile, filled in by `fit: derive` of more than 10,000 clients."""
    margin: float = 0.1
    """Share of a device's memory to leave free."""

    def __post_init__(self) -> None:
        require(0 <= self.margin < 1, "devices.margin", self.margin, "in [0, 1)")
        for name, device in self.define.items():
            device.check(f"devices.define.{name}")
            if device.site is not None and device.site not in self.sites:
                raise BadInput(
                    f"devices.define.{name}.site is {device.site!r}, which devices.sites lacks; "
                    "give it there",
                    f"devices.define.{name}.site",
                )
        for name, site in self.sites.items():
            positive(f"devices.sites.{name}.up", site.up)
            positive(f"devices.sites.{name}.down", site.down)
        if self.traces is not None:
            place("devices.traces", self.traces)
            if self.profiles is None:
                raise BadInput("devices.traces needs devices.profiles", "devices.traces")
        if isinstance(self.profiles, dict):
            counts = self.profiles
            good = all(n >= 0 for n in counts.values()) and any(counts.values())
            require(good, "devices.profiles", counts, "numbers from 0 up, not all 0")
        if self.profiles is not None or self.define:
            self._check_names()

    def _check_names(self) -> None:
        known = profiles_of(self.define)
        for name in self.profiles or ():
            if name not in known:
                hint = suggest(name, known) or f"; known: {', '.join(known)}"
                raise BadInput(
                    f"devices.profiles has {name!r}, which is not a profile{hint}",
                    "devices.profiles",
                )
