"""A client's part in secure aggregation against a server that tells several stories."""

import json

import numpy as np
import pytest
import torch

from comigs.errors import ComigsError
from comigs.messages.order import BoxesTold, KeysTold, UnmaskTold, read
from comigs_clients.secagg import make_keys, make_shares, masked, reveal


class Round:
    """One round among `count` clients, of which any stage may be asked again."""

    def __init__(self, folder, count=4, threshold=3, number=1):
        self.roots = {i: folder / str(i) for i in range(count)}
        self.count, self.threshold, self.number = count, threshold, number
        self.public = {i: make_keys(root, number) for i, root in self.roots.items()}
        self.boxes = {i: self.shares(i, self.public) for i in self.roots}

    def shares(self, client, public, threshold=None):
        threshold = threshold or self.threshold
        return make_shares(self.roots[client], self.number, client, public, threshold)

    def inbox(self, client, others):
        return {j: self.boxes[j][client] for j in others if j != client}

    def mask(self, client, value=0.1, others=None, count=None):
        update, others = {"a": torch.full((5,), value)}, self.roots if others is None else others
        inbox, count = self.inbox(client, others), count or self.count
        return masked(self.roots[client], self.number, client, update, inbox, 1.0, count)

    def reveal(self, client, arrived, lost):
        return reveal(self.roots[client], self.number, list(arrived), list(lost))


def refused(call, *arguments, **more):
    with pytest.raises(ComigsError, match=r"^secure aggregation: "):
        call(*arguments, **more)


@pytest.mark.parametrize(("count", "threshold"), [(2, 1), (3, 1), (4, 2), (5, 2), (4, 5), (4, -1)])
def test_half_of_the_clients_can_never_restore_a_secret(tmp_path, count, threshold):
    roots = {i: tmp_path / str(i) for i in range(count)}
    public = {i: make_keys(root, 1) for i, root in roots.items()}
    refused(make_shares, roots[0], 1, 0, public, threshold)


def test_the_two_story_attack_does_not_get_one_update(tmp_path):
    """Half are told that client 0 arrived, the others that it was lost: 2 of 4 would do."""
    told = Round(tmp_path)
    for client in told.roots:
        told.mask(client)
    seeds = [told.reveal(i, (0, 1, 2), (3,)) for i in (1, 2)]
    refused(told.reveal, 3, (1, 2), (0, 3))
    refused(told.reveal, 3, (1, 2, 3), ())
    told.reveal(3, (1, 2, 3), (0,))
    assert sum(0 in seed for seed in seeds) < told.threshold
    for client in (1, 2):  # nobody changes its story
        refused(told.reveal, client, (1, 2, 3), (0,))


def test_a_client_reveals_nothing_when_it_is_said_to_be_lost_or_the_list_is_another(tmp_path):
    told = Round(tmp_path)
    for client in told.roots:
        told.mask(client)
    for arrived, lost in (
        ((1, 2, 3), (0,)),
        ((0, 1, 2), ()),
        ((0, 1, 2, 3, 3), ()),
        ((0, 1, 2, 3), (4,)),
        ((0, 1), (2, 3)),
    ):
        refused(told.reveal, 0, arrived, lost)


def test_a_repeated_message_of_a_round_gets_the_same_answer_also_after_the_end(tmp_path):
    told = Round(tmp_path)
    words = {i: told.mask(i) for i in told.roots}
    shares = {i: told.reveal(i, told.roots, ()) for i in told.roots}
    for client in told.roots:
        assert make_keys(told.roots[client], 1) == told.public[client]
        assert told.shares(client, told.public) == told.boxes[client]
        np.testing.assert_array_equal(told.mask(client), words[client])
        assert told.reveal(client, told.roots, ()) == shares[client]


def test_a_round_is_not_repeated_with_other_clients_keys_or_updates(tmp_path):
    told = Round(tmp_path)
    told.mask(0)
    fewer = {i: told.public[i] for i in (0, 1, 2)}
    refused(told.shares, 0, fewer)
    refused(told.shares, 0, told.public, threshold=4)
    refused(told.shares, 0, told.public | {1: make_keys(tmp_path / "other", 1)})
    refused(told.mask, 0, others=(0, 1, 2))
    refused(told.mask, 0, value=0.2)
    refused(told.mask, 0, count=5)


def test_an_earlier_round_is_over(tmp_path):
    Round(tmp_path, number=2)
    for number in (1, 0, -5):
        refused(make_keys, tmp_path / "0", number)


def test_a_damaged_record_ends_secure_rounds_on_this_device(tmp_path):
    Round(tmp_path)
    path = tmp_path / "0" / "secagg.json"
    for text in ("", "[]", "{}", '{"round": "x"}'):
        path.write_text(text)
        refused(make_keys, tmp_path / "0", 2)


def test_a_box_that_is_garbage_is_refused(tmp_path):
    told = Round(tmp_path)
    for box in (b"", b"x" * 40, told.boxes[1][2]):
        told.boxes[1][0] = box
        refused(told.mask, 0)


KEYS = {"clients": [0, 1, 2], "values": [b"a"] * 6, "threshold": 2}
BOXES = {"clients": [1, 2], "values": [b"a"] * 2, "count": 3}
UNMASK = {"clients": [0, 1], "values": [], "lost": [2]}


@pytest.mark.parametrize(
    ("kind", "good", "changes"),
    [
        (KeysTold, KEYS, {"threshold": 1}),
        (KeysTold, KEYS, {"threshold": 4}),
        (KeysTold, KEYS, {"threshold": True}),
        (KeysTold, KEYS, {"clients": [0, 1, 1]}),
        (KeysTold, KEYS, {"clients": [0, 1, -1]}),
        (KeysTold, KEYS, {"clients": ["0", "1", "2"]}),
        (KeysTold, KEYS, {"values": [b"a"] * 5}),
        (KeysTold, KEYS, {"values": [b"a" * 10_000] * 6}),
        (KeysTold, KEYS, {"more": 1}),
        (BoxesTold, BOXES, {"count": 2}),
        (BoxesTold, BOXES, {"values": [b"a"]}),
        (BoxesTold, BOXES, {"clients": [1, 1]}),
        (UnmaskTold, UNMASK, {"lost": [1]}),
        (UnmaskTold, UNMASK, {"values": [b"a"]}),
        (UnmaskTold, UNMASK, {"lost": None}),
    ],
)
def test_a_record_of_secure_aggregation_has_a_schema(kind, good, changes):
    read(kind, good)
    with pytest.raises(ComigsError):
        read(kind, good | changes)
    with pytest.raises(ComigsError):
        read(kind, None)


def test_the_record_is_for_this_user_alone(tmp_path):
    told = Round(tmp_path)
    path = told.roots[0] / "secagg.json"
    assert path.stat().st_mode & 0o077 == 0
    assert json.loads(path.read_bytes())["round"] == 1
