"""Locks on open files, which end with the process: on every system by its own call."""

import os
import sys
import time

AGAIN = 0.1  # seconds between tries, where the system cannot wait itself


def lock(handle: int, wait: bool = True) -> None:
    """Lock an open file against other processes until it is closed.

    Raises:
        BlockingIOError: another process holds it, and `wait` is false.
    """
    if sys.platform == "win32":
        import msvcrt

        while True:
            try:
                os.lseek(handle, 0, os.SEEK_SET)
                msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
                return
            except OSError as error:
                if not wait:
                    raise BlockingIOError(error.errno, "another process holds it") from None
            time.sleep(AGAIN)
    import fcntl

    fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
