"""Messages and arrays as bytes: what comes out is what went in, and nonsense is an error."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from comigs_clients.wire import BUNDLE, bundle, unbundle

DTYPES = st.sampled_from(["float32", "uint8", "int8", "uint16", "uint32"])
RECORDS = st.dictionaries(
    st.text(min_size=1, max_size=30),
    DTYPES.flatmap(lambda dtype: arrays(dtype, array_shapes(min_dims=0, max_dims=3, min_side=0))),
    max_size=5,
)


def record(values):
    return ArrayRecord({name: Array(value) for name, value in values.items()})


@given(RECORDS)
def test_arrays_come_out_of_a_bundle_as_they_went_in(values):
    before = record(values)
    after = unbundle(bundle(before))
    assert list(after) == list(before)
    assert all(after[name] == before[name] for name in before)
    assert list(bundle(before)) == [BUNDLE]


def test_a_bundle_of_nothing_passes_flower_s_own_transport():
    sent = bundle(ArrayRecord())
    objects = get_all_nested_objects(sent)
    contents = {key: each.deflate() for key, each in objects.items()}
    arrived = inflate_object_from_contents(sent.object_id, contents)
    assert arrived == sent
    assert not unbundle(arrived)


@given(st.binary(max_size=200))
def test_no_bytes_make_anything_but_arrays_or_a_value_error(data):
    try:
        found = unbundle(ArrayRecord({BUNDLE: Array("uint8", (len(data),), "protobuf", data)}))
    except ValueError as error:
        assert "its arrays cannot be read" in str(error)
    else:
        assert isinstance(found, ArrayRecord)


def test_a_bundle_that_is_too_large_is_not_opened():
    sent = bundle(record({"a": np.zeros(100)}))
    with pytest.raises(ValueError, match=r"its arrays have 9\d\d bytes; 500 are enough"):
        unbundle(sent, limit=500)


def test_arrays_that_are_no_bundle_are_refused():
    with pytest.raises(ValueError, match="its arrays come one by one: a, b"):
        unbundle(ArrayRecord({name: Array("uint8", (0,), "x", b"") for name in "ab"}))
