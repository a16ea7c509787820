"""Federated fine-tuning of language models on unequal devices with mixtures of LoRA experts."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from comigs.adapters import load_experts, save_experts, training_experts, training_router
    from comigs.api import RunResult, run
    from comigs.config import ExpertsConfig
    from comigs.errors import BadInput, ComigsError
    from comigs.experts import add_experts, balance_loss, using_expert

__version__ = "0.1.0"

_HOME = {
    "add_experts": "comigs.experts",
    "balance_loss": "comigs.experts",
    "using_expert": "comigs.experts",
    "training_experts": "comigs.adapters",
    "training_router": "comigs.adapters",
    "save_experts": "comigs.adapters",
    "load_experts": "comigs.adapters",
    "ExpertsConfig": "comigs.config",
    "BadInput": "comigs.errors",
    "ComigsError": "comigs.errors",
    "run": "comigs.api",
    "RunResult": "comigs.api",
}

__all__ = [
    "BadInput",
    "ComigsError",
    "ExpertsConfig",
    "RunResult",
    "add_experts",
    "balance_loss",
    "load_experts",
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
