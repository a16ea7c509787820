"""What the payload builder packs: the tensors of the share mask, bit for bit, and no other."""

import pytest
import torch

from comigs.errors import ComigsError
from comigs_clients.payload import build_payload, payload_bytes, unpack

NAMES = ("h.0.lora_A.generalist_0.weight", "h.0.lora_B.specialist_0.weight", "h.0.router.weight")
TENSORS = {name: torch.arange(6.0).reshape(2, 3) + i for i, name in enumerate(NAMES)}
SHARED = NAMES[0]


def shares(name):
    return ".generalist_" in name


def test_only_shared_tensors_are_packed_and_come_out_as_they_went_in():
    out = unpack(build_payload(TENSORS, shares))
    assert list(out) == [SHARED]
    assert out[SHARED].dtype == torch.float32
    assert torch.equal(out[SHARED], TENSORS[SHARED])
    assert payload_bytes(out) == 24


def test_a_tensor_that_is_laid_out_differently_is_packed_by_value():
    turned = {SHARED: TENSORS[SHARED].t()}
    assert torch.equal(unpack(build_payload(turned, shares))[SHARED], turned[SHARED])


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_tensor_with_nan_or_infinity_is_refused(value):
    broken = TENSORS[SHARED].clone()
    broken[1, 2] = value
    with pytest.raises(ComigsError, match=rf"'{SHARED}' holds NaN or infinity"):
        build_payload(TENSORS | {SHARED: broken}, shares)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int64])
def test_a_tensor_that_is_not_float32_is_refused(dtype):
    with pytest.raises(ComigsError, match=rf"'{SHARED}' is {dtype}; only float32 travels"):
        build_payload(TENSORS | {SHARED: TENSORS[SHARED].to(dtype)}, shares)


def test_private_tensors_are_not_even_looked_at():
    private = {name: torch.full((2,), torch.nan).double() for name in NAMES[1:]}
    assert list(build_payload(TENSORS | private, shares)) == [SHARED]
