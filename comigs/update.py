"""A client's update: what it trained, less what it started the round from."""

from collections.abc import Mapping

from torch import Tensor

from comigs.adapters import start_tensor

Tensors = Mapping[str, Tensor]


def reference(sent: Tensors, shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, Tensor]:
    """What both sides know that a client's shared tensors started from.

    Args:
        sent: by the server; where it sent no tensor of that name and shape, the common start is
            meant.
        shapes: of the client's shared tensors.
    """
    return {
        name: sent[name]
        if name in sent and tuple(sent[name].shape) == shape
        else start_tensor(name, shape, seed)
        for name, shape in shapes.items()
    }


def minus(tensors: Tensors, others: Tensors) -> dict[str, Tensor]:
    """Tensor by tensor, the names of `tensors`."""
    return {name: tensor - others[name] for name, tensor in tensors.items()}


def plus(tensors: Tensors, others: Tensors) -> dict[str, Tensor]:
    """Tensor by tensor, the names of `tensors`."""
    return {name: tensor + others[name] for name, tensor in tensors.items()}


def norm_of(update: Tensors) -> float:
    """The L2 norm of all elements together, summed in fp64."""
    return sum(float(t.double().square().sum()) for _, t in sorted(update.items())) ** 0.5


def clipped(update: Tensors, limit: float) -> dict[str, Tensor]:
    """`update` shortened to an L2 norm of at most `limit`; unchanged if it is no longer."""
    norm = norm_of(update)
    if norm <= limit:
        return dict(update)
    return {name: (t.double() * (limit / norm)).float() for name, t in update.items()}
