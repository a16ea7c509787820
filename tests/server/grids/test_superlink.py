"""Through a SuperLink a message carries one array, and a reply is opened with care."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

from comigs_clients.wire import bundle
from comigs_server.grids.inline import InlineGrid
from comigs_server.grids.superlink import bundled, opened

SHAPES = {f"h.{i}.lora_A.generalist_0": (4, 8) for i in range(50)}


@pytest.fixture(autouse=True)
def identities(tmp_path):
    """A Message needs those that a grid sets."""
    InlineGrid(ClientApp(), 3, str(tmp_path))


def tensors():
    values = enumerate(SHAPES.items())
    return ArrayRecord({name: Array(np.full(s, i, "float32")) for i, (name, s) in values})


def message(arrays, node=1, key="arrays"):
    content = RecordDict({key: arrays, "config": ConfigRecord({"round": 3})})
    return Message(content, node, "train")


def test_a_message_is_a_handful_of_objects_however_many_tensors_it_holds():
    before = message(tensors())
    (sent,) = bundled([before])
    assert len(get_all_nested_objects(before)) > 50
    assert len(get_all_nested_objects(sent)) <= 6
    assert list(before.content["arrays"]) == list(SHAPES)
    assert opened(sent, SHAPES).content == before.content


def test_nodes_that_get_the_same_tensors_share_a_bundle():
    same, other = tensors(), tensors()
    sent = list(bundled([message(same, 1), message(other, 2), message(same, 3)]))
    records = [each.content["arrays"] for each in sent]
    assert records[0] is records[2] and records[0] is not records[1]
    assert [each.metadata.dst_node_id for each in sent] == [1, 2, 3]


def test_a_reply_of_more_bytes_than_any_codec_makes_is_not_opened():
    large = ArrayRecord({"x": Array(np.zeros((500, 500), "float32"))})
    outcome = opened(message(bundle(large)), SHAPES)
    assert "its reply cannot be used (ValueError: its arrays have 1,000,1" in outcome
    assert "221,696 are enough" in outcome


def test_a_reply_that_is_no_bundle_is_refused():
    assert "its arrays come one by one" in opened(message(tensors()), SHAPES)


def test_what_holds_no_tensors_passes():
    other = message(tensors(), key="other")
    assert opened(other, SHAPES) is other
    (sent,) = bundled([other])
    assert sent.content == other.content
    assert opened("no answer within 3 s", SHAPES) == "no answer within 3 s"
