"""Aggregators: pure functions on dicts of tensors, one file each, named by `Method.aggregator`.

Each file defines `aggregate(updates, weights)`.
"""

import importlib
from collections.abc import Callable, Mapping

from torch import Tensor

Updates = Mapping[int, Mapping[str, Tensor]]
Aggregator = Callable[[Updates, Mapping[int, float]], dict[str, Tensor]]


def find_aggregator(name: str) -> Aggregator:
    """Return `aggregate` of server/aggregation/<name>.py."""
    return importlib.import_module(f"{__name__}.{name}").aggregate
