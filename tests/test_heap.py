"""Freed memory stays in the process: blocks allocated again cause no page faults."""

import subprocess
import sys

import pytest

SCRIPT = """
import resource, torch
from comigs.heap import keep_freed_memory
if {keep}: keep_freed_memory()
torch.set_num_threads(1)
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.empty(10_000_000).fill_(1.0) for _ in range(2)]
    del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_a_block_that_is_allocated_again_causes_no_page_faults():
    found = {
        keep: int(subprocess.check_output([sys.executable, "-c", SCRIPT.format(keep=keep)]))
        for keep in (False, True)
    }
    assert found[True] < 100 < found[False]
