"""The final model is the mean over rounds from `train.swa`, and training does not know of it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import comigs
from comigs.config.load import config_hash, load_config
from comigs.costs.traffic import traffic
from comigs.errors import BadInput
from comigs.federation.run import resolve
from comigs.messages.update import mean_with
from comigs.store.state import read_state
from comigs_server.checks.run import check
from tests.helpers import assert_same_numbers, events, run_and_resumed

pytest_plugins = ("tests.fixtures",)


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=9))
def test_the_running_mean_is_the_mean(values):
    mean = {}
    for count, value in enumerate(values, 1):
        mean = mean_with(mean, {"x": torch.tensor([value, 1.0])}, count)
    wanted = torch.tensor([sum(values) / len(values), 1.0])
    torch.testing.assert_close(mean["x"], wanted, rtol=1e-5, atol=1e-5)


def halves(folder, part):
    """The mean of the states of rounds 2 and 3."""
    two, three = (read_state(folder, number)[0][part] for number in (2, 3))
    return {name: (two[name] + three[name]) / 2 for name in three}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"payload": {"down": "int8"}, "engine": {"fuse": 3}, "experts": {"specialists": 1}},
        {"method": "comigs-2s", "server": {"weighting": "samples"}},
    ],
    ids=["comigs", "packed", "nothing shared"],
)
def test_the_final_model_is_the_mean_of_the_rounds_and_training_is_as_ever(
    settings, tree, tmp_path
):
    tree = tree | settings | {"log": tree["log"] | {"eval_every": 0}}
    plain = comigs.run(tree, out=tmp_path / "plain")
    mean = comigs.run(tree | {"train": {"swa": 2}}, out=tmp_path / "mean")
    for one, two in zip(*(events(run.folder, "client") for run in (plain, mean)), strict=True):
        assert (one["loss"], one["bytes_up"]) == (two["loss"], two["bytes_up"])
    shared = halves(mean.folder / "server", "shared")
    for number, row in enumerate(mean.table):
        root = mean.folder / "clients" / str(number)
        wanted = halves(root, "tensors") | shared
        final = read_state(root / "final", 3)[0]["tensors"]
        assert final.keys() == wanted.keys()
        for name, tensor in final.items():
            torch.testing.assert_close(tensor, wanted[name], rtol=1e-5, atol=1e-7)
        last = plain.table[number]
        assert row["before"] == last["before"] and row["after"] != last["after"]
        assert row["bytes_down"] == sum(traffic(resolve(mean.config)).clients[number].down)


def test_a_resumed_mean_is_bit_identical(tree, tmp_path):
    tree = tree | {"train": {"swa": 1}, "participation": 0.6}
    whole, resumed = run_and_resumed(tree, tmp_path)
    assert_same_numbers(resumed, whole)


def test_off_it_enters_no_name_and_no_checkpoint(finished):
    assert config_hash(load_config({"train": {"swa": None, "rewarm": 0.0}})) == config_hash(
        load_config({})
    )
    for root in (finished / "server", finished / "clients" / "0"):
        tensors, meta = read_state(root, 3)
        assert not {"swa", "mean", "averaged"} & (tensors.keys() | meta.keys())


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"train": {"swa": 4}}, "train.swa is 4; there are 3 rounds"),
        ({"method": "flora"}, "method 'flora' makes something else of what arrives"),
        ({"method": "mr-mtl"}, "method 'mr-mtl' makes something else of what arrives"),
        ({"method": "ditto"}, "method 'ditto' makes something else of what arrives"),
        ({"experts": {"specialists": [1, 2, 3]}, "method": "comigs-2g"}, "that not every client"),
    ],
)
def test_what_has_no_mean_is_refused(settings, reason, tree):
    tree = tree | {"train": {"swa": 2}, "experts": {"specialists": 1}} | settings
    with pytest.raises(BadInput, match=reason):
        check(resolve(load_config(tree)))
