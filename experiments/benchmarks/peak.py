"""The most bytes that a step's tensors take at once, on the CPU or on a GPU."""

from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile


def peak_bytes(step: Callable[[], object]) -> int:
    """Peak of live tensor bytes during a step, above its start."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return torch.cuda.max_memory_allocated() - before
    return peak_bytes_on_cpu(step)


def peak_bytes_on_cpu(step: Callable[[], object]) -> int:
    """The same of tensors in the machine's own memory."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        step()
    live = peak = 0
    for event in record.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    return peak
