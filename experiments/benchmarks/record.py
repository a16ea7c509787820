"""Where benchmarks leave their results, and the machine they were measured on."""

import json
import os
import warnings
from pathlib import Path
from typing import Any

import torch

from comigs.hardware import processor
from comigs.heap import keep_freed_memory

RESULTS = Path("experiments/benchmarks/results")


def prepare() -> None:
    """Set the process up as comigs does, and keep warnings of libraries out of the tables."""
    keep_freed_memory()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")


def save(path: Path, **results: Any) -> None:
    """Write `results` as JSON with the machine."""
    machine = {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine} | results, indent=1) + "\n", encoding="utf-8")
