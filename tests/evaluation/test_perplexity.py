"""Perplexity over a whole stream."""

import math

import pytest
import torch
import torch.nn.functional as F
import transformers as tf

from comigs.evaluation.perplexity import perplexity


def test_perplexity_is_exp_of_the_mean_over_all_tokens_however_it_is_batched():
    torch.manual_seed(0)
    model = tf.GPT2LMHeadModel(
        tf.GPT2Config(vocab_size=32, n_embd=16, n_layer=1, n_head=2, n_positions=16)
    ).eval()
    stream = torch.randint(32, (101,))
    total = 0.0
    with torch.no_grad():
        for start in range(0, 100, 8):
            part = stream[start : start + 9]
            logits = model(part[None, :-1]).logits[0]
            total += F.cross_entropy(logits, part[1:], reduction="sum").item()
    for batch in (1, 3, 64):
        assert perplexity(model, stream, 8, batch) == pytest.approx(math.exp(total / 100), rel=1e-5)


def test_a_uniform_model_has_the_vocabulary_as_perplexity():
    model = tf.GPT2LMHeadModel(
        tf.GPT2Config(vocab_size=32, n_embd=16, n_layer=1, n_head=2, n_positions=16)
    ).eval()
    torch.nn.init.zeros_(model.transformer.wte.weight)
    assert perplexity(model, torch.randint(32, (50,)), 8) == pytest.approx(32, rel=1e-5)
