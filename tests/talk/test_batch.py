"""Rows that join and leave: each is written as it would be alone."""

import pytest
import torch

from comigs.backbone.base import load_tokenizer
from comigs.talk.batch import Batch, Prompt, write
from comigs.talk.sampling import Sampling
from comigs.talk.voices import Voice, Voices
from tests.talk.voices_of import clients_of

GREEDY = Sampling(temperature=0, tokens=8)


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("comigs-tiny")


def prompt(voice, length, sampling=GREEDY, **more):
    ids = torch.randint(1, 64, (length,), generator=torch.Generator().manual_seed(length))
    return Prompt(voice, tuple(ids.tolist()), sampling, **more)


class Logits(Batch):
    """Keeps the logits that every row saw."""

    def _pass(self, rows, ids, cache):
        logits = super()._pass(rows, ids, cache)
        for row, own in zip(rows, logits, strict=True):
            row.__dict__.setdefault("seen", []).append(own)
        return logits


def all_of(batch):
    while batch.rows:
        batch.step()


@torch.inference_mode()
def assert_alone(row, model):
    """The row's tokens and logits are those of its model without a cache."""
    assert len(row.seen) == row.written
    for i, seen in enumerate(row.seen):
        upto = torch.tensor([row.ids[: len(row.prompt.ids) + i]])
        want = model(input_ids=upto).logits[0, -1]
        torch.testing.assert_close(seen, want, rtol=1e-5, atol=1e-5)
        assert int(want.argmax()) == row.ids[len(row.prompt.ids) + i]


@pytest.mark.slow
@pytest.mark.parametrize(
    "family", ["gpt2", "llama", "gemma2", "gemma3n_text", "gemma4_text", "gpt_neox", "falcon"]
)
def test_rows_that_join_in_mid_generation_are_written_as_alone(family, tokenizer):
    _, models = clients_of(family)
    batch = Logits(Voices([*map(Voice, models)]), tokenizer)
    rows = [row for row, _ in batch.join([prompt(0, 5), prompt(2, 9)])]
    batch.step()
    batch.step()
    rows += [row for row, _ in batch.join([prompt(0, 17), prompt(3, 2), prompt(1, 4)])]
    batch.step()
    rows += [row for row, _ in batch.join([prompt(4, 3)])]
    all_of(batch)
    for row in rows:
        assert row.reason == "length"
        assert_alone(row, models[row.prompt.voice])


def test_a_row_that_is_dropped_leaves_the_others_alone(tokenizer):
    _, models = clients_of("llama")
    batch = Logits(Voices([*map(Voice, models)]), tokenizer)
    (long, _), (short, _) = batch.join([prompt(0, 12), prompt(2, 3)])
    batch.step()
    batch.drop([long])
    all_of(batch)
    assert long.reason is None and long.written == 2
    assert_alone(short, models[2])


@pytest.mark.slow
@pytest.mark.parametrize("sampling", [GREEDY, Sampling(seed=3, tokens=8, repetition_penalty=1.3)])
def test_many_prompts_are_written_as_one_by_one(tokenizer, sampling):
    voices = Voices([*map(Voice, clients_of("gpt2")[1])])
    prompts = [prompt(n % 5, 2 + n, sampling) for n in range(7)]

    def texts(prompts, at_once):
        found = [""] * len(prompts)
        for number, text in write(Batch(voices, tokenizer), prompts, at_once):
            found[number] += text
        return found

    alone = [texts([each], 1)[0] for each in prompts]
    assert texts(prompts, 3) == texts(prompts, 16) == alone
    assert len(set(alone)) > 3


def test_a_token_or_a_text_that_ends_it_is_not_written(tokenizer):
    voices = Voices([Voice(clients_of("gpt2")[1][0])])
    [whole] = [row for row, _ in Batch(voices, tokenizer).join([prompt(0, 5)])]
    batch = Batch(voices, tokenizer)
    [(row, text)] = batch.join([prompt(0, 5)])
    while batch.rows:
        text += batch.step()[0][1]
    third = row.ids[7]
    cut = row.ids[5:].index(third)
    batch = Batch(voices, tokenizer)
    [(ended, said)] = batch.join([prompt(0, 5, ends=frozenset({third}))])
    while batch.rows:
        said += batch.step()[0][1]
    assert (ended.reason, ended.written) == ("stop", cut + 1)
    assert text.startswith(said) and len(said) < len(text)
    assert whole.ids[:6] == row.ids[:6]
