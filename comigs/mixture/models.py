"""The models of a process: module trees of their own over one frozen base."""

import copy
from functools import lru_cache
from typing import cast

from peft import PeftModel
from transformers import PreTrainedModel

from comigs.backbone.base import load_base
from comigs.config.experts import PLAIN, ExpertsConfig, Routes
from comigs.config.model import ModelConfig
from comigs.mixture.experts import add_experts


def bare_copy(base: PreTrainedModel) -> PreTrainedModel:
    """A second module tree over the very same weight tensors."""
    shared = {id(t): t for t in (*base.parameters(), *base.buffers())}
    return copy.deepcopy(base, memo=shared)


def new_model(model: ModelConfig, experts: ExpertsConfig, routes: Routes = PLAIN) -> PeftModel:
    """A model of this shape that nobody else uses; the frozen base is shared.

    Args:
        model, experts: of one client (`for_client`).
        routes: how its routers decide.
    """
    base = load_base(model.name, cast(str, model.dtype), cast(str, model.compute))
    return add_experts(bare_copy(base), experts, model.attention_lora, routes)


@lru_cache(maxsize=128)
def expert_model(
    model: ModelConfig, experts: ExpertsConfig, slot: int = 0, routes: Routes = PLAIN
) -> PeftModel:
    """The model for clients whose experts have this shape; clients differ in adapter values.

    Args:
        model, experts, routes: as `new_model` takes them.
        slot: number of the client among those that train at the same time, from 0.
    """
    return new_model(model, experts, routes)
