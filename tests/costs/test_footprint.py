"""What a client process occupies in all: predicted, and under a limit that the kernel enforces."""

import json
import subprocess
import sys

import pytest

from comigs.config.load import load_config
from comigs.costs.footprint import peak_resident, process_memory
from comigs.costs.memory import peak_memory
from tests.helpers import client_of

pytest_plugins = ("tests.fixtures",)

linux = pytest.mark.skipif(sys.platform != "linux", reason="limits are the Linux kernel's")


def test_the_parts_are_the_libraries_and_the_tensors(tree, monkeypatch):
    monkeypatch.setattr("comigs.costs.footprint.library_memory", lambda: 1000)
    small, large = (client_of(load_config(tree), number) for number in (0, 2))
    memory = peak_memory(large)
    assert process_memory(large) == 1000 + memory.total
    assert process_memory(large) > process_memory(small)


@pytest.mark.slow
def test_the_peak_of_this_process_counts_what_it_touches():
    before = peak_resident()
    touched = b"\1" * (2 * before)
    assert peak_resident() >= len(touched)


@linux
@pytest.mark.slow
def test_a_client_trains_within_the_predicted_memory_and_not_within_half_of_it(tree, tmp_path):
    from experiments.benchmarks.limits import attempt, kind

    by = kind()
    free = attempt(tree, tmp_path / "free", None, by)
    assert process_memory(client_of(load_config(tree))) == pytest.approx(free.resident, rel=0.15)
    room = int(1.2 * (free.resident - free.uncounted))
    if by == "RLIMIT_DATA":
        pytest.skip("no cgroup can be made here; RLIMIT_DATA counts what is reserved, too")
    assert attempt(tree, tmp_path / "enough", room, by).survived
    assert not attempt(tree, tmp_path / "too little", room // 2, by).survived


@linux
@pytest.mark.slow
def test_a_run_holds_what_the_plan_says_of_the_host(tree, tmp_path):
    code = (
        "import sys, json\n"
        "from comigs.heap import own_process\n"
        "own_process()\n"
        "from comigs.app import run as api\n"
        "from comigs.costs.footprint import peak_resident\n"
        "tree = json.loads(sys.argv[1])\n"
        "_, plan = api.plan(tree)\n"
        "api.run(tree, out=sys.argv[2])\n"
        "print(plan.host_memory['inline'], peak_resident())\n"
    )
    tree = tree | {"experts": {"specialists": [0, 1, 3]}, "batch_size": 32, "rounds": 1}
    command = [sys.executable, "-c", code, json.dumps(tree), str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    predicted, measured = map(int, done.stdout.split())
    assert predicted == pytest.approx(measured, rel=0.15)
