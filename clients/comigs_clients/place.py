"""Where a device keeps what belongs to a run."""

import hashlib
import os
import tempfile
from pathlib import Path

from comigs.config.flower import FlowerConfig
from comigs.errors import BadInput, ComigsError, Refusal


def run_folder(state_dir: str, run: str | None) -> Path:
    """The folder of the run, for nobody else's eyes; a device behind a SuperLink has many runs.

    Args:
        state_dir: from the node config.
        run: `flower.run`; None in an embedded engine, whose folder has one run only.

    Raises:
        Refusal: the name is not that of a folder.
    """
    folder = Path(state_dir).expanduser()
    if run is not None:
        try:
            folder = folder / str(FlowerConfig(run=run).run)
        except BadInput as error:
            raise Refusal("bad-config", str(error), "flower.run") from None
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def socket_of(folder: Path) -> Path:
    """The Unix socket of the trainer that works in `folder`: a short path, on a local disk.

    Raises:
        ComigsError: another user has taken the place.
    """
    home = Path(tempfile.gettempdir()) / f"comigs-{os.getuid()}"
    home.mkdir(mode=0o700, exist_ok=True)
    about = home.lstat()
    if home.is_symlink() or about.st_uid != os.getuid() or about.st_mode & 0o077:
        raise ComigsError(f"{home} is not a folder of this user's alone; remove it")
    return home / hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:20]
