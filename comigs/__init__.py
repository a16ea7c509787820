"""Federated fine-tuning of language models on unequal devices with mixtures of LoRA experts."""

import importlib
import logging
from typing import TYPE_CHECKING, Any

from comigs.version import __version__

if TYPE_CHECKING:
    from comigs.app.result import RunResult
    from comigs.app.result import open as open
    from comigs.app.run import resume, run
    from comigs.config.experts import ExpertsConfig
    from comigs.errors import BadInput, ComigsError
    from comigs.export.load import load
    from comigs.mixture.adapters import (
        load_experts,
        save_experts,
        training_experts,
        training_router,
    )
    from comigs.mixture.experts import add_experts, balance_loss, using_expert

# Where it is installed PEFT imports it, and it warns of a kernel that it could not fetch.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

_HOME = {
    "add_experts": "comigs.mixture.experts",
    "balance_loss": "comigs.mixture.experts",
    "using_expert": "comigs.mixture.experts",
    "training_experts": "comigs.mixture.adapters",
    "training_router": "comigs.mixture.adapters",
    "save_experts": "comigs.mixture.adapters",
    "load_experts": "comigs.mixture.adapters",
    "ExpertsConfig": "comigs.config.settings",
    "BadInput": "comigs.errors",
    "ComigsError": "comigs.errors",
    "load": "comigs.export.load",
    "open": "comigs.app.result",
    "resume": "comigs.app.run",
    "run": "comigs.app.run",
    "RunResult": "comigs.app.result",
}

__all__ = [
    "BadInput",
    "ComigsError",
    "ExpertsConfig",
    "RunResult",
    "__version__",
    "add_experts",
    "balance_loss",
    "load",
    "load_experts",
    "resume",
    "run",
    "save_experts",
    "training_experts",
    "training_router",
    "using_expert",
]


def __getattr__(name: str) -> Any:
    """Import on first use: `comigs --help` must not wait for torch."""
    if name not in _HOME:
        raise AttributeError(f"module 'comigs' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
