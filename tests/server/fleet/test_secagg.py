"""Secure aggregation: the sum is right, clients may drop out, and no single update can be read."""

import numpy as np
import pytest
import torch
from flwr.common.secure_aggregation.crypto.shamir import combine_shares
from hypothesis import given
from hypothesis import strategies as st

import comigs
import comigs_clients.app
import comigs_server.grids.inline
from comigs.config.load import load_config
from comigs.costs.traffic import traffic
from comigs.errors import BadInput, ComigsError
from comigs.federation.run import resolve
from comigs.local.reference import reference
from comigs.messages.masking import from_words, mask, step_of, to_words
from comigs.messages.update import minus
from comigs.store.state import read_state
from comigs_clients.secagg import make_keys, make_shares, masked, reveal
from tests.helpers import assert_same_numbers, events, stopped_and_resumed

pytest_plugins = ("tests.fixtures",)


@pytest.fixture
def secure(tree):
    experts = {"specialists": 1, "rank": 2}
    return tree | {"experts": experts, "privacy": {"secure": "secagg", "range": 1.0}}


def shared_of(folder, number):
    return read_state(folder / "server", number)[0]["shared"]


def own_of(folder, number, client):
    tensors = read_state(folder / f"clients/{client}", number)[0]["tensors"]
    return {name: t for name, t in tensors.items() if ".generalist_" in name}


def assert_mean(folder, number, ids, count=3):
    """The server's tensors are the plain mean of these clients', to the resolution of a word."""
    clients_own = [own_of(folder, number, client) for client in ids]
    for name, tensor in shared_of(folder, number).items():
        mean = sum(own[name].double() for own in clients_own) / len(ids)
        atol = step_of(1.0, count) + 1e-7
        torch.testing.assert_close(tensor.double(), mean, rtol=1e-6, atol=atol)


@given(st.integers(1, 9), st.floats(0.01, 100.0), st.integers(0, 99))
def test_a_sum_of_words_is_the_sum_to_half_a_step_each(count, limit, seed):
    rng = torch.Generator().manual_seed(seed)
    shapes = {"b": (2, 3), "a": (4,)}
    updates = [
        {n: (torch.rand(s, generator=rng) * 2 - 1) * limit * 0.99 for n, s in shapes.items()}
        for _ in range(count)
    ]
    words = sum(to_words(update, limit, count) for update in updates)
    for name, tensor in from_words(words, shapes, limit, count).items():
        error = (tensor - sum(u[name].double() for u in updates)).abs().max()
        assert float(error) <= count * step_of(limit, count) * 0.5001


def test_the_greatest_sum_still_fits_into_a_word():
    for count in (1, 2, 1000):
        top = {"a": torch.full((3,), 0.25)}
        words = sum(to_words(top, 0.25, count) for _ in range(count))
        assert float(from_words(words, {"a": (3,)}, 0.25, count)["a"][0]) == pytest.approx(
            0.25 * count
        )


@pytest.mark.parametrize("value", [1.01, -1.01, 1e30])
def test_a_value_outside_the_range_is_an_error_and_not_saturated(value):
    with pytest.raises(ComigsError, match=r"privacy.range is 1, so it is not sent"):
        to_words({"a": torch.tensor([0.5, value])}, 1.0, 3)


def test_the_mean_is_that_of_the_clients_and_the_bytes_are_those_of_the_plan(secure, tmp_path):
    result = comigs.run(secure, out=tmp_path)
    assert not events(tmp_path, "failure")
    for number in (1, 2, 3):
        assert_mean(tmp_path, number, (0, 1, 2))
    for row, line in zip(result.table, traffic(resolve(result.config)).clients, strict=True):
        assert (row["bytes_up"], row["bytes_down"]) == (sum(line.up), sum(line.down))


def test_a_run_stopped_between_rounds_ends_bit_identical(secure, tmp_path):
    """Keys and masks are drawn anew; the sum does not depend on them."""
    whole = comigs.run(secure, out=tmp_path / "whole").folder
    assert_same_numbers(stopped_and_resumed(secure, tmp_path / "run"), whole)


@pytest.mark.parametrize("stage", ["keys", "shares", "train", "unmask"])
def test_a_client_may_drop_out_at_every_stage(secure, tmp_path, monkeypatch, stage):
    run_client = comigs_server.grids.inline.run_client

    def dies(app, message, context):
        kind = {"keys": "train.keys", "shares": "train.shares", "unmask": "train.unmask"}
        is_it = message.metadata.message_type == kind.get(stage, "train")
        is_it = is_it and message.metadata.dst_node_id == 2
        if is_it and message.content["config"]["server-round"] == 2:
            message.content["config"]["server-round"] = "no number"
        return run_client(app, message, context)

    monkeypatch.setattr(comigs_server.grids.inline, "run_client", dies)
    comigs.run(secure, out=tmp_path)
    assert_mean(tmp_path, 1, (0, 1, 2))
    assert_mean(tmp_path, 2, (0, 1, 2) if stage == "unmask" else (0, 2))
    assert_mean(tmp_path, 3, (0, 1, 2))
    failed = [(e["round"], e["client"]) for e in events(tmp_path, "failure")]
    assert failed == [(2, 1)]


def test_an_update_outside_the_range_costs_that_client_the_round(secure, tmp_path):
    comigs.run(secure | {"faults": {"poisoned": [1], "scale": 1e9}, "rounds": 1}, out=tmp_path)
    [failure] = events(tmp_path, "failure")
    assert failure["client"] == 1
    assert "privacy.range is 1, so it is not sent" in failure["reason"]
    assert_mean(tmp_path, 1, (0, 2))


def test_a_round_that_too_few_see_to_its_end_is_abandoned(secure, tmp_path, monkeypatch):
    def breaks(*_):
        raise RuntimeError("no power")

    train = comigs_clients.app.train_round
    monkeypatch.setattr(
        comigs_clients.app,
        "train_round",
        lambda order: breaks() if order.client.number and order.round == 2 else train(order),
    )
    comigs.run(secure, out=tmp_path)
    [told] = events(tmp_path, "abandoned")
    assert told["round"] == 2
    assert "secure aggregation needs 2 clients to the end" in told["reason"]
    one, two = shared_of(tmp_path, 1), shared_of(tmp_path, 2)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert_mean(tmp_path, 3, (0, 1, 2))


def test_what_the_server_received_unmasks_no_single_update(secure, tmp_path, monkeypatch):
    """Client 2 is lost in round 2 after it has sent: the hardest case for the masks."""
    import comigs_server.round
    from comigs.federation.closing import Closing

    seen = []
    run_client = comigs_server.grids.inline.run_client

    def watched(app, message, context):
        reply = run_client(app, message, context)
        seen.append(
            (message.metadata.message_type, message.metadata.dst_node_id - 1, message, reply)
        )
        return reply

    def closes(now, chosen, received, sent):
        return Closing(0.0, [i for i in sorted(received.told) if i != 2], [])

    monkeypatch.setattr(comigs_server.grids.inline, "run_client", watched)
    monkeypatch.setattr(comigs_server.round, "close", closes)
    comigs.run(secure | {"rounds": 1}, out=tmp_path)
    assert_mean(tmp_path, 1, (0, 1))
    words, revealed = {}, {}
    for kind, client, _, reply in seen:
        if kind == "train":
            words[client] = reply.content["arrays"]["masked"].numpy()
        elif kind == "train.unmask":
            record = reply.content["secagg"]
            for owner, share in zip(record["clients"], record["values"], strict=True):
                revealed.setdefault(owner, []).append(share)
    assert set(words) == set(revealed) == {0, 1, 2}
    secrets = {owner: combine_shares(shares) for owner, shares in revealed.items()}
    assert [len(secrets[i]) for i in (0, 1, 2)] == [32, 32, 48]  # two seeds and a lost one's key
    everything = [
        value
        for _, _, _, reply in seen
        if "secagg" in reply.content
        for value in reply.content["secagg"]["values"]
    ]
    for client in (0, 1, 2):
        own = own_of(tmp_path, 1, client)
        shapes = {name: tuple(t.shape) for name, t in own.items()}
        start = reference(resolve(load_config({"seed": 7})), 0, 1, {}, shapes)
        true = to_words(minus(own, start), 1.0, 3)
        guesses = [words[client]]
        if client != 2:
            guesses.append(words[client] - mask(secrets[client], len(true)))
        for key in [v for v in everything if len(v) in (32, 44)]:  # no secret was sent in the clear
            guesses.append(words[client] - mask(key, len(true)))
        for guess in guesses:
            assert (guess == true).mean() < 0.01
            assert 0.4 < (guess > 2**31).mean() < 0.6
    assert all(bytes(true.tobytes()) not in bytes(v) for v in everything)


def protocol(folder, count=3, threshold=2, size=5):
    """Stages keys, shares and train among clients, without a server."""
    roots = {i: folder / str(i) for i in range(count)}
    public = {i: make_keys(root, 1) for i, root in roots.items()}
    boxes = {i: make_shares(root, 1, i, public, threshold) for i, root in roots.items()}
    updates = {i: {"a": torch.full((size,), 0.1 * i)} for i in roots}
    inbox = {i: {j: boxes[j][i] for j in roots if j != i} for i in roots}
    words = {i: masked(roots[i], 1, i, updates[i], inbox[i], 1.0, count) for i in roots}
    return roots, inbox, words


def test_masks_between_clients_cancel_and_their_own_do_not(tmp_path):
    roots, _, words = protocol(tmp_path)
    shares = [reveal(root, 1, [0, 1, 2], []) for root in roots.values()]
    total = sum(words.values())
    assert not np.allclose(from_words(total, {"a": (5,)}, 1.0, 3)["a"], 0.3, atol=1e-3)
    for client in roots:
        total = total - mask(combine_shares([s[client] for s in shares[:2]]), 5)
    assert np.allclose(from_words(total, {"a": (5,)}, 1.0, 3)["a"], 0.3, atol=1e-6)


def test_a_client_reveals_once_and_never_both_secrets_of_another(tmp_path):
    roots, inbox, _ = protocol(tmp_path)
    for arrived, lost in (([0, 1, 2], [2]), ([0], [1, 2]), ([0, 1, 3], []), ([0, 0, 0], [1, 2])):
        with pytest.raises(ComigsError, match="secure aggregation"):
            reveal(roots[0], 1, arrived, lost)
    reveal(roots[0], 1, [0, 1], [2])
    with pytest.raises(ComigsError, match="round 1 is not after its stage 'train'"):
        reveal(roots[0], 1, [0, 1, 2], [])
    with pytest.raises(ComigsError, match="round 1 is not after its stage 'shares'"):
        masked(roots[0], 1, 0, {"a": torch.zeros(5)}, inbox[0], 1.0, 3)


def test_a_client_believes_no_list_of_keys_that_cannot_be_right(tmp_path):
    roots = {i: tmp_path / str(i) for i in range(3)}
    public = {i: make_keys(root, 1) for i, root in roots.items()}
    lies = [
        public | {0: public[1]},
        public | {1: public[2]},
        {0: public[0]},
        {1: public[1], 2: public[2]},
    ]
    for lie in lies:
        with pytest.raises(ComigsError, match="secure aggregation"):
            make_shares(roots[0], 1, 0, lie, 2)
    boxes = make_shares(roots[1], 1, 1, public, 2)
    make_shares(roots[0], 1, 0, public, 2)
    with pytest.raises(ComigsError, match="list of clients"):
        masked(roots[0], 1, 0, {"a": torch.zeros(5)}, {}, 1.0, 3)
    make_shares(roots[2], 1, 2, public, 2)
    with pytest.raises(Exception):  # noqa: B017  a box that is for another cannot be opened
        masked(roots[0], 1, 0, {"a": torch.zeros(5)}, {1: boxes[2], 2: boxes[2]}, 1.0, 3)
    assert (tmp_path / "0/secagg.json").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"method": "flora"}, "a method that averages; method 'flora' does not"),
        ({"server": {"strategy": "Krum"}}, "a strategy of means; server.strategy is Krum"),
        ({"server": {"weighting": "samples"}}, "server.weighting uniform"),
        ({"server": {"max_norm": 1.0}}, "server.max_norm null"),
        ({"payload": {"codec": "int8"}}, "payload.codec none; it is 'int8'"),
        ({"privacy": {"mechanism": "client"}}, "privacy.mechanism none"),
        ({"privacy": {"threshold": 4}}, "4 clients in a round; only 3 take part"),
        ({"privacy": {"threshold": 2}, "data": "multilingual", "model": "comigs-tiny"}, "or null"),
        ({"privacy": {"range": 0}}, "privacy.range is 0"),
        ({"participation": 0.01}, "2 clients in a round; only 1 take part"),
        ({"method": "comigs-2g", "experts": {"specialists": [0, 1, 3]}}, "clients that share"),
    ],
)
def test_what_makes_no_sense_with_secure_aggregation_is_refused(settings, reason, secure, tmp_path):
    privacy = secure["privacy"] | settings.get("privacy", {})
    with pytest.raises(BadInput, match=reason):
        comigs.run(secure | settings | {"privacy": privacy}, out=tmp_path)
    assert not list(tmp_path.iterdir())
