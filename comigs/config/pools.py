"""The configuration's `ray` section: where Ray is, and what the workers of a device class get."""

import re
from dataclasses import dataclass, field

from comigs.schema.rules import at_least, positive, require


@dataclass(frozen=True)
class PoolConfig:
    workers: int | None = None
    """Processes of the pool; null: engine.workers."""
    cpus: float | None = None
    """CPUs of each worker, as Ray counts them; null: threads."""
    gpus: float = 0.0
    """GPUs of each worker; 0.5 puts two on one."""
    resources: dict[str, float] = field(default_factory=dict)
    """Resources of your own that each worker takes, by name."""

    def check(self, key: str) -> None:
        """Check the ranges; `key` is the pool's own, e.g. ray.pools.phone.

        Raises:
            BadInput: which value is out of range.
        """
        at_least(f"{key}.workers", self.workers, 1)
        positive(f"{key}.cpus", self.cpus)
        at_least(f"{key}.gpus", self.gpus, 0)
        whole = self.gpus <= 1 or self.gpus == int(self.gpus)
        require(whole, f"{key}.gpus", self.gpus, "a whole number, or a share below 1")
        for name, amount in self.resources.items():
            own = f"{key}.resources.{name}"
            require(name not in ("CPU", "GPU"), own, amount, "under another name; see cpus, gpus")
            positive(own, amount)


@dataclass(frozen=True)
class RayConfig:
    address: str | None = None
    """A cluster (auto, or host:port); null: Ray is started here."""
    pools: dict[str, PoolConfig] = field(default_factory=dict)
    """What workers get, by device class; `default` for the others."""

    def __post_init__(self) -> None:
        good = self.address is None or re.fullmatch(r"auto|[^/\s]+:\d+", self.address)
        require(bool(good), "ray.address", self.address, "auto, host:port or null")
        for name, pool in self.pools.items():
            pool.check(f"ray.pools.{name}")
