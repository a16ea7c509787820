"""What one client contributed to a round."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Update:
    """Tensors that the server combines, and their weight.

    Attributes:
        client: id; 0 for the sum of all clients that secure aggregation made.
        tensors: what the client trained, decoded; its masked words under secure aggregation.
        weight: in the mean, above 0; weights need not sum to 1.
    """

    client: int
    tensors: Mapping[str, Tensor]
    weight: float
