"""Freed memory stays in the process: blocks allocated again cause no page faults."""

import subprocess
import sys

import pytest

SCRIPT = """
import ctypes, resource
from comigs.heap import keep_freed_memory
libc, size = ctypes.CDLL("libc.so.6"), 20_000_000
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [libc.malloc(size) for _ in range(4)]
    for block in blocks:
        libc.memset(block, 1, size)
    for block in blocks:
        libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
if KEEP:
    keep_freed_memory()
print([faults() for _ in range(3)][-1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_a_block_that_is_allocated_again_causes_no_page_faults():
    found = [
        int(subprocess.check_output([sys.executable, "-c", f"KEEP = {keep}\n{SCRIPT}"]))
        for keep in (False, True)
    ]
    assert found[1] < found[0] / 10, found
