"""The run that a device has agreed to: pinned at first contact, the same for the run's whole life.

Whatever decides what is computed and what leaves (`comigs.config.load.identity`: method, data,
model, experts, router, privacy, payload, rounds, ...) stays as it came first. What may change is
how it is run: the engine, timeouts, and logs.
"""

import json
import os
from pathlib import Path
from secrets import token_hex
from typing import Any

from comigs.config.load import identity
from comigs.config.settings import RunConfig
from comigs.errors import Refusal
from comigs.messages.plain import MOST_CHARACTERS
from comigs.store.plain import read_plain

PIN = "pin.json"
_held: list[Any] = []  # the file, its stamp and the configuration that agreed last


def hold_to(config: RunConfig, folder: Path) -> None:
    """Pin the run of `folder` to `config`; or see that it is what was pinned.

    Raises:
        Refusal: a setting differs from the pinned one, or the pin cannot be read.
    """
    path = folder / PIN
    if _held[:2] == [path, _stamp(path)] and _held[2] is config:
        return
    now, default = identity(config), identity(RunConfig())
    if not os.path.lexists(path):
        _create(path, now)
    stamp = _stamp(path)
    try:
        pinned = default | json.loads(read_plain(path, folder, 2 * MOST_CHARACTERS))
    except Exception as error:
        raise Refusal("bad-pin", f"{path} cannot be read ({error})") from None
    now = default | now
    for key in sorted(pinned | now):
        if key not in pinned or key not in now or pinned[key] != now[key]:
            known = key if key in default else ""
            raise Refusal("pinned", f"this run was begun with another {key}", known)
    _held[:] = [path, stamp, config]


def _stamp(path: Path) -> tuple[int, ...]:
    """Changes when the file does; () without one."""
    try:
        about = path.lstat()
    except OSError:
        return ()
    return about.st_ino, about.st_mtime_ns, about.st_ctime_ns, about.st_size


def _create(path: Path, pinned: dict[str, Any]) -> None:
    """Write the file whole, unless another process has been faster."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{PIN}.{token_hex(8)}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(handle, "w", encoding="utf-8") as file:
            json.dump(pinned, file, sort_keys=True)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
