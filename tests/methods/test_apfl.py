"""APFL: w, v and alpha step by the paper's equations, and the client predicts with v_bar."""

import pytest
import torch

from comigs.federation.clients import model_of
from comigs.methods import apfl
from comigs.methods.base import ALPHA, GLOBAL, LOCAL
from comigs.mixture.adapters import adapter_parameters
from tests.methods.stepping import LR, PLAIN, gradient_at, noisy, plain_client, play, saved

pytest_plugins = ("tests.fixtures",)


def test_alpha_follows_the_inner_product_and_stays_within_0_and_1():
    v, w = {"a": torch.tensor([3.0, 1.0])}, {"a": torch.tensor([1.0, 1.0])}
    for slope, expected in ((2.0, 0.5 - 0.1 * 2 * 2.0), (9.0, 0.0), (-9.0, 1.0)):
        gradient = {"a": torch.tensor([slope, 5.0])}  # <v - w, g> = 2 slope
        assert apfl.mix(0.5, v, w, gradient) == pytest.approx(expected)


def kept(root, number):
    groups, meta = saved(root, number)
    parts = {
        which: {n.removeprefix(which): t for n, t in groups["kept"].items() if n.startswith(which)}
        for which in (GLOBAL, LOCAL)
    }
    return parts[GLOBAL], parts[LOCAL], meta["kept"][ALPHA], groups["tensors"]


def test_a_step_of_each_kind(tree, tmp_path, monkeypatch):
    monkeypatch.setattr(apfl, "RATE", 20.0)  # so that alpha visibly moves
    client = plain_client(tree, "apfl", local_steps=2)
    play(client, tmp_path, 1, 0, {})
    own_w, v, alpha, _ = kept(tmp_path, 1)
    assert alpha != 0.5
    w = noisy(own_w)
    start, sent, _ = play(client, tmp_path, 2, 1, w)
    next_w, next_v, next_alpha, next_model = kept(tmp_path, 2)

    at_w = gradient_at(client, w, 2)
    stepped = {n: w[n] - LR * at_w[n] for n in w}
    bar = {n: alpha * v[n] + (1 - alpha) * stepped[n] for n in w}
    at_bar = gradient_at(client, bar, 2, skip=1)
    slope = sum(float(((v[n] - stepped[n]) * at_bar[n]).sum()) for n in w)
    assert next_alpha == pytest.approx(min(1, max(0, alpha - 20.0 * slope)), rel=1e-3)
    close = {"rtol": 1e-4, "atol": 1e-6}
    for n in w:
        torch.testing.assert_close(start[n], alpha * v[n] + (1 - alpha) * w[n], **close)
        torch.testing.assert_close(sent[n], stepped[n], **close)
        assert torch.equal(sent[n], next_w[n])
        torch.testing.assert_close(next_v[n], v[n] - LR * alpha * at_bar[n], **close)
        mixed = next_alpha * next_v[n] + (1 - next_alpha) * next_w[n]
        torch.testing.assert_close(next_model[n], mixed, **close)


def test_alpha_learns_nothing_of_layers_that_a_round_leaves_out(tree, tmp_path, monkeypatch):
    """Their gradients are of an earlier step, maybe another client's."""
    monkeypatch.setattr(apfl, "RATE", 20.0)
    client = plain_client(tree, "apfl", local_steps=2, train=PLAIN | {"layers": 1})
    play(client, tmp_path, 1, 0, {})
    own_w, _, before, _ = kept(tmp_path, 1)
    learnt = set()
    for left in (0.0, 1.0):
        for parameter in adapter_parameters(model_of(client)).values():
            parameter.grad = torch.full_like(parameter, left)
        play(client, tmp_path, 2, 1, noisy(own_w))
        learnt.add(kept(tmp_path, 2)[2])
    assert len(learnt) == 1 and before not in learnt


def test_a_client_that_comes_late_begins_from_the_common_start_and_the_mean(tree, tmp_path):
    client = plain_client(tree, "apfl", local_steps=1)
    common, first, _ = play(client, tmp_path / "first", 1, 0, {})
    mean = noisy(first)
    start, _, _ = play(client, tmp_path / "late", 5, 0, mean)
    for name, tensor in start.items():
        expected = 0.5 * common[name] + 0.5 * mean[name]
        torch.testing.assert_close(tensor, expected, rtol=1e-5, atol=1e-7)
