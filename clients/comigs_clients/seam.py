"""Where a device ends: what a server gets to know of what went wrong on it."""

import sys

from flwr.app import Context

from comigs.errors import ComigsError, Refusal, one_line

MOST = 2000  # characters of an error in the device's log


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
    print(f"{one_line(error):.{MOST}}", file=sys.stderr, flush=True)
    return Told(error.public if isinstance(error, Refusal) else "refused (failed)")
