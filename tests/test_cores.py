"""Cores that a process may use, with quotas of control groups as containers show them."""

import os

import pytest

from comigs.config.load import load_config
from comigs.cores import cores
from comigs.federation.machine import on_this_machine


def system(root, groups, **files):
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    for path, text in files.items():
        place = root / "sys/fs/cgroup" / path.replace("__", "/").replace("_dot_", ".")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    return root


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)


@pytest.mark.parametrize(
    ("groups", "files", "count"),
    [
        ("0::/\n", {"cpu_dot_max": "max 100000\n"}, 8),
        ("0::/\n", {"cpu_dot_max": "50000 100000\n"}, 1),
        ("0::/\n", {"cpu_dot_max": "100000 100000\n"}, 1),
        ("0::/\n", {"cpu_dot_max": "350000 100000\n"}, 3),
        ("0::/\n", {"cpu_dot_max": "1600000 100000\n"}, 8),
        ("0::/\n", {"cpu_dot_max": "nonsense"}, 8),
        ("0::/\n", {}, 8),
        ("0::/a/b\n", {"a__cpu_dot_max": "200000 100000", "a__b__cpu_dot_max": "max 100000"}, 2),
        ("0::/far/away\n", {"cpu_dot_max": "200000 100000"}, 2),
        (
            "5:memory:/x\n4:cpu,cpuacct:/\n",
            {
                "cpu,cpuacct__cpu_dot_cfs_quota_us": "150000\n",
                "cpu,cpuacct__cpu_dot_cfs_period_us": "100000\n",
            },
            1,
        ),
        (
            "4:cpu:/docker/f00\n",
            {"cpu__cpu_dot_cfs_quota_us": "400000\n", "cpu__cpu_dot_cfs_period_us": "100000\n"},
            4,
        ),
        (
            "4:cpu:/\n0::/\n",
            {"cpu__cpu_dot_cfs_quota_us": "-1\n", "cpu__cpu_dot_cfs_period_us": "100000\n"},
            8,
        ),
        ("3:cpuset:/\n", {"cpuset__cpu_dot_cfs_quota_us": "1"}, 8),
    ],
)
def test_the_tightest_quota_counts(tmp_path, groups, files, count):
    assert cores(system(tmp_path, groups, **files)) == count


def test_no_control_groups_are_no_quota(tmp_path):
    assert cores(tmp_path) == 8


def test_a_system_without_affinity_counts_its_cores(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert cores(tmp_path) == 3
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores(tmp_path) == 1


def test_threads_and_workers_follow(monkeypatch):
    monkeypatch.setattr("comigs.federation.machine.cores", lambda: 6)
    assert on_this_machine(load_config(None, ["engine=inline"])).threads == 6
    ray = on_this_machine(load_config(None, ["engine=ray"]))
    assert (ray.engine.workers, ray.threads) == (6, 1)
    two = on_this_machine(load_config(None, ["engine=ray", "engine.workers=2"]))
    assert two.threads == 3
