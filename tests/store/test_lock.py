"""Locks on files, by the call of this system and by that of the other."""

import os
import sys
import types

import pytest

from comigs.store import lock as module
from comigs.store.lock import lock


@pytest.fixture
def two(tmp_path):
    """The same file opened twice, as two processes would have it."""
    handles = [os.open(tmp_path / "lock", os.O_CREAT | os.O_RDWR) for _ in range(2)]
    yield handles
    for handle in handles:
        os.close(handle)


def test_one_at_a_time(two):
    lock(two[0])
    with pytest.raises(BlockingIOError):
        lock(two[1], wait=False)
    os.close(two[0])
    lock(two[1], wait=False)
    two[0] = os.open(os.devnull, os.O_RDONLY)


def test_where_the_system_cannot_wait_it_is_asked_again(two, monkeypatch):
    tries = []

    def locking(handle, mode, size):
        assert (mode, size) == (2, 1)
        tries.append(handle)
        if len(tries) < 4:
            raise PermissionError(13, "held")

    fake = types.SimpleNamespace(locking=locking, LK_NBLCK=2)
    monkeypatch.setitem(sys.modules, "msvcrt", fake)
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(module, "AGAIN", 0)
    with pytest.raises(BlockingIOError):
        lock(two[0], wait=False)
    lock(two[0])
    assert tries == [two[0]] * 4
