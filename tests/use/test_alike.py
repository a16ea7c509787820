"""Experts of a finished run's clients, compared."""

import math
import shutil

import pytest
import torch

from comigs.store.state import read_state, state_root
from comigs.use.alike import compare_experts

pytest_plugins = ("tests.fixtures",)


def change(folder, client, expert):
    """All of layer 2's changes B A by one expert, as the last training left it, in one row."""
    tensors = read_state(state_root(folder, client), 3)[0]["tensors"]
    rows = []
    for linear in ("c_fc", "c_proj"):
        name = f"transformer.h.1.mlp.{linear}.lora_{{}}.{expert}.weight"
        rows.append((tensors[name.format("B")] @ tensors[name.format("A")]).double().flatten())
    return torch.cat(rows)


def test_a_cosine_is_that_of_the_whole_matrices_and_who_has_no_specialist_has_none(finished):
    alike = compare_experts([finished])
    assert alike.missing == []
    specialists = alike.found[finished][0]
    assert (specialists.kind, list(specialists.layers)) == ("specialist", [1, 2])
    assert specialists.clients == ["ana", "bo", "cy"]
    several = sum(change(finished, 2, f"specialist_{i}") for i in range(3))
    want = torch.cosine_similarity(change(finished, 1, "specialist_0"), several, dim=0)
    assert specialists.layers[2][1][2] == pytest.approx(float(want), abs=1e-6)
    assert all(math.isnan(value) for value in specialists.layers[2][0])


def test_a_run_whose_rounds_are_gone_says_why(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(run / "clients" / "1")
    assert "clients/1" in compare_experts([run]).missing[0]
    shutil.rmtree(run / "server")
    assert "no whole round" in compare_experts([run]).missing[0]
