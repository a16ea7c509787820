"""The one place that chooses where a process keeps its tensors: the CPU, or one accelerator."""

import contextlib
import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING

from comigs.errors import BadInput
from comigs.memory import available_memory

if TYPE_CHECKING:
    import torch

DEVICES = r"auto|cpu|mps|cuda(:\d{1,3})?"
_chosen = "cpu"


def resolve_device(wanted: str) -> str:
    """The device that `device: auto` stands for, CUDA where it is there; any other as it is.

    Raises:
        BadInput: it is no device, or this machine has none of it.
    """
    import torch

    if not re.fullmatch(DEVICES, wanted):
        raise BadInput(f"device is {wanted!r}; it must be auto, cpu, cuda, cuda:1 or mps", "device")
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = wanted.partition(":")
    if kind == "cuda":
        have = torch.cuda.device_count() if torch.cuda.is_available() else 0
    elif kind == "mps":
        have = int(torch.backends.mps.is_available())
    else:
        have = 1
    if int(number or 0) >= have:
        there = f"this machine has {have} of it" if have else "this machine has none"
        raise BadInput(f"device is {wanted!r}; {there}: use auto or cpu", "device")
    return wanted


def use_device(name: str) -> None:
    """Load what this process loads from now on to `name`, which `resolve_device` has returned."""
    global _chosen
    _chosen = name


def device() -> "torch.device":
    """Where this process loads its models: the CPU until `use_device` is called."""
    import torch

    return torch.device(_chosen)


def device_name(name: str) -> str:
    """What a person calls a device: of a GPU the name of its make, too."""
    if not name.startswith("cuda"):
        return name
    import torch

    return f"{name} ({torch.cuda.get_device_name(name)})"


def free_memory(name: str) -> int | None:
    """Bytes that a device has left; None where the system does not tell."""
    if not name.startswith("cuda"):
        return available_memory()
    import torch

    free: int = torch.cuda.mem_get_info(name)[0]
    return free


def processor() -> str:
    """The CPU's name, as far as the system tells."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()
