"""Voices in one pass: each row gets the logits that its own model gives it alone."""

import pytest
import torch

import comigs
from comigs.mixture.deltas import load_deltas
from comigs.mixture.models import bare_copy
from comigs.talk.voices import Voice, Voices
from tests.talk.voices_of import TOGETHER, at_random, base_of, clients_of


@torch.inference_mode()
def logits_in_one_pass(voices, rows, ids):
    voices.seat(rows)
    return voices.model(input_ids=ids).logits


@pytest.mark.slow
@torch.inference_mode()
@pytest.mark.parametrize("family", TOGETHER)
def test_every_row_gets_its_own_models_logits(family):
    base, models = clients_of(family)
    n = len(models)
    voices = Voices(
        [*map(Voice, models), Voice(models[0], "generalist_0"), Voice(models[0], bare=True)]
    )
    ids = torch.randint(1, 64, (n + 2, 9), generator=torch.Generator().manual_seed(9))
    own = [model(input_ids=ids).logits for model in models]
    with comigs.using_expert(models[0], "generalist_0"):
        own.append(models[0](input_ids=ids).logits)
    own.append(base(input_ids=ids).logits)
    assert not torch.allclose(own[0], own[2], rtol=1e-3)
    for rows in (range(n + 2), [0, 0, 2, 2], [2, 0, 3, 0, 4, n + 1], [3, 3], [4, 0], [1], [n]):
        got = logits_in_one_pass(voices, list(rows), ids[: len(rows)])
        for row, voice in enumerate(rows):
            torch.testing.assert_close(got[row], own[voice][row], rtol=1e-5, atol=1e-5)


def test_long_prompts_are_mixed_piece_by_piece(monkeypatch):
    _, models = clients_of("gpt2")
    ids = torch.randint(1, 64, (3, 9), generator=torch.Generator().manual_seed(9))
    voices = Voices([*map(Voice, models)])
    whole = logits_in_one_pass(voices, [0, 0, 2], ids)
    monkeypatch.setattr("comigs.talk.voices.CHUNK", 4)
    assert torch.allclose(logits_in_one_pass(voices, [0, 0, 2], ids), whole, atol=1e-6)


def test_corrections_of_the_base_speak_too():
    _, models = clients_of("gpt2")
    name = "transformer.h.0.mlp.c_fc.delta_{}.generalist_0.weight"
    rng = torch.Generator().manual_seed(3)
    pair = {"A": torch.randn(2, 32, generator=rng), "B": torch.randn(128, 2, generator=rng)}
    load_deltas(models[2], {name.format(half): tensor for half, tensor in pair.items()})
    ids = torch.randint(1, 64, (2, 9), generator=rng)
    got = logits_in_one_pass(Voices([*map(Voice, models)]), [0, 2], ids)
    with torch.inference_mode():
        want = models[2](input_ids=ids[1:]).logits[0]
    torch.testing.assert_close(got[1], want, rtol=1e-5, atol=1e-5)


def test_a_factor_of_what_a_mixture_puts_out_speaks_too():
    base = base_of("gpt2")
    with torch.no_grad():
        base.transformer.h[0].mlp.c_proj.bias.normal_()
    shapes = ((1, "rescaled"), (2, "rescaled"), (2, "linear"), (1, "linear"))
    models = []
    for number, (top_k, router) in enumerate(shapes):
        experts = comigs.ExpertsConfig(specialists=2, top_k=top_k, rank=2, router=router)
        models.append(comigs.add_experts(bare_copy(base), experts))
        at_random(models[-1], number)
    ids = torch.randint(1, 64, (4, 9), generator=torch.Generator().manual_seed(9))
    got = logits_in_one_pass(Voices([*map(Voice, models)]), range(4), ids)
    for row, model in enumerate(models):
        with torch.inference_mode():
            want = model(input_ids=ids).logits[row]
        torch.testing.assert_close(got[row], want, rtol=1e-5, atol=1e-5)


def test_the_frozen_weights_are_not_copied():
    base, models = clients_of("gpt2")
    held = {t.data_ptr() for t in Voices([*map(Voice, models)]).model.parameters()}
    assert held == {t.data_ptr() for t in base.parameters()}
