"""Freed memory stays in the process, and imports go on without looking for garbage."""

import gc
import subprocess
import sys

import pytest

from comigs.heap import importing

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


IMPORTS = """
import gc
from comigs.heap import importing, own_process
if OWN:
    own_process()
told = [gc.get_freeze_count()]
for _ in range(2):
    with importing():
        told.append(gc.isenabled())
        made = [[each] for each in range(1000)]
    told.append(gc.get_freeze_count() - told[0])
print(told[1], told[3], gc.isenabled(), told[2], told[4] - told[2])
"""


@pytest.mark.parametrize("own", [False, True])
def test_imports_are_looked_through_by_no_collection_in_a_process_of_our_own(own):
    code = f"OWN = {own}\n{IMPORTS}"
    paused, again, after, frozen, later = subprocess.check_output(
        [sys.executable, "-c", code], text=True
    ).split()
    assert (paused, again, after) == ("False", "False", "True")
    assert (int(frozen) > 1000) is own
    assert int(later) <= 0  # what is made between two blocks may become garbage


def test_who_had_no_collection_before_an_import_has_none_behind_it():
    enabled = gc.isenabled()
    gc.disable()
    try:
        with pytest.raises(ImportError), importing():
            raise ImportError
        assert not gc.isenabled()
    finally:
        if enabled:
            gc.enable()
