"""The server's own random secret, from which everything comes that no client may foresee."""

import re
import secrets
from pathlib import Path

from comigs.errors import ComigsError
from comigs.store.plain import read_plain
from comigs.store.whole import write_whole

NAME = "secret"


def server_secret(root: Path) -> str:
    """The secret of a run, 256 bits in hexadecimal; drawn at its start, and read ever after.

    It is in no configuration, message or report. Whoever has it can take the noise off the tensors
    of a private run, and knows who was drawn.

    Args:
        root: the server's checkpoint folder.

    Raises:
        ComigsError: when the file is damaged or cannot be written.
    """
    path = root / NAME
    try:
        if not path.exists():
            root.mkdir(parents=True, exist_ok=True)
            write_whole(path, secrets.token_hex(32), 0o600)
        text = read_plain(path, root, 1024).decode("ascii", "replace")
    except OSError as error:
        raise ComigsError(f"{path} could not be written or read: {error.strerror}") from None
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise ComigsError(f"{path} is damaged; the run cannot go on as it began: start a new one")
    return text
