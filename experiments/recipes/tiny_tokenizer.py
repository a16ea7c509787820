"""Documents and tokenizer of comigs-tiny."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

END = "<|endoftext|>"
VOCABULARY = 2048


def documents(text: str, least: int = 2000) -> list[str]:
    """Runs of consecutive lines of at least `least` characters each; together they are `text`."""
    found, run, length = [], [], 0
    for line in text.splitlines(keepends=True):
        run.append(line)
        length += len(line)
        if length >= least:
            found.append("".join(run))
            run, length = [], 0
    return [*found, "".join(run)] if run else found


def train_tokenizer(text: str, length: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE with VOCABULARY entries, all 256 bytes and END among them.

    Args:
        text: what to learn the merges from.
        length: model's context in tokens, noted in the tokenizer.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents(text), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END,
        eos_token=END,
        pad_token=END,
        model_max_length=length,
        clean_up_tokenization_spaces=False,
    )


def token_stream(tokenizer: PreTrainedTokenizerFast, text: str, seed: int) -> Tensor:
    """The documents of `text` in random order, each ended by END: int64 [tokens]."""
    docs = documents(text)
    order = torch.randperm(len(docs), generator=torch.Generator().manual_seed(seed))
    encoded = tokenizer.backend_tokenizer.encode_batch([docs[i] + END for i in order.tolist()])
    return torch.tensor([token for row in encoded for token in row.ids])
