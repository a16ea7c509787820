"""Single tokens of text: gates and losses against those of whole passes, and their text."""

import math

import pytest
import torch
import torch.nn.functional as F

from comigs.backbone.base import load_tokenizer
from comigs.data.windows import marked, packed
from comigs.evaluation.perplexity import token_loss
from comigs.evaluation.trace import passages, pieces, trace
from tests.backbone.test_families import base_of, mixture_of
from tests.evaluation.test_metrics import TOKENS, routed


def test_gates_are_the_router_s_and_a_loss_is_of_the_token_it_stands_at():
    base, model = base_of("llama"), routed([math.log(3.0), 0.0], specialists=1)
    windows = passages(TOKENS, 40, 20)
    found = trace(model, base, windows)
    assert found.ids.tolist() == windows[:, :-1].flatten().tolist()
    assert found.gates.shape == (2, 40, 2)
    assert found.gates[..., 0].mean() == pytest.approx(0.75)
    assert found.begins == [0, 20]
    logits = base(windows[:, :-1]).logits.log_softmax(-1)
    assert found.base[5] == pytest.approx(-logits[0, 4, windows[0, 5]].item(), rel=1e-5)
    assert found.loss[21:].nanmean() == pytest.approx(
        F.cross_entropy(model(windows[1:, :-2]).logits[0], windows[1, 1:-1]).item(), rel=1e-5
    )
    assert found.loss.isnan().nonzero().flatten().tolist() == [0, 20]


def test_the_generalist_alone_is_a_model_of_its_own_and_the_mixture_is_left_as_it_was():
    model = mixture_of(base_of("llama"), specialists=1, rank=2)
    windows = passages(TOKENS, 20, 20)
    before = token_loss(model, windows)
    found = trace(model, base_of("llama"), windows)
    assert found.routed and (found.generalist - found.loss).abs().nansum() > 0
    assert token_loss(model, windows) == before


def test_one_expert_has_all_and_no_router():
    found = trace(
        mixture_of(base_of("llama"), specialists=0, top_k=1, rank=2), base_of("llama"), TOKENS[None]
    )
    assert not found.routed and found.generalist is None
    assert found.gates.unique().tolist() == [1.0]


def test_of_experts_that_were_not_chosen_the_gate_is_zero():
    model = routed([0.0, math.log(4.0), -9.0], top_k=2, specialists=2)
    gates = trace(model, base_of("llama"), TOKENS[None]).gates
    assert gates[0, 0].tolist() == pytest.approx([0.2, 0.8, 0.0])


def test_chats_are_read_without_their_filling():
    example = marked(torch.arange(3, 9), torch.tensor([False] * 3 + [True] * 3))
    rows = packed([example], 12)
    found = trace(mixture_of(base_of("llama"), specialists=1, rank=2), base_of("llama"), rows)
    assert found.ids.tolist() == [3, 4, 5, 6, 7, 8]
    assert found.loss.isfinite().tolist() == [False] * 3 + [True] * 3


def test_passages_come_from_all_over_the_text():
    windows = passages(torch.arange(1000), 30, 10)
    assert windows[:, 0].tolist() == [0, 330, 660]
    assert windows.shape == (3, 11)
    assert passages(torch.arange(1000), 6, 10).shape == (1, 7)


def test_pieces_make_up_the_text_whatever_its_tokens_cut():
    tokenizer = load_tokenizer("comigs-tiny")
    text = "für Ärger sorgt 漢字 🙂 und\n\nmehr "
    ids = tokenizer(text)["input_ids"]
    found = pieces(tokenizer, ids)
    assert "".join(found) == tokenizer.decode(ids)
    assert len(found) == len(ids) and "\N{REPLACEMENT CHARACTER}" not in "".join(found)
