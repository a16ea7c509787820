"""What a tokenizer puts before a text opens every sequence; what it puts behind is never used."""

import math
import shutil

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import comigs
from comigs.backbone.base import load_base, load_tokenizer
from comigs.backbone.names import BUNDLED
from comigs.config.load import load_config
from comigs.data.encoding import encode, opening
from comigs.data.tokens import (
    client_data,
    consecutive_windows,
    pooled_data,
    random_windows,
)
from comigs.evaluation.perplexity import perplexity
from comigs.seeds import derive, generator
from comigs.use.final import final_model
from comigs.use.generate import generate_text
from tests.folders import llama, save
from tests.helpers import client_of

pytest_plugins = ("tests.fixtures",)
BOS, EOS = 3, 0
KINDS = {"bos": [BOS, "A"], "eos": ["A", EOS], "both": [BOS, "A", EOS], "neither": ["A"]}
OPENING = {"bos": BOS, "both": BOS, "eos": None, "neither": None}


def tokenizer_of(kind):
    """The bundled tokenizer with another habit."""
    tokenizer = AutoTokenizer.from_pretrained(BUNDLED / "comigs-tiny")
    begin, end = tokenizer.convert_ids_to_tokens([BOS, EOS])
    words = {BOS: begin, EOS: end, "A": "$A"}
    template = [words[part] for part in KINDS[kind]]
    backend = tokenizer.backend_tokenizer
    tokens = [(begin, BOS), (end, EOS)]
    backend.post_processor = TemplateProcessing(single=template, special_tokens=tokens)
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=begin, eos_token=end)


def folder_of(kind, folder):
    save(llama(), folder)
    tokenizer_of(kind).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_a_tokenizers_habit_is_known(kind):
    tokenizer = tokenizer_of(kind)
    whole = tokenizer("some text").input_ids
    assert (whole[0] == BOS, whole[-1] == EOS) == (kind in ("bos", "both"), kind in ("eos", "both"))
    assert opening(tokenizer) == OPENING[kind]
    assert not {BOS, EOS} & set(encode(tokenizer, "some text").tolist())


def test_the_bundled_streams_are_as_they_were():
    assert opening(load_tokenizer("comigs-tiny")) is None
    config = load_config(None)
    data = client_data(config, 0)
    for stream in (data.train, data.valid, *data.tests.values()):
        assert stream.min() >= 0


def marked(length):
    return torch.cat([torch.tensor([-1 - BOS]), torch.arange(10, 10 + length)])


@given(st.integers(1, 300), st.integers(1, 20), st.integers(1, 5))
@settings(max_examples=60)
def test_every_window_begins_with_it_and_every_token_is_predicted_once(length, seq_len, batch):
    stream, targets = marked(length), []
    for windows in consecutive_windows(stream, batch, seq_len):
        assert windows.shape[0] <= batch and 2 <= windows.shape[1] <= seq_len + 1
        assert (windows[:, 0] == BOS).all()
        targets.append(windows[:, 1:].flatten())
    assert torch.equal(torch.cat(targets), stream[1:])


@given(st.integers(9, 60), st.integers(0, 100))
@settings(max_examples=40)
def test_windows_that_are_trained_on_begin_with_it(length, seed):
    windows = random_windows(marked(length), 64, 8, generator(seed))
    assert windows.shape == (64, 9)
    assert (windows[:, 0] == BOS).all()
    assert (windows[:, 1:].diff(dim=1) == 1).all()
    assert windows[:, 1:].min() >= 10 and windows.max() < 10 + length
    alone = random_windows(marked(8), 4, 8, generator(seed))
    assert torch.equal(alone[0, 1:], torch.arange(10, 18))


@pytest.mark.parametrize("target", ["in_distribution", "mixture"])
def test_joined_streams_have_one_mark(tmp_path, federation, target):
    folder = folder_of("bos", tmp_path / "model")
    more = [f"model={folder}", f"data={federation}", "data.seq_len=16", f"data.target={target}"]
    config = load_config(None, [*more, "method=centralized"])
    for data in (client_data(config, 1), pooled_data(config)):
        for stream in (data.train, data.valid, *data.tests.values()):
            assert stream[0] == -1 - BOS and stream[1:].min() >= 0


@pytest.mark.parametrize("kind", ["bos", "eos"])
def test_perplexity_is_that_of_sequences_as_the_model_knows_them(tmp_path, federation, kind):
    folder = folder_of(kind, tmp_path / "model")
    config = load_config(None, [f"model={folder}", f"data={federation}", "data.seq_len=16"])
    model = load_base(str(folder), "float32")
    [stream] = client_data(config, 0).tests.values()
    text = [BOS, *stream[1:].tolist()] if kind == "bos" else stream.tolist()
    loss, at = 0.0, 1
    while at < len(text):
        part = text[at : at + 16]
        before = BOS if kind == "bos" else text[at - 1]
        ids = torch.tensor([[before, *part]])
        with torch.no_grad():
            logits = model(ids[:, :-1]).logits[0]
        loss += F.cross_entropy(logits, ids[0, 1:], reduction="sum").item()
        at += len(part)
    expected = math.exp(loss / (len(text) - 1))
    assert perplexity(model, stream, 16) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", ["both", "eos"])
def test_a_continuation_begins_as_training_did_and_not_behind_an_end(tmp_path, tree, kind):
    folder = folder_of(kind, tmp_path / "model")
    settings = tree | {"model": {"name": str(folder)}, "method": "pretrained", "rounds": 1}
    result = comigs.run(settings, out=tmp_path / "run")
    told = generate_text(result.folder, 0, "mira tolu", 8, 5)
    model, tokenizer = final_model(client_of(result.config), result.folder), tokenizer_of("neither")
    start = [BOS] if kind == "both" else []
    ids = torch.tensor([start + tokenizer("mira tolu").input_ids])
    with torch.random.fork_rng():
        torch.manual_seed(derive(5, "generate"))
        sampling = {"do_sample": True, "top_p": 0.9, "temperature": 0.8, "pad_token_id": EOS}
        mask = torch.ones_like(ids)
        out = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=8, **sampling)
    assert told == tokenizer.decode(out[0], skip_special_tokens=True)
    shutil.rmtree(folder)
