"""Clients of unequal shape over one random base, for tests."""

import copy

import torch
import transformers as tf

import comigs
from comigs.backbone.families import FAMILIES
from comigs.mixture.adapters import adapter_parameters
from comigs.mixture.models import bare_copy
from tests.backbone.test_families import CONFIGS
from tests.mixture.test_more_families import MORE

SHAPES = (  # specialists, top k, rank, routed
    (1, 2, 4, True),
    (0, 1, 2, True),
    (3, 2, 3, True),
    (2, 1, 4, True),
    (2, 2, 4, False),
)

TOGETHER = [name for name, family in FAMILIES.items() if family.together]
APART = [name for name, family in FAMILIES.items() if not family.together]


def base_of(family):
    torch.manual_seed(0)
    config = copy.deepcopy((CONFIGS | MORE)[family])
    return tf.AutoModelForCausalLM.from_config(config).eval()


def clients_of(family, shapes=SHAPES):
    """The base, and a client of each shape with random adapters over it."""
    base = base_of(family)
    models = []
    for number, (specialists, top_k, rank, routed) in enumerate(shapes):
        experts = comigs.ExpertsConfig(
            specialists=specialists, top_k=top_k, rank=rank, routed=routed
        )
        model = comigs.add_experts(bare_copy(base), experts)
        at_random(model, number)
        models.append(model)
    return base, models


@torch.no_grad()
def at_random(model, seed):
    """Gives a model small random adapters."""
    rng = torch.Generator().manual_seed(seed)
    for parameter in adapter_parameters(model).values():
        parameter.copy_(torch.randn(parameter.shape, generator=rng) * 0.1)
