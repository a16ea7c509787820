"""Families whose models do not share passes: each row is written as its own model would."""

import pytest
import torch

import comigs
from comigs.backbone.base import load_tokenizer
from comigs.talk.alone import Alone, Singly, batch_of, speakers
from comigs.talk.voices import Voice, Voices
from tests.talk.test_batch import all_of, prompt
from tests.talk.voices_of import APART, clients_of


@pytest.mark.slow
@torch.inference_mode()
@pytest.mark.parametrize("family", APART)
def test_rows_are_those_of_their_own_model(family):
    base, models = clients_of(family, [(1, 2, 4, True), (2, 1, 4, True)])
    voices = speakers(
        [*map(Voice, models), Voice(models[0], "generalist_0"), Voice(models[0], bare=True)]
    )
    assert isinstance(voices, Alone)
    batch = batch_of(voices, load_tokenizer("comigs-tiny"))
    rows = [row for row, _ in batch.join([prompt(0, 5), prompt(3, 4)])]
    batch.step()
    rows += [row for row, _ in batch.join([prompt(1, 9), prompt(2, 3)])]
    all_of(batch)
    for row in rows:
        voice = row.prompt.voice
        own = [*models, models[0], base][voice]
        for at in range(len(row.prompt.ids), len(row.ids)):
            upto = torch.tensor([row.ids[:at]])
            if voice == 2:
                with comigs.using_expert(own, "generalist_0"):
                    wanted = own(input_ids=upto, use_cache=False).logits[0, -1]
            else:
                wanted = own(input_ids=upto, use_cache=False).logits[0, -1]
            best = wanted.topk(2).values
            assert int(wanted.argmax()) == row.ids[at] or best[0] - best[1] < 1e-4


def test_other_families_share_passes():
    _, models = clients_of("gpt2")
    voices = speakers([*map(Voice, models)])
    assert isinstance(voices, Voices)
    assert not isinstance(batch_of(voices, load_tokenizer("comigs-tiny")), Singly)
