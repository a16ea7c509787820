"""Configuration: every mistake gives one line that names file, line, key and fix."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comigs.config import load
from comigs.config.load import (
    changed_keys,
    config_hash,
    dump_yaml,
    identity,
    load_config,
    read_suite,
    to_dict,
    write_config,
)
from comigs.config.pools import PoolConfig
from comigs.config.settings import RunConfig
from comigs.errors import BadInput

PRESETS = ["quickstart", "paper"]
SUITES = ["quickstart", "claim"]


def error_of(source=None, *overrides):
    with pytest.raises(BadInput) as caught:
        load_config(source, overrides)
    text = str(caught.value)
    assert "\n" not in text
    return text


def yaml_file(tmp_path, text):
    path = tmp_path / "my.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_load_and_survive_a_round_trip(preset, tmp_path):
    config = load_config(preset)
    assert load_config(to_dict(config)) == config
    assert load_config(yaml_file(tmp_path, dump_yaml(config))) == config


@pytest.mark.parametrize("suite", SUITES)
def test_suites_have_what_compare_needs(suite):
    tree = read_suite(suite)
    assert tree["methods"] and tree["seeds"] and tree["grid"]
    load_config(tree["base"])


def test_nothing_given_is_the_quickstart():
    assert load_config() == load_config("quickstart")


def test_a_section_given_by_its_name_keeps_it_beside_its_other_keys():
    config = load_config(None, ["engine=ray", "engine.workers=2"])
    assert (config.engine.name, config.engine.workers) == ("ray", 2)
    assert load_config({"engine": "ray"}, ["engine.workers=2"]) == load_config(
        {"engine": {"name": "ray", "workers": 2}}
    )


def test_pools_are_read_by_device_class_and_change_no_identity():
    config = load_config(None, ["ray.pools.phone.workers=2", "ray.pools.phone.resources.npu=1"])
    assert config.ray.pools == {"phone": PoolConfig(workers=2, resources={"npu": 1.0})}
    assert load_config(to_dict(config)) == config
    assert config_hash(config) == config_hash(load_config())
    assert changed_keys(config, load_config()) == []


@pytest.mark.parametrize(
    "override, words",
    [
        ("experts.rnak=4", "unknown key experts.rnak; did you mean experts.rank?"),
        ("experts.rank=0", "experts.rank is 0; it must be at least 1"),
        ("experts.rank=eight", "expected a whole number or a list of whole numbers"),
        ("experts.top_k=3", "a client has only 2 experts"),
        ("experts.top_k=0", "experts.top_k is 0; it must be at least 1"),
        ("rounds=true", "rounds is True; expected a whole number"),
        ("rounds=2.5", "expected a whole number"),
        ("train.lr=0", "train.lr is 0.0"),
        ("train.lr=nan", "train.lr is nan"),
        ("model.dtype=float16", "expected float32 or bfloat16"),
        ("data.target=mixed", "expected in_distribution or mixture"),
        ("participation=0", "participation is 0.0"),
        ("micro_batch_size=5", "a divisor of 8"),
        ("train.betas=[0.9]", "two numbers in [0, 1)"),
        ("router.generalist_importance=1", "between 0 and 1"),
        ("rounds", "not of the form key=value"),
        ("rnak=4", "unknown key rnak; did you mean experts.rank?"),
        ("server.strategy=FedAdm", "did you mean FedAdam?"),
        ("rank=4", "unknown key rank; did you mean experts.rank?"),
        ("lr=0.1", "unknown key lr; did you mean router.lr or train.lr?"),
        ("metod=local", "unknown key metod; did you mean method?"),
        ("engine=dask", "expected inline or ray"),
        ("engine={name: dask}", "engine.name is 'dask'; expected"),
        ("router=3", "expected keys below"),
        ("router=[1, 2]", "router is [1, 2]; expected keys below"),
        ("name=${nobody}", "name: Interpolation key 'nobody' not found"),
        ("ray.address=ray://far:1", "ray.address is 'ray://far:1'; it must be auto, host:port"),
        ("ray.pools.phone.workers=0", "ray.pools.phone.workers is 0; it must be at least 1"),
        ("ray.pools.phone.cpus=-1", "ray.pools.phone.cpus is -1.0"),
        ("ray.pools.phone.gpus=1.5", "a whole number, or a share below 1"),
        ("ray.pools.phone.resources.CPU=1", "under another name; see cpus, gpus"),
        ("ray.pools.phone.cpu=1", "key ray.pools.phone.cpu; did you mean ray.pools.phone.cpus?"),
        ("ray.pools.phone=3", "expected keys below"),
    ],
)
def test_mistakes_on_the_command_line(override, words):
    text = error_of(None, override)
    assert words in text
    assert "command line" in text


def test_mistakes_in_a_file_name_file_and_line(tmp_path):
    text = "rounds: 3\nexperts:\n  rank: 4\n  rnak: 2\n"
    assert error_of(yaml_file(tmp_path, text)).startswith(
        "my.yaml, line 4: unknown key experts.rnak; did you mean experts.rank?"
    )
    assert error_of(yaml_file(tmp_path, "rounds: 3\ntrain:\n  lr: -1\n")).startswith(
        "my.yaml, line 3: train.lr is -1.0"
    )


@pytest.mark.parametrize(
    "text, words",
    [
        ("rounds: [1\n", "not valid YAML"),
        ("- 1\n- 2\n", "expected `key: value` lines"),
        ("rounds: 3\nrounds: 4\n", "line 2: not valid YAML (found duplicate key rounds)"),
    ],
)
def test_files_that_are_no_configuration(tmp_path, text, words):
    assert words in error_of(yaml_file(tmp_path, text))


def test_a_file_that_is_not_utf8(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_bytes(b"name: \xff\n")
    assert "not UTF-8" in error_of(path)


def test_an_empty_file_is_all_defaults(tmp_path):
    assert load_config(yaml_file(tmp_path, "")) == RunConfig()


def test_an_unknown_preset_lists_what_there_is():
    text = error_of("quikstart")
    assert "quickstart" in text and "did you mean" in text


def test_a_scalar_names_a_section():
    config = load_config(None, ["engine=ray", "data=topics", "model=gpt2"])
    assert (config.engine.name, config.data.name, config.model.name) == ("ray", "topics", "gpt2")


def test_numbers_as_people_write_them(tmp_path):
    assert load_config(None, ["train.lr=2e-4"]).train.lr == 2e-4
    assert load_config(yaml_file(tmp_path, "train:\n  lr: 1e-3\n")).train.lr == 1e-3
    assert load_config(None, ["experts.alpha=16"]).experts.alpha == 16.0


def test_a_client_with_one_expert_needs_no_router_so_top_k_is_free():
    load_config(None, ["experts.generalists=0"])
    load_config(None, ["experts.specialists=[0,2]"])
    assert "only 2 experts" in error_of(None, "experts.specialists=[0,1]", "experts.top_k=3")


def test_lists_per_client_must_agree_with_each_other_and_with_clients():
    assert "experts.rank has 2 values" in error_of(None, "clients=4", "experts.rank=[4,8]")
    assert "data.train_tokens has 3 values" in error_of(
        None, "experts.specialists=[1,2]", "data.train_tokens=[100,200,300]"
    )


def test_what_could_not_be_read_again_is_not_written(tmp_path, monkeypatch):
    config = load_config({"clients": 900, "experts": {"rank": [8] * 900}})
    monkeypatch.setattr(load, "MOST", load.MAPPINGS + 900)
    with pytest.raises(BadInput, match=r"a value for each client in experts\.rank: give one"):
        write_config(config, tmp_path)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(load, "MOST", load.MAPPINGS + 1200)
    write_config(config, tmp_path)


def test_min_clients_cannot_exceed_who_takes_part():
    text = error_of(None, "clients=4", "participation=0.5", "server.min_clients=3")
    assert "only 2 clients take part" in text


def test_identity_leaves_out_what_does_not_change_the_numbers():
    one = load_config(None, ["name=a", "engine=ray", "log.eval_every=5", "server.round_timeout=9"])
    assert changed_keys(load_config(), one) == []
    assert config_hash(load_config()) == config_hash(one)
    two = load_config(None, ["experts.rank=4", "seed=1"])
    assert changed_keys(load_config(), two) == ["experts.rank", "seed"]
    assert config_hash(load_config()) != config_hash(two)


@given(st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=12))
@settings(max_examples=40)
def test_any_unknown_key_is_refused_in_one_line(key):
    if key in to_dict(RunConfig()):
        return
    assert key in error_of({key: 1})


@given(st.sampled_from(sorted(identity(RunConfig()))), st.one_of(st.none(), st.text(), st.floats()))
@settings(max_examples=80)
def test_any_value_either_loads_or_is_refused_in_one_line(key, value):
    tree: dict = {}
    *sections, last = key.split(".")
    at = tree
    for section in sections:
        at = at.setdefault(section, {})
    at[last] = value
    try:
        config = load_config(tree)
    except BadInput as error:
        assert "\n" not in str(error)
    else:
        assert load_config(to_dict(config)) == config


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ("experts.rank=0", "experts.rank"),
        ("experts.top_k=9", "experts.top_k"),
        ("server.strategy=FedAdm", "server.strategy"),
        ("devices.profiles=[nophone]", "devices.profiles"),
        ("rounds=1e99", "rounds"),
        ("rounds=many", "rounds"),
        ("engine.fuse=0", "engine.fuse"),
        ("router.evry=3", "router.evry"),
        ("devices.define.mine.memory=5", "devices.define.mine"),
    ],
)
def test_an_error_knows_the_setting_it_is_about(setting, key):
    with pytest.raises(BadInput) as refused:
        load_config({}, [setting])
    assert refused.value.key == key
    assert str(refused.value).startswith(("command line: ", "configuration: devices.define"))
