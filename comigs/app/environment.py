"""Where a run computes: versions, processor, device."""

import os
import platform
from typing import Any

from comigs.hardware import device_name, processor
from comigs.version import __version__


def environment(device: str) -> dict[str, Any]:
    from importlib.metadata import version
    from importlib.util import find_spec

    packages = ("torch", "transformers", "peft", "flwr", "ray", "omegaconf")
    return {
        "comigs": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor(),
        "device": device_name(device),
        "cores": os.cpu_count(),
        "packages": {name: version(name) for name in packages if find_spec(name)},
    }
