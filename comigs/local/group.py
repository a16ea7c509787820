"""One round of several clients: those whose models have equal shapes train in the same passes."""

import logging
from collections.abc import Sequence

from comigs.local.round import (
    Begun,
    Order,
    Trained,
    begin_round,
    end_round,
    train_begun,
    train_round,
)
from comigs.mixture.adapters import adapter_parameters
from comigs.mixture.deltas import delta_tensors


def train_together(orders: Sequence[Order]) -> list[Trained | Exception]:
    """Train these clients for one round and save their states.

    Shapes are compared once the clients are ready: pruned ranks and corrections of the base can
    differ between clients of one configuration. Each client fails alone: when something goes wrong
    in a shared pass, its clients are trained again from their saved states, one by one.

    Args:
        orders: of different clients, in their order, for the same round.

    Returns:
        Per client what `train_round` returns, or what it raises.
    """
    results: dict[int, Trained | Exception] = {}
    shapes: dict[object, dict[int, Begun]] = {}
    for slot, order in enumerate(orders):
        try:
            begun = begin_round(order, slot)
            shapes.setdefault(_shape(begun), {})[slot] = begun
        except Exception as error:
            results[slot] = error
    for group in shapes.values():
        results |= _train(group)
    return [results[slot] for slot in range(len(orders))]


def _shape(begun: Begun) -> object:
    """What clients in one pass have in common."""
    model, config = begun.trainee.model, begun.order.client.config
    tensors = adapter_parameters(model) | delta_tensors(model)
    shapes = tuple((name, tensor.shape) for name, tensor in tensors.items())
    return shapes, config.model, config.micro_batch, config.experts.top_k


def _train(group: dict[int, Begun]) -> dict[int, Trained | Exception]:
    """Train clients of one shape, by slot."""
    try:
        trained = train_begun(list(group.values()))
    except Exception as error:
        if len(group) == 1:
            return dict.fromkeys(group, error)
        clients = ", ".join(str(begun.order.client.number) for begun in group.values())
        logging.getLogger("comigs").warning(
            "clients %s could not train in one pass and train one by one: %s", clients, error
        )
        return {slot: _alone(begun.order) for slot, begun in group.items()}
    results: dict[int, Trained | Exception] = {}
    for (slot, begun), outcome in zip(group.items(), trained, strict=True):
        try:
            results[slot] = end_round(begun, *outcome)
        except Exception as error:
            results[slot] = error
    return results


def _alone(order: Order) -> Trained | Exception:
    try:
        return train_round(order)
    except Exception as error:
        return error
