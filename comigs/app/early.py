"""What can be refused at once, before the libraries are loaded that a run needs."""

import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from comigs.app.source import with_source
from comigs.backbone.names import model_source
from comigs.config.load import load_config
from comigs.config.settings import RunConfig
from comigs.data.corpus import federation_folder, forget_changed
from comigs.data.names import PACKED, TABLES, unread_in
from comigs.data.roster import roster
from comigs.methods import find_method


def wanted_of(source: str | Path | Mapping[str, Any] | None, overrides: Sequence[str]) -> RunConfig:
    """A configuration as it was asked for, of which nothing is known to be missing.

    Texts that have changed since they were read are read anew.

    Raises:
        BadInput: as `load_config`, `with_source` and `check_names`.
    """
    wanted = with_source(load_config(source, overrides))
    forget_changed(wanted.data.name)
    check_names(wanted)
    return wanted


def check_names(config: RunConfig) -> None:
    """Refuse a method, a model or texts that are not there, and say which files are not read.

    Behind a SuperLink the texts and the model are the devices' own.

    Raises:
        BadInput: naming what there is.
    """
    find_method(config.method)
    if config.engine.name != "flower":
        model_source(config.model.name)
        roster(config)
        _tell_unread(federation_folder(config.data.name))


@lru_cache
def _tell_unread(folder: Path) -> None:
    """Once, however many runs of a suite are on these texts."""
    ways = {TABLES: "comigs data prepare makes text of them", PACKED: "unpack them, or use xz"}
    for endings, way in ways.items():
        if files := unread_in(folder, endings):
            logging.getLogger("comigs").warning(
                "beside the texts, %s is not read (%d such files); %s", files[0], len(files), way
            )
