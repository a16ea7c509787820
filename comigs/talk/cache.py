"""Keys and values of the tokens that rows of a batch have read; rows join and leave.

The tokens of a row stand at the right end, so that all rows grow by the same column.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer

ROOM = 64  # columns that are made at once


class Layer(DynamicLayer):
    """Of one layer of the model; with room, so that a step does not copy what is there."""

    keys: Tensor
    values: Tensor
    _room: tuple[Tensor, ...] = ()

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Put a column or more behind those that are there. Returns all keys and all values."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        have = self.get_seq_length()
        need = have + key_states.shape[-2]
        both = ((self.keys, key_states), (self.values, value_states))
        if not self._room or need > self._room[0].shape[-2]:
            self._room = tuple(_with_room(old, new) for old, new in both)
        for place, (_, new) in zip(self._room, both, strict=True):
            place[..., have:need, :] = new
        self.keys, self.values = (place[..., :need, :] for place in self._room)
        return self.keys, self.values

    def put(self, keys: Tensor, values: Tensor) -> None:
        """Hold these instead."""
        self.keys, self.values, self._room = keys, values, ()


def empty_cache() -> Cache:
    """A cache for a pass over rows that have read nothing."""
    return Cache(layer_class_to_replicate=Layer)


def keep(cache: Cache, rows: list[int], columns: int) -> None:
    """Keep some rows, in this order, and of their tokens the last `columns`."""
    for layer in cache.layers:
        index = torch.tensor(rows, device=layer.keys.device)
        some = (t[..., -columns:, :].index_select(0, index) for t in (layer.keys, layer.values))
        layer.put(*some)


def append(cache: Cache, more: Cache) -> None:
    """Put the rows of `more` behind those of `cache`; what is shorter is filled up on the left."""
    for layer, other in zip(cache.layers, more.layers, strict=True):
        width = max(layer.keys.shape[-2], other.keys.shape[-2])
        pairs = ((layer.keys, other.keys), (layer.values, other.values))
        layer.put(*(torch.cat([_wide(each, width) for each in pair]) for pair in pairs))


def _wide(tensor: Tensor, width: int) -> Tensor:
    return F.pad(tensor, (0, 0, width - tensor.shape[-2], 0))


def _with_room(old: Tensor, new: Tensor) -> Tensor:
    have = old.shape[-2] if old.numel() else 0
    *front, length, size = new.shape
    room: Tensor = new.new_empty(*front, have + length + ROOM, size)
    if have:
        room[..., :have, :] = old
    return room
