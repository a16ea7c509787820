"""Whether codec, privacy and faults suit the method and the server's strategy."""

from collections.abc import Sequence

from comigs.config import ExpertsConfig, RunConfig
from comigs.errors import BadInput
from comigs.methods import find_method


def check_privacy(config: RunConfig, experts: Sequence[ExpertsConfig]) -> None:
    """Refuse what cannot be combined.

    Args:
        experts: of each client, in the layout of the method.

    Raises:
        BadInput: which setting, and why.
    """
    averages = find_method(config.method).aggregator == "mean"
    if config.payload.codec == "topk-int8" and not averages:
        raise BadInput(
            f"payload.codec is 'topk-int8', but method {config.method!r} does not send back what "
            "it averages; use int8"
        )
    for client in config.faults.poisoned or []:
        if client >= len(experts):
            raise BadInput(f"faults.poisoned has client {client}; there are 0..{len(experts) - 1}")
