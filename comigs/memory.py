"""The memory that is left, that a container may use, and whether something died for its limit."""

from contextlib import suppress
from pathlib import Path

PLACES = (  # of cgroup v2, and v1: limit, and what has happened
    ("memory.max", "memory.events"),
    ("memory/memory.limit_in_bytes", "memory/memory.oom_control"),
)


def memory_limit(root: Path = Path("/")) -> int | None:
    """Bytes that the processes of this container may use together; None outside of one.

    Args:
        root: where /sys is.
    """
    for limit, _ in PLACES:
        with suppress(OSError, ValueError):
            return int((root / "sys/fs/cgroup" / limit).read_text())
    return None


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes that new processes here may use; None where the system does not tell.

    Args:
        root: where /proc and /sys are.
    """
    with suppress(OSError):
        lines = dict(
            line.split(":", 1) for line in (root / "proc/meminfo").read_text().splitlines()
        )
        if "MemAvailable" in lines:
            free = int(lines["MemAvailable"].split()[0]) * 1024
            limit = memory_limit(root)
            return free if limit is None else min(free, limit)
    return None


def memory_kills(root: Path = Path("/")) -> int:
    """How many processes of this container the kernel has killed because of its limit."""
    for _, events in PLACES:
        with suppress(OSError):
            lines = (root / "sys/fs/cgroup" / events).read_text().splitlines()
            return int(dict(line.split() for line in lines).get("oom_kill", 0))
    return 0


def first_to_die(process: int) -> None:
    """Have the kernel end this process, and not those that can tell of it, when memory is short."""
    with suppress(OSError):  # not Linux, or it has ended
        Path(f"/proc/{process}/oom_score_adj").write_text("1000")
