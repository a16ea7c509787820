"""Tokens of long texts are kept from process to process, and are those that would be made."""

import errno

import pytest
import torch

from comigs.backbone.base import load_tokenizer
from comigs.backbone.kepttokens import kept_tokens
from comigs.config.load import load_config
from comigs.data import encoding, examples, tokens
from comigs.data.tokens import stream
from tests.data.chats import made_up_chats, write_federation, write_split
from tests.helpers import damage

TOKENIZER = load_tokenizer("comigs-tiny")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Where they are kept, also those of short texts; `forget` is what a new process has done."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("comigs.backbone.kepttokens.LONG", 10)
    monkeypatch.setattr("comigs.data.examples.LONG", 10)
    forget()
    yield tmp_path / "cache" / "comigs" / "tokens"
    forget()


def forget():
    for each in (tokens._encoded, tokens._rows, examples.examples_of):
        each.cache_clear()


def never(*_):
    raise AssertionError("made again")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["text", "chats"])
def test_a_second_start_has_the_same_tokens_without_making_them(kind, cache, tmp_path, monkeypatch):
    name = "topics"
    if kind == "chats":
        name = str(write_federation(tmp_path / "data"))
        silent = {"messages": [{"role": "user", "content": "anybody there?"}]}
        write_split(tmp_path / "data", "ana", "train", [*made_up_chats(1, 9), silent] * 2)
    config = load_config(None, [f"data={name}", "data.seq_len=24"])
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")  # nothing can be kept there
    expected = stream(config, 0, "train")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parents[1]))
    for how in ("flip", "truncate"):
        forget()
        assert torch.equal(stream(config, 0, "train"), expected)
        [kept] = cache.iterdir()
        damage(kept, how)  # is seen, and it is made anew
    forget()
    assert torch.equal(stream(config, 0, "train"), expected)
    forget()
    monkeypatch.setattr(encoding, "_ids", never)
    monkeypatch.setattr(tokens, "encode", never)
    monkeypatch.setattr(examples, "encode_chats", never)
    monkeypatch.setattr(tokens, "opening", lambda tokenizer: None)  # which comigs-tiny has not
    assert torch.equal(stream(config, 0, "train"), expected)


def test_what_decides_the_tokens_decides_the_place(cache):
    def made(text, settings, number, tokenizer=TOKENIZER):
        make = dict(tokens=torch.tensor([number, 2**40]))
        return kept_tokens(tokenizer, text, settings, lambda: make)["tokens"].tolist()

    assert made("a text of some length", "text", 1) == [1, 2**40]
    assert made("a text of some length", "text", 2) == [1, 2**40]
    assert made("a text of some length.", "text", 3) == [3, 2**40]
    assert made("a text of some length", "chats", 4) == [4, 2**40]
    other = load_tokenizer.__wrapped__("comigs-tiny")
    other.chat_template = "{{ messages }}"
    assert made("a text of some length", "text", 5, other) == [5, 2**40]
    assert made("short", "text", 6) == [6, 2**40] and made("short", "text", 7) == [7, 2**40]
    assert len(list(cache.iterdir())) == 4


def test_a_place_where_nothing_can_be_written_is_told_once(cache, monkeypatch, caplog):
    def full(path, data):
        raise OSError(errno.ENOSPC, "no room in this test", str(path))

    monkeypatch.setattr("comigs.backbone.kepttokens.write_whole", full)
    for text in ("one text that is kept", "and another"):
        kept_tokens(TOKENIZER, text, "text", lambda: {"tokens": torch.tensor([1])})
    assert caplog.messages == ["tokens of long texts cannot be kept (no room in this test)"]
