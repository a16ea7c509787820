"""The clients of a run: which train, and each one's text, experts and model."""

from dataclasses import replace

from peft import PeftModel

from comigs.config.experts import ExpertsConfig
from comigs.config.model import ModelConfig
from comigs.config.settings import RunConfig
from comigs.data.tokens import ClientData, client_data, pooled_data, roster
from comigs.methods import find_method
from comigs.mixture.models import expert_model, new_model


def training_clients(config: RunConfig) -> tuple[str, ...]:
    """Names of the clients that train: the roster, or one that holds everybody's text."""
    return ("all",) if find_method(config.method).pooled else roster(config)


def data_of(config: RunConfig, client: int) -> ClientData:
    pooled = find_method(config.method).pooled
    return pooled_data(config) if pooled else client_data(config, client)


def experts_of(config: RunConfig, client: int) -> ExpertsConfig:
    """The client's experts in the layout of the method."""
    return find_method(config.method).experts(config.experts.for_client(client))


def model_of(config: RunConfig, client: int, rank: int | None = None, slot: int = 0) -> PeftModel:
    """This process's model of the client's shape; its adapter values are whoever used it last.

    Args:
        rank: the client's LoRA rank now, if pruning has changed it.
        slot: number of the client among those that train at the same time.
    """
    return expert_model(*_shape_of(config, client, rank), slot)


def own_model_of(config: RunConfig, client: int, rank: int | None = None) -> PeftModel:
    """A model of the client's shape for the caller alone; see `model_of`."""
    return new_model(*_shape_of(config, client, rank))


def _shape_of(
    config: RunConfig, client: int, rank: int | None
) -> tuple[ModelConfig, ExpertsConfig]:
    experts = experts_of(config, client)
    experts = replace(experts, rank=rank) if rank else experts
    return config.model.for_client(client), experts


def steps_per_round(config: RunConfig) -> int:
    """Local steps of one training client in one round; the same in total for every method."""
    pooled = find_method(config.method).pooled
    return config.local_steps * (len(roster(config)) if pooled else 1)
