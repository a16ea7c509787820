"""What the server accepts from a client."""

import pytest
import torch

from server.exchange import Client
from server.judge import fault_of

SHAPES = {"a.generalist_0": (2, 3), "b.generalist_0": (4,)}
GOOD = {name: torch.ones(shape) for name, shape in SHAPES.items()}


@pytest.mark.parametrize(
    ("update", "fault"),
    [
        (GOOD, None),
        (GOOD | {"a.router.weight": torch.ones(1)}, "sent 'a.router.weight', which it does not"),
        ({"a.generalist_0": GOOD["a.generalist_0"]}, "did not send 'b.generalist_0'"),
        (GOOD | {"b.generalist_0": torch.ones(4, 1)}, "with shape (4, 1), not (4,)"),
        (GOOD | {"b.generalist_0": torch.ones(4).double()}, "as torch.float64, not float32"),
        (GOOD | {"b.generalist_0": torch.ones(4).half()}, "as torch.float16, not float32"),
        (GOOD | {"b.generalist_0": torch.full((4,), torch.nan)}, "with NaN or infinity"),
        (GOOD | {"b.generalist_0": torch.full((4,), -torch.inf)}, "with NaN or infinity"),
        ({}, "did not send 'a.generalist_0'"),
    ],
)
def test_the_server_checks_what_it_gets(update, fault):
    found = fault_of(update, Client(0, 1, "ana", frozenset(), SHAPES))
    assert found == fault or (fault and fault in found)
