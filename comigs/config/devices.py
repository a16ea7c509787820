"""The configuration's `devices` section: which device each client is, and what must fit on it."""

from dataclasses import dataclass, field
from typing import Literal

from comigs.config.profiles import DeviceConfig, profiles_of
from comigs.errors import BadInput
from comigs.schema.build import suggest
from comigs.schema.rules import require


@dataclass(frozen=True)
class DevicesConfig:
    profiles: list[str] | dict[str, int] | None = None
    """Device of each client, or how many there are of each; null: no devices are simulated."""
    order: Literal["independent", "agreeing", "opposed"] = "independent"
    """Whether clients with more text have devices of more power (agreeing) or less (opposed)."""
    define: dict[str, DeviceConfig] = field(default_factory=dict)
    """Profiles of your own, by name."""
    fit: Literal["check", "derive"] = "check"
    """Refuse what is too large for a device, or make it fit."""
    margin: float = 0.1
    """Share of a device's memory to leave free."""

    def __post_init__(self) -> None:
        require(0 <= self.margin < 1, "devices.margin", self.margin, "in [0, 1)")
        for name, device in self.define.items():
            device.check(f"devices.define.{name}")
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
