"""How many cores this process may use: what the machine has is not what a container gives it."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath


def cores(root: Path = Path("/")) -> int:
    """Cores that this process may use at the same time, at least 1.

    The fewest of what it is bound to and of its control groups' quotas of CPU time (cgroup v1 and
    v2), rounded down: threads that share less than a core each wait for one another.

    Args:
        root: where /proc and /sys are.
    """
    bound = getattr(os, "sched_getaffinity", None)
    count = len(bound(0)) if bound else os.cpu_count() or 1
    return max(1, min([count, *(int(quota) for quota in _quotas(root))]))


def _quotas(root: Path) -> Iterator[float]:
    """CPUs that each control group around this process leaves it, where it has a quota."""
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, names, path = line.split(":", 2)
            if names and "cpu" not in names.split(","):
                continue
            home = root / "sys/fs/cgroup" / names
            # A container may see its own group as the top one, whatever it is called outside.
            for group in (PurePosixPath(path), *PurePosixPath(path).parents, PurePosixPath("/")):
                place = home / str(group).lstrip("/")
                with suppress(OSError, ValueError):
                    quota, period = _of_group(place, names)
                    if quota > 0 and period > 0:
                        yield quota / period


def _of_group(place: Path, names: str) -> tuple[float, float]:
    """(quota, period) in microseconds; a ValueError where there is none."""
    if not names:
        quota, period = (place / "cpu.max").read_text().split()
    else:
        quota, period = ((place / f"cpu.cfs_{what}_us").read_text() for what in ("quota", "period"))
    return float(quota) if quota != "max" else 0.0, float(period)
