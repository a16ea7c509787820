"""A container's limit of memory, as control groups of version 1 and 2 show it."""

import pytest

from comigs.memory import available_memory, memory_kills, memory_limit

LIMIT, EVENTS = "memory/memory.limit_in_bytes", "memory/memory.oom_control"
V1 = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"
V2 = "low 0\nhigh 0\nmax 12\noom 2\noom_kill 2\noom_group_kill 0\n"


@pytest.mark.parametrize(
    ("files", "limit", "kills"),
    [
        ({"memory.max": "1000000\n", "memory.events": V2}, 1_000_000, 2),
        ({"memory.max": "max\n", "memory.events": V2}, None, 2),
        ({LIMIT: "262144000\n", EVENTS: V1}, 262144000, 3),
        ({LIMIT: "5\n", EVENTS: "under_oom 0\n"}, 5, 0),
        ({}, None, 0),
    ],
)  # fmt: skip
def test_limit_and_kills(tmp_path, files, limit, kills):
    for name, text in files.items():
        place = tmp_path / "sys/fs/cgroup" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    assert memory_limit(tmp_path) == limit
    assert memory_kills(tmp_path) == kills


@pytest.mark.parametrize(
    ("meminfo", "limit", "left"),
    [
        ("MemTotal: 9 kB\nMemAvailable:    8000 kB\n", None, 8_192_000),
        ("MemAvailable:    8000 kB\n", "1000000\n", 1_000_000),
        ("MemTotal: 9 kB\n", None, None),
        (None, None, None),
    ],
)
def test_what_is_left_is_at_most_the_limit(tmp_path, meminfo, limit, left):
    for name, text in {"proc/meminfo": meminfo, "sys/fs/cgroup/memory.max": limit}.items():
        if text is not None:
            place = tmp_path / name
            place.parent.mkdir(parents=True)
            place.write_text(text)
    assert available_memory(tmp_path) == left
