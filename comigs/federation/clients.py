"""What one client of a run works with: its text and its model."""

from dataclasses import replace

from peft import PeftModel

from comigs.config.experts import ExpertsConfig
from comigs.config.model import ModelConfig
from comigs.data.tokens import ClientData, client_data, pooled_data
from comigs.federation.run import Client
from comigs.mixture.models import expert_model, new_model


def data_of(client: Client) -> ClientData:
    """Its text, or everybody's where one trains on all of it."""
    config = client.run.config
    return pooled_data(config) if client.method.pooled else client_data(config, client.number)


def model_of(client: Client, rank: int | None = None, slot: int = 0) -> PeftModel:
    """This process's model of the client's shape; its adapter values are whoever used it last.

    Args:
        rank: the client's LoRA rank now, if pruning has changed it.
        slot: number of the client among those that train at the same time.
    """
    return expert_model(*_shape_of(client, rank), slot, client.config.router.routes)


def own_model_of(client: Client, rank: int | None = None) -> PeftModel:
    """A model of the client's shape for the caller alone; see `model_of`."""
    return new_model(*_shape_of(client, rank), client.config.router.routes)


def _shape_of(client: Client, rank: int | None) -> tuple[ModelConfig, ExpertsConfig]:
    experts = client.experts
    return client.config.model, replace(experts, rank=rank) if rank else experts
