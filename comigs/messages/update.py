"""A client's update: what it trained, less what it started the round from."""

from collections.abc import Mapping

from torch import Tensor

from comigs.messages.fields import BESIDES

Tensors = Mapping[str, Tensor]


def proper(tensors: Tensors) -> dict[str, Tensor]:
    """Without what travels beside an update."""
    return {name: t for name, t in tensors.items() if not name.startswith(BESIDES)}


def minus(tensors: Tensors, others: Tensors) -> dict[str, Tensor]:
    """Tensor by tensor, the names of `tensors`."""
    return {name: tensor - others[name] for name, tensor in tensors.items()}


def plus(tensors: Tensors, others: Tensors) -> dict[str, Tensor]:
    """Tensor by tensor, the names of `tensors`."""
    return {name: tensor + others[name] for name, tensor in tensors.items()}


def mean_with(mean: Tensors, tensors: Tensors, count: int) -> dict[str, Tensor]:
    """The mean of `count` sets of tensors, from that of all but the last; of one, itself."""
    if count == 1:
        return dict(tensors)
    return {name: mean[name] + (tensor - mean[name]) / count for name, tensor in tensors.items()}


def norm_of(update: Tensors) -> float:
    """The L2 norm of all elements together, summed in fp64."""
    return sum(float(t.double().square().sum()) for _, t in sorted(update.items())) ** 0.5


def clipped(update: Tensors, limit: float) -> dict[str, Tensor]:
    """`update` shortened to an L2 norm of at most `limit`; unchanged if it is no longer."""
    norm = norm_of(update)
    if norm <= limit:
        return dict(update)
    return {name: (t.double() * (limit / norm)).float() for name, t in update.items()}
