"""Perplexity over a whole stream."""

import math

import pytest
import torch
import torch.nn.functional as F
import transformers as tf

from comigs.backbone.base import load_tokenizer
from comigs.data.windows import marked, packed
from comigs.evaluation.perplexity import bits_per_byte, perplexity


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


def test_bits_per_byte_by_hand():
    """A perplexity of 8 is 3 bits a token; of 4, 2 bits. Only what is predicted has bytes."""
    tokenizer = load_tokenizer("comigs-tiny")
    ids = torch.tensor(tokenizer("one zwei trois")["input_ids"])
    said = tokenizer.decode(ids[1:]).encode()
    assert bits_per_byte(8.0, ids, tokenizer) == pytest.approx(3 * (len(ids) - 1) / len(said))
    rows = packed([marked(ids, torch.arange(len(ids)) >= 2)], len(ids) + 5)
    bytes_of = len(tokenizer.decode(ids[2:]).encode())
    assert bits_per_byte(4.0, rows, tokenizer) == pytest.approx(2 * (len(ids) - 2) / bytes_of)
