"""Where a device ends: what a server gets to know of what went wrong on it."""

import errno
import os
import sys
from contextlib import suppress

from flwr.app import Context

from comigs.errors import ComigsError, Refusal, one_line

MOST = 2000  # characters of an error in the device's log
DISK_FULL = "disk-full"
NO_SPACE = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))


def embedded(context: Context) -> bool:
    """Whether the client runs in the same user's run on the same machine, not behind a SuperLink.

    The node config is the device's own: no message can change it.
    """
    return context.node_config.get("embedded") is True


class Told(ComigsError):
    """What a server is told: a code, and nothing that is the device's own."""


def told(error: Exception) -> Told:
    """The error as a server may see it. Its text goes to the device's log."""
    if isinstance(error, Told):
        return error
    with suppress(OSError):  # the log may be where no space is left
        print(f"{one_line(error):.{MOST}}", file=sys.stderr, flush=True)
    if isinstance(error, Refusal):
        return Told(error.public)
    return Told(f"refused ({DISK_FULL if is_full(error) else 'failed'})")


def is_full(error: Exception) -> bool:
    """Whether it came of a full disk: safetensors and `comigs.store` have the system's words."""
    return any(words in str(error) for words in NO_SPACE)
