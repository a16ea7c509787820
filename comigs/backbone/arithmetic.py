"""In which type this machine multiplies matrices: bf16 is up to 70 times slower on many CPUs.

A run keeps its type wherever it goes on, so that such CPUs have bf16 too: what goes into a product
is widened, and its result is rounded once, as instructions for bf16 do. That is nearly as fast as
a product in fp32.
"""

import json
import time
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from comigs.backbone.cache import cache_folder
from comigs.config.model import NATIVE
from comigs.hardware import processor
from comigs.store.whole import write_whole

ROWS, WIDTH = 128, 768  # of the product that is timed: the shape of a small model's
TRIES = 3


def fastest(dtype: str, device: str = "cpu") -> str:
    """The type in which products with a base that is stored as `dtype` are done here.

    A base in float32 stays exact. For the others bfloat16 counts if a product in it is not slower
    than one in float32, which a probe of some milliseconds tells once for each machine.
    """
    if NATIVE[dtype] == "float32":
        return "float32"
    return "bfloat16" if remembered(torch.device(device).type) else "float32"


@cache
def remembered(device: str) -> bool:
    """Whether bfloat16 is fast, from the notes of this machine or by the probe."""
    gpu = torch.cuda.get_device_name() if device == "cuda" else ""
    kind = gpu or f"{processor()} {torch.backends.cpu.get_cpu_capability()}"
    key = f"{device}: {kind}, torch {torch.__version__}"
    notes: dict[str, bool] = {}
    try:
        file = cache_folder() / "arithmetic.json"
        if file.is_file():
            notes = dict(json.loads(file.read_text(encoding="utf-8")))
        if not isinstance(notes.get(key), bool):
            notes[key] = bfloat16_is_fast(device)
            file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(file, json.dumps(notes, indent=1) + "\n")
    except (OSError, ValueError, TypeError, RuntimeError):  # no home, or a damaged note
        notes[key] = bfloat16_is_fast(device)
    return notes[key]


def multiply(operation: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """What a product of matrices of one type is; of bf16 ones where that is slow, done in fp32."""
    first = tensors[0]
    if product_type(first.dtype, first.device.type) == first.dtype:
        return operation(*tensors)
    return operation(*(t.float() for t in tensors)).to(first.dtype)


def product_type(dtype: torch.dtype, device: str) -> torch.dtype:
    """The type that a product of `dtype` is done in: float32 where bfloat16 is slow."""
    if dtype != torch.bfloat16 or device != "cpu" or remembered(device):
        return dtype
    return torch.float32


def bfloat16_is_fast(device: str) -> bool:
    """Whether a bf16 product, forward and backward, takes at most as long as an fp32 one."""
    return _seconds(torch.bfloat16, device) <= _seconds(torch.float32, device)


def _seconds(dtype: torch.dtype, device: str) -> float:
    """The shortest time of a product of each of the two kinds."""
    x = torch.full((ROWS, WIDTH), 0.5, dtype=dtype, device=device)
    w = torch.full((WIDTH, WIDTH), 0.5, dtype=dtype, device=device)

    def once() -> float:
        begin = time.perf_counter()
        float((x @ w.t() @ w)[0, 0])  # waits for an accelerator, too
        return time.perf_counter() - begin

    once()
    return min(once() for _ in range(TRIES))
