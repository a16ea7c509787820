"""A long text has the same tokens in pieces as at once, whatever the tokenizer does at a cut."""

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from comigs.backbone.base import load_tokenizer
from comigs.data import encoding
from comigs.data.corpus import read_split
from comigs.data.encoding import encode

WORDS = ["der ", "la\n", "\n", "\n\n", " ", "  x", "\tfor", "9", "ß", "\u2028", "\r\n", "é.\n"]


def trained(pre=None, normalizer=None):
    tokenizer = Tokenizer(models.BPE(unk_token="?"))
    if pre:
        tokenizer.pre_tokenizer = pre
    if normalizer:
        tokenizer.normalizer = normalizer
    lines = [f"{a}{b}{a}" for a in WORDS for b in WORDS] * 3
    trainer = trainers.BpeTrainer(vocab_size=120, special_tokens=["?"], show_progress=False)
    tokenizer.train_from_iterator(lines, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


TOKENIZERS = {
    "byte level": lambda: load_tokenizer("comigs-tiny"),
    "marks where words begin": lambda: trained(pre_tokenizers.Metaspace()),
    "marks where the text begins": lambda: trained(normalizer=normalizers.Prepend("_")),
    "merges over lines": trained,
    "strips": lambda: trained(pre_tokenizers.Whitespace(), normalizers.Strip()),
}


@pytest.fixture(scope="module", params=TOKENIZERS)
def tokenizer(request):
    return TOKENIZERS[request.param]()


def at_once(tokenizer, text):
    return torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"]).long()


@pytest.mark.slow
@given(
    text=st.lists(st.sampled_from(WORDS) | st.text(max_size=5), max_size=60).map("".join),
    size=st.integers(1, 40),
)
@example(text="\n la\nder ", size=1)
def test_pieces_have_the_tokens_of_the_whole(tokenizer, text, size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "PIECE", size)
        assert torch.equal(encode(tokenizer, text), at_once(tokenizer, text))


@pytest.mark.slow
def test_a_long_text_is_never_given_at_once():
    tokenizer, seen = load_tokenizer("comigs-tiny"), []
    text = read_split("multilingual", "de", "train")
    whole = at_once(tokenizer, text)

    def watched(part, **options):
        seen.append(len(part))
        return tokenizer(part, **options)

    assert torch.equal(encode(watched, text), whole)
    assert max(seen) < 2 * encoding.PIECE < len(text)
