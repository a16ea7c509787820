"""Cosines between clients' experts, worked out by hand and through the whole matrices."""

import math

import pytest
import torch

from comigs.evaluation.similarity import cosines

UP, DOWN = "h.0.mlp.up", "h.0.mlp.down"


def expert(a, b, linear=UP, name="specialist_0"):
    tensors = {"A": a, "B": b}
    return {
        f"{linear}.lora_{part}.{name}.weight": torch.tensor(tensor, dtype=torch.float32)
        for part, tensor in tensors.items()
    }


def test_a_right_angle_the_same_and_the_opposite_by_hand():
    along = expert([[1.0, 0.0]], [[2.0], [0.0]])  # B A is [[2, 0], [0, 0]]
    across = expert([[0.0, 5.0]], [[1.0], [0.0]])  # [[0, 5], [0, 0]]
    between = expert([[1.0, 1.0]], [[1.0], [0.0]])  # [[1, 1], [0, 0]]: 45 degrees from both
    against = expert([[-3.0, 0.0]], [[1.0], [0.0]])
    found = cosines([along, across, between, against], "specialist")[0]
    half = math.sqrt(0.5)
    want = [[1, 0, half, -1], [0, 1, half, 0], [half, half, 1, -half], [-1, 0, -half, 1]]
    torch.testing.assert_close(found, torch.tensor(want, dtype=torch.double))


def test_other_factors_of_the_same_change_are_the_same():
    a, b = torch.randn(2, 7), torch.randn(5, 2)
    turn = torch.tensor([[2.0, 1.0], [0.0, 0.5]])
    one = expert(a.tolist(), b.tolist())
    two = expert((turn.inverse() @ a).tolist(), (b @ turn).tolist())
    assert cosines([one, two], "specialist")[0][0, 1] == pytest.approx(1, abs=1e-5)


def test_several_experts_of_any_rank_are_their_sum_and_a_layers_linears_one_vector():
    torch.manual_seed(0)
    shapes = {"one": [(2, 0)], "two": [(3, 0), (1, 1)]}  # (rank, number) of each client
    clients, whole = [], []
    for experts in shapes.values():
        tensors, deltas = {}, []
        for linear, (out, into) in {UP: (6, 4), DOWN: (4, 6)}.items():
            delta = torch.zeros(out, into)
            for rank, number in experts:
                a, b = torch.randn(rank, into), torch.randn(out, rank)
                tensors |= expert(a.tolist(), b.tolist(), linear, f"specialist_{number}")
                delta += b @ a
            deltas.append(delta.flatten())
        clients.append(tensors)
        whole.append(torch.cat(deltas))
    want = torch.cosine_similarity(*whole, dim=0)
    assert cosines(clients, "specialist")[0][0, 1] == pytest.approx(float(want), abs=1e-5)


def test_who_has_no_such_expert_or_learnt_nothing_has_no_cosine():
    here = expert([[1.0, 0.0]], [[1.0], [1.0]])
    fresh = expert([[1.0, 0.0]], [[0.0], [0.0]])
    shared = expert([[1.0, 0.0]], [[1.0], [1.0]], name="generalist_0")
    found = cosines([here, fresh, shared, here], "specialist")[0]
    assert found[0, 3].item() == pytest.approx(1)
    assert found[1].isnan().all() and found[2].isnan().all() and found[:, 1].isnan().all()
    assert cosines([here, here], "generalist") == {}


def test_layers_are_told_apart():
    clients = [
        expert([[1.0, 0.0]], [[1.0]]) | expert([[sign, 0.0]], [[1.0]], "h.10.mlp.up")
        for sign in (1.0, -1.0)
    ]
    found = cosines(clients, "specialist")
    assert {layer: float(each[0, 1]) for layer, each in found.items()} == {0: 1.0, 10: -1.0}
