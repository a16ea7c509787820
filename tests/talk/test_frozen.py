"""Products for few rows are those of the plain linear, however the weight is laid out."""

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from comigs.talk.frozen import Room, fast


@pytest.mark.parametrize("make", [lambda: nn.Linear(48, 80), lambda: Conv1D(80, 48)])
@pytest.mark.parametrize("bias", [True, False])
@torch.inference_mode()
def test_any_number_of_rows_has_the_products_of_the_linear(make, bias):
    torch.manual_seed(0)
    linear = make()
    linear.bias = nn.Parameter(torch.randn(80)) if bias else None
    weight = linear.weight if isinstance(linear, Conv1D) else linear.weight.mT
    size = weight.numel() * 4
    for left in (size, size - 1):  # with and without room to lay it out
        room = Room(left)
        few = fast(linear, room)
        for rows in (1, 3, 4, 8, 64, 65):
            for length in (1, 5):
                x = torch.randn(rows, length, 48)
                wanted = x.double() @ weight.double() + (linear.bias if bias else 0)
                torch.testing.assert_close(few(x).double(), wanted, rtol=1e-5, atol=1e-5)
        assert room.left == (0 if left == size else left)


def test_one_row_and_long_prompts_lay_nothing_out():
    room = Room()
    few = fast(nn.Linear(48, 80), room)
    for shape in ((1, 1, 48), (3, 1, 48), (4, 3, 48), (1, 40, 48)):
        with torch.inference_mode():
            few(torch.randn(shape))
    assert room.left == Room().left


def test_what_is_no_plain_linear_stays_what_it_is():
    other = nn.Linear(4, 4, dtype=torch.float16).to("meta")
    assert fast(other, Room()) is other
