"""comigs-tiny loads, encodes any text and has learnt English."""

import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from comigs.data import leakage

PACKAGE = Path(leakage.__file__).parents[1]
FOLDER = PACKAGE / "models" / "comigs-tiny"


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(FOLDER).eval()


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return AutoTokenizer.from_pretrained(FOLDER)


def bits_per_char(model: PreTrainedModel, tokenizer: Tokenizer, text: str) -> float:
    """Bits per character of `text` in sequences of 128 tokens, the first of each unscored."""
    ids = torch.tensor(tokenizer(text, verbose=False)["input_ids"])
    rows = ids[: len(ids) // 128 * 128].view(-1, 128)
    with torch.no_grad():
        loss = model(input_ids=rows, labels=rows).loss.item()
    return loss / math.log(2) * rows.numel() / len(tokenizer.decode(rows.flatten()))


def test_shapes_agree(model: PreTrainedModel, tokenizer: Tokenizer) -> None:
    config = model.config
    assert config.vocab_size == len(tokenizer) == model.get_output_embeddings().weight.shape[0]
    assert config.n_positions >= 128 and model.dtype == torch.float32
    ends = {config.bos_token_id, config.eos_token_id, config.pad_token_id}
    assert ends == {tokenizer.eos_token_id} == {tokenizer.convert_tokens_to_ids("<|endoftext|>")}
    assert model(torch.zeros(2, 128, dtype=torch.int64)).logits.shape == (2, 128, len(tokenizer))


@pytest.mark.parametrize(
    "text",
    ["Plain English.", "Größe, œuvre, perché, één", "Źródło żółte", "日本語と한국어", "Ελληνικά",
     "العربية עברית", "🙂🏳️‍🌈", "\tdef f(x):\n        return  x\n\n", " ", "\x00\x7f", "a \u0301 b"],
)  # fmt: skip
def test_tokenizer_round_trips(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_folder_is_small_and_readable() -> None:
    files = list(FOLDER.iterdir())
    assert sum(path.stat().st_size for path in files) <= 5_000_000
    needed = {"README.md", "config.json", "generation_config.json", "model.safetensors"}
    assert needed | {"tokenizer.json", "tokenizer_config.json"} <= {path.name for path in files}
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in files)


def test_english_is_learnt(model: PreTrainedModel, tokenizer: Tokenizer) -> None:
    bundled = PACKAGE / "data" / "bundled" / "domains"
    text = leakage.read_split(bundled, "encyclopedia_en", "valid")[:40_000]
    assert bits_per_char(model, tokenizer, text) < 2.4
    untrained = AutoModelForCausalLM.from_config(model.config)
    assert bits_per_char(untrained, tokenizer, text[:8_000]) > 3.4


def test_generates_words(model: PreTrainedModel, tokenizer: Tokenizer) -> None:
    prompt = tokenizer("The city is the capital of", return_tensors="pt")
    ids = model.generate(**prompt, max_new_tokens=40, do_sample=False)
    words = tokenizer.decode(ids[0], skip_special_tokens=True).split()
    assert len(words) > 15 and "the" in words
