"""Device profiles: the library, users' own, and which client gets which."""

from collections import Counter
from dataclasses import replace

import pytest

import comigs
from comigs.config.load import config_hash, dump_yaml, load_config
from comigs.config.profiles import library, profiles_of
from comigs.errors import BadInput
from comigs.federation.devices import assign_devices
from comigs.federation.run import resolve
from tests.helpers import assert_same_numbers

pytest_plugins = ("tests.fixtures",)


def error_of(*overrides, source=None):
    with pytest.raises(BadInput) as caught:
        load_config(source, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def placed(quantities, *overrides):
    return assign_devices(load_config(None, overrides), quantities).devices.profiles


def test_every_profile_says_where_each_of_its_numbers_is_from():
    assert len(library()) == 8
    for name, profile in library().items():
        assert profile.name == name
        for word in ("memory:", "flops:", "network:", "power:"):
            assert word in profile.source, (name, word)


def test_a_profile_of_the_users_own_starts_from_one_of_the_library():
    config = load_config(
        {"devices": {"define": {"mine": {"like": "phone-low", "flops": {"float32": 1e9}}}}}
    )
    mine, phone = profiles_of(config.devices.define)["mine"], library()["phone-low"]
    flops = {"float32": 1e9, "bfloat16": phone.flops["bfloat16"]}
    assert mine == replace(phone, name="mine", flops=flops)
    assert load_config({**_yaml(config)}) == config


def _yaml(config):
    import yaml

    return yaml.safe_load(dump_yaml(config))


@pytest.mark.parametrize(
    "setting, words",
    [
        (
            "devices.define.x={memry: 1}",
            "unknown key devices.define.x.memry; did you mean devices.define.x.memory?",
        ),
        ("devices.define.x={like: phone-hi}", "did you mean phone-high?"),
        ("devices.define.x={memory: 1e9}", "devices.define.x lacks flops"),
        ("devices.define.x={like: board, up: 0}", "devices.define.x.up is 0.0"),
        ("devices.define.x={like: board, dropout: 1}", "devices.define.x.dropout is 1.0"),
        ("devices.define.x={like: board, trace: '00'}", "devices.define.x.trace is '00'"),
        ("devices.define.x={like: board, flops: {int8: 1}}", "a rate for float32 or bfloat16"),
        ("devices.profiles={fone-low: 1}", "did you mean phone-low?"),
        ("devices.profiles={board: 0}", "not all 0"),
        ("devices.profiles=[board,lptop]", "did you mean laptop?"),
        ("devices.margin=1", "devices.margin is 1.0"),
        ("devices.fit=derives", "did you mean derive?"),
    ],
)
def test_mistakes(setting, words):
    assert words in error_of(setting)


def test_a_mistake_in_a_file_names_its_line(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text("devices:\n  define:\n    mine:\n      like: board\n      wats: 3\n")
    assert "my.yaml, line 5: unknown key devices.define.mine.wats" in error_of(source=path)


def test_as_many_of_each_as_asked_for_in_places_from_the_seed():
    asked = "devices.profiles={phone-low: 10, laptop: 20}"
    names = placed([1] * 30, asked)
    assert Counter(names) == {"phone-low": 10, "laptop": 20}
    assert names == placed([1] * 30, asked) == placed([1] * 30, asked, "method=fedavg")
    assert names != placed([1] * 30, asked, "seed=1")


def test_other_numbers_are_shares_by_largest_remainder():
    asked = "devices.profiles={phone-low: 5, laptop: 3, board: 1}"
    assert Counter(placed([1] * 4, asked)) == {"phone-low": 2, "laptop": 1, "board": 1}
    assert len(placed([1] * 1001, asked)) == 1001


@pytest.mark.parametrize(
    "order, names",
    [
        ("agreeing", ["board", "datacentre", "phone-low", "laptop"]),
        ("opposed", ["laptop", "phone-low", "datacentre", "board"]),
    ],
)
def test_devices_follow_the_quantity_of_data(order, names):
    asked = "devices.profiles={phone-low: 1, board: 1, laptop: 1, datacentre: 1}"
    assert placed([20, 99, 10, 30], asked, f"devices.order={order}") == names


def test_a_list_stays_and_must_have_one_name_per_client():
    asked = ["devices.profiles=[board,laptop]", "devices.order=agreeing"]
    assert placed([9, 1], *asked) == ["board", "laptop"]
    with pytest.raises(BadInput, match="has 2 values; there are 3 clients"):
        placed([1, 2, 3], *asked)
    assert "devices.profiles has 2 values" in error_of("clients=3", *asked)


def test_profile_of_a_client():
    config = load_config(None, ["devices.profiles=[board,laptop,board,board]"])
    assert resolve(config).client(1).profile == library()["laptop"]
    assert resolve(load_config()).client(1).profile is None
    assert resolve(replace(config, method="centralized")).client(0).profile is None


def test_a_config_without_devices_keeps_its_name():
    assert config_hash(load_config(None, ["devices.fit=check"])) == config_hash(load_config())
    named = load_config(None, ["devices.profiles={board: 1}"])
    assert config_hash(named) != config_hash(load_config())


def test_a_client_sees_its_own_base_and_micro_batch():
    config = load_config(
        None, ["model.dtype=[float32,bfloat16]", "micro_batch_size=[8,2]", "clients=2"]
    )
    first, second = config.for_client(0), config.for_client(1)
    assert (first.model.dtype, first.micro_batch) == ("float32", 8)
    assert (second.model.dtype, second.micro_batch) == ("bfloat16", 2)
    assert second.for_client(0) == second
    assert "micro_batch_size is [3, 2]" in error_of("micro_batch_size=[3,2]")


def test_one_value_per_client_trains_like_one_for_all(tree, tmp_path):
    lists = {"model": tree["model"] | {"dtype": ["float32"] * 3}, "micro_batch_size": [1, 1, 1]}
    one = comigs.run(tree | {"micro_batch_size": 1}, out=tmp_path / "one")
    assert_same_numbers(comigs.run(tree | lists, out=tmp_path / "lists").folder, one.folder)


def test_a_client_of_another_dtype_or_micro_batch_trains_by_it(tree, finished, tmp_path):
    from tests.helpers import numbers

    model = tree["model"] | {"dtype": ["float32", "bfloat16", "float32"]}
    folder = comigs.run(tree | {"model": model, "rounds": 1}, out=tmp_path).folder
    ours, theirs = numbers(folder)[2], numbers(finished)[2]
    assert [ours[1, i] == theirs[1, i] for i in range(3)] == [True, False, True]
