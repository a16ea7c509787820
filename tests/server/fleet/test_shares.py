"""Secure aggregation goes on when a client gives wrong keys or shares."""

import pytest

import comigs
import comigs_server.grids.inline
from tests.helpers import events
from tests.server.fleet.test_secagg import assert_mean

pytest_plugins = ("tests.fixtures",)


@pytest.fixture
def secure(tree):
    experts = {"specialists": 1, "rank": 2}
    return tree | {"experts": experts, "privacy": {"secure": "secagg", "range": 1.0}}


def changed(monkeypatch, kind, node, change, number=2):
    """One client's answers of a kind, in a round, come with other values."""
    run_client = comigs_server.grids.inline.run_client

    def lies(app, message, context):
        reply = run_client(app, message, context)
        about = (message.metadata.message_type, message.metadata.dst_node_id)
        if about == (kind, node) and message.content["config"]["server-round"] == number:
            record = reply.content["secagg"]
            record["values"] = change(list(record["values"]))
        return reply

    monkeypatch.setattr(comigs_server.grids.inline, "run_client", lies)


def flipped(values):
    return [value[:9] + bytes([value[9] ^ 1]) + value[10:] for value in values]


@pytest.mark.parametrize(
    "change",
    [flipped, lambda v: [b"x"] * len(v), lambda v: [v[0], *flipped(v[1:])], lambda v: v[:1]],
    ids=["flipped", "garbage", "some", "too few"],
)
@pytest.mark.parametrize("node", [1, 2])
def test_wrong_shares_do_no_harm_while_enough_are_right(
    secure, tmp_path, monkeypatch, node, change
):
    """Three clients, two shares restore a secret."""
    changed(monkeypatch, "train.unmask", node, change)
    comigs.run(secure, out=tmp_path)
    for number in (1, 2, 3):
        assert_mean(tmp_path, number, (0, 1, 2))
    [failure] = events(tmp_path, "failure")
    assert (failure["round"], failure["client"]) == (2, node - 1)
    assert "secure aggregation" in failure["reason"]


def test_shares_of_which_too_few_are_right_cost_the_round(secure, tmp_path, monkeypatch):
    changed(monkeypatch, "train.unmask", 1, flipped)
    changed(monkeypatch, "train.unmask", 2, flipped)
    comigs.run(secure, out=tmp_path)
    [told] = events(tmp_path, "abandoned")
    assert "restore a secret" in told["reason"]
    assert_mean(tmp_path, 3, (0, 1, 2))


@pytest.mark.parametrize(
    "change",
    [
        lambda v: [v[0], v[0]],
        lambda v: [b"no key", v[1]],
        lambda v: [*v, v[0]],
        lambda v: [],
        lambda v: [bytes(120), bytes(120)],
    ],
)
def test_keys_that_cannot_be_are_their_client_s_fault_alone(secure, tmp_path, monkeypatch, change):
    changed(monkeypatch, "train.keys", 2, change)
    comigs.run(secure, out=tmp_path)
    assert_mean(tmp_path, 2, (0, 2))
    [failure] = events(tmp_path, "failure")
    assert (failure["round"], failure["client"]) == (2, 1)
