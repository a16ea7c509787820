"""A container's limit of memory, as control groups of version 1 and 2 show it."""

import pytest

from comigs.memory import memory_kills, memory_limit

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
