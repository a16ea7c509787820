"""Token streams: targets, limits, and windows that cover a stream exactly once."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from comigs.config.model import DataConfig
from comigs.config.settings import RunConfig
from comigs.data.corpus import forget_changed
from comigs.data.roster import roster
from comigs.data.tokens import client_data, consecutive_windows, pooled_data, random_windows
from comigs.errors import BadInput
from comigs.seeds import generator

CONFIG = RunConfig(data=DataConfig(name="topics", train_tokens=4000))


@pytest.mark.slow
def test_in_distribution_text_is_the_clients_own_and_mixture_an_equal_share_of_all():
    own = [client_data(CONFIG, i) for i in range(4)]
    mixed = replace(CONFIG, data=replace(CONFIG.data, target="mixture"))
    both = [client_data(mixed, i) for i in range(4)]
    share = min(len(d.valid) for d in own) // 4
    assert torch.equal(both[0].valid, torch.cat([d.valid[:share] for d in own]))
    assert torch.equal(both[0].valid, both[3].valid)
    assert torch.equal(both[1].train, own[1].train)
    (test,) = both[2].tests.values()
    assert len(test) == 4 * (min(len(next(iter(d.tests.values()))) for d in own) // 4)


@pytest.mark.slow
def test_each_client_may_have_a_target_of_its_own():
    targets = ["mixture", "in_distribution", "in_distribution", "mixture"]
    each = replace(CONFIG, data=replace(CONFIG.data, target=targets))
    for client, target in enumerate(targets):
        alone = replace(CONFIG, data=replace(CONFIG.data, target=target))
        assert torch.equal(client_data(each, client).valid, client_data(alone, client).valid)
    assert each.data.mixes and not CONFIG.data.mixes
    with pytest.raises(BadInput, match=r"data.target has 4 values, but clients has or is 3"):
        replace(each, clients=3)


def test_tokens_are_cut_per_client_from_the_start():
    cut = replace(CONFIG, data=replace(CONFIG.data, train_tokens=[500, 600, 700, 800]))
    assert [len(client_data(cut, i).train) for i in range(4)] == [500, 600, 700, 800]
    assert torch.equal(client_data(cut, 1).train, client_data(CONFIG, 1).train[:600])


def test_pooled_data_trains_on_all_and_tests_on_each():
    pooled = pooled_data(CONFIG)
    assert len(pooled.train) == 4 * 4000
    assert tuple(pooled.tests) == roster(CONFIG)


def test_a_split_shorter_than_one_sequence_is_refused():
    short = replace(CONFIG, data=replace(CONFIG.data, train_tokens=128))
    with pytest.raises(BadInput, match=r"128 tokens in its train split.*seq_len \+ 1 = 129$"):
        client_data(short, 0)
    client_data(replace(CONFIG, data=replace(CONFIG.data, train_tokens=129)), 0)


def test_texts_that_change_in_one_process_are_read_again(tmp_path):
    config = replace(CONFIG, data=DataConfig(str(tmp_path), seq_len=4), clients=None)
    path = tmp_path / "ana.txt"
    path.write_text("one two three four\n" * 40)
    forget_changed(str(tmp_path))
    before = client_data(config, 0)
    forget_changed(str(tmp_path))
    assert torch.equal(client_data(config, 0).train, before.train)
    path.write_text("four three two one\n" * 40)
    (tmp_path / "bo.txt").write_text("five six\n" * 40)
    assert torch.equal(client_data(config, 0).train, before.train), "not in the middle of a run"
    forget_changed(str(tmp_path))
    assert roster(config) == ("ana", "bo")
    assert not torch.equal(client_data(config, 0).train[:8], before.train[:8])


def test_more_clients_than_the_data_has_are_refused():
    with pytest.raises(BadInput, match="clients is 9; 'topics' has 4"):
        roster(replace(CONFIG, clients=9))


@given(st.integers(2, 300), st.integers(1, 20), st.integers(1, 5))
@settings(max_examples=60)
def test_consecutive_windows_predict_every_token_but_the_first_exactly_once(length, seq_len, batch):
    stream = torch.arange(length)
    targets, inputs = [], []
    for windows in consecutive_windows(stream, batch, seq_len):
        assert windows.shape[0] <= batch and windows.shape[1] <= seq_len + 1
        inputs.append(windows[:, :-1].flatten())
        targets.append(windows[:, 1:].flatten())
    assert torch.equal(torch.cat(targets), stream[1:])
    assert torch.equal(torch.cat(inputs), stream[:-1])


@given(st.integers(9, 60), st.integers(0, 100))
@settings(max_examples=40)
def test_random_windows_are_runs_of_the_stream_from_anywhere_in_it(length, seed):
    stream = torch.arange(length)
    windows = random_windows(stream, 16, 8, generator(seed))
    assert windows.shape == (16, 9)
    assert (windows.diff(dim=1) == 1).all()
    assert windows.min() >= 0 and windows.max() < length
