"""The one place that sets how many threads torch uses: sums depend on it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def use_threads(count: int) -> None:
    """Use `count` threads in this process from now on."""
    torch.set_num_threads(count)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Use `count` threads within the context."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
