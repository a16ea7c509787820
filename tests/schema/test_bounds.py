"""No number is too large, no text too odd, no file too strange for one line that names it."""

import os
import types
from dataclasses import fields, is_dataclass
from typing import Union, get_args, get_origin, get_type_hints

import pytest

from comigs.config.load import load_config
from comigs.config.pools import PoolConfig
from comigs.config.profiles import DeviceConfig
from comigs.config.settings import RunConfig
from comigs.errors import BadInput
from comigs.schema.bounds import LIFT


def kinds(hint):
    """The plain types a setting may have."""
    if get_origin(hint) in (Union, types.UnionType, list):
        return {kind for part in get_args(hint) for kind in kinds(part)}
    return {hint}


def numeric(cls=RunConfig, prefix=""):
    """Every numeric setting, with whether it is a whole number."""
    hints = get_type_hints(cls)
    for field in fields(cls):
        hint = hints[field.name]
        if is_dataclass(hint):
            yield from numeric(hint, f"{prefix}{field.name}.")
        elif found := kinds(hint) & {int, float}:
            yield f"{prefix}{field.name}", found == {int}


SET = ["model.dtype=bfloat16", "model=comigs-tiny"]
NUMERIC = [
    *numeric(),
    *numeric(DeviceConfig, "devices.define.mine."),
    *numeric(PoolConfig, "ray.pools.mine."),
]
WRONG = [
    "9" * 400, "-" + "9" * 400, "9" * 5000, "1" + "0" * 30, "-1" + "0" * 30, "1e400", "-1e400",
    ".nan", ".inf", "-.inf", "nan", "inf", "true", "x", "{a: 1}", "[[1]]", "[]", "1:30", "010",
    "0x10", "0b1", "1_000", "2024-01-01", "yes", "''",
]  # fmt: skip


def test_there_are_settings_to_try():
    keys = [key for key, _ in NUMERIC]
    assert len(keys) > 50
    assert {"rounds", "seed", "experts.rank", "devices.define.mine.memory"} <= set(keys)


@pytest.mark.slow
@pytest.mark.parametrize(("key", "whole"), NUMERIC)
def test_every_number_has_its_bounds(key, whole):
    for value in [*WRONG, *(["1.5", "1e3", ".5"] if whole else [])]:
        with pytest.raises(BadInput) as caught:
            load_config(None, [f"{key}={value}"])
        text = str(caught.value)
        assert "\n" not in text and len(text) < 400, (value, text)
        assert key.rpartition(".")[2] in text, (value, text)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("experts.rank=1000000", "experts.rank is 1000000; it must be at most 16,384"),
        ("experts.specialists=[1, 1000000]", "experts.specialists is 1000000"),
        ("threads=100000", "threads is 100000; it must be at most 1,024"),
        ("engine.fuse=1000000000000", "engine.fuse is"),
        ("devices.profiles={laptop: 1000000000000}", "devices.profiles.laptop is"),
        ("seed=" + "9" * 400, "seed is a number of 400 digits"),
        ("local_steps=1" + "0" * 30, "local_steps is"),
        ("privacy.noise=1e-300", "privacy.noise is 1e-300"),
        ("privacy.clip=1e300", "privacy.clip is 1e+300"),
        ("privacy.delta=0", "privacy.delta is 0"),
        ("faults.poisoned=[1, 1]", "faults.poisoned is [1, 1]; it must be a list without repeats"),
        ("name=/abs/x", "name is '/abs/x'; it must be a plain name"),
        ("name=../..", "name is '../..'"),
        ("name=.", "name is '.'"),
        ("name=''", "name is ''"),
        ("name=" + "x" * 300, "name is 'xxx"),
        ('name="a\\nb"', "control characters"),
        ('data.name="a\\0b"', "control characters"),
        ("rounds=", "rounds is None"),
        ("rounds=[", "cannot be read"),
        ("rounds=" + "[" * 3000, "cannot be read"),
        ("experts={rank: 1, rank: 2}", "found duplicate key rank"),
        ("data.name=${oc.env:HOME", "data.name: "),
        ("x[0]=1", "unknown key"),
        ("=1", "not of the form"),
        ("rounds=!!python/object:os.system 1", "cannot be read"),
    ],
)
def test_a_wrong_setting_is_one_line(setting, words):
    with pytest.raises(BadInput) as caught:
        load_config(None, [setting])
    text = str(caught.value)
    assert words in text and "\n" not in text and len(text) < 400


def test_a_bound_can_be_lifted_but_not_the_machine_s_own(monkeypatch):
    monkeypatch.setenv(LIFT, "1")
    assert load_config(None, ["experts.rank=100000"]).experts.rank == 100000
    for setting in ("seed=" + "9" * 400, "rounds=1" + "0" * 30):
        with pytest.raises(BadInput):
            load_config(None, [setting])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"5", "expected `key: value` lines"),
        (b"[1]", "expected `key: value` lines"),
        (b"just words", "expected `key: value` lines"),
        (b"\xff\xfe\x00", "is not UTF-8"),
        (b"rounds: 3\x00", "NUL"),
        (b"rounds: 1:30", "rounds is '1:30'; expected a whole number"),
        (b"rounds: 010", "rounds is '010'"),
        (b"a: " + b"[" * 3000, "nested too deeply"),
        (b"a: " + b"{a: " * 40 + b"1" + b"}" * 40, "nested too deeply"),
        (b"x: &a [1,1,1,1,1,1,1,1,1]\n" + b"".join(
            b"%c: &%c [%s]\n" % (97 + i, 97 + i, b",".join([b"*%c" % (96 + i)] * 9))
            for i in range(1, 9)
        ), "more than"),
        (b"rounds: !!python/object/apply:os.system [ls]", "line 1"),
        (b"? [1, 2]\n: 3", "line 1"),
        (b"name: ${oc.env:NOT_THERE_AT_ALL}", "NOT_THERE_AT_ALL"),
        (b"name: ${", "my.yaml"),
        (b"1: 2", "unknown key 1"),
    ],
)  # fmt: skip
def test_a_strange_file_is_one_line(tmp_path, content, words):
    path = tmp_path / "my.yaml"
    path.write_bytes(content)
    with pytest.raises(BadInput) as caught:
        load_config(path)
    text = str(caught.value)
    assert words in text and "\n" not in text and len(text) < 500


@pytest.mark.parametrize("kind", ["empty", "huge", "fifo", "folder"])
def test_what_is_no_file_of_settings(tmp_path, kind):
    path = tmp_path / "my.yaml"
    if kind == "empty":
        path.write_text("# nothing\n")
        assert load_config(path) == RunConfig()
        return
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.write_bytes(b"# \n" * 2**20)
    with pytest.raises(BadInput) as caught:
        load_config(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "order",
    [["model.dtype=bfloat16", "model=comigs-tiny"], ["model=comigs-tiny", "model.dtype=bfloat16"]],
)
def test_a_section_s_name_leaves_its_other_keys_alone(order, tmp_path):
    assert load_config(None, order).model.dtype == "bfloat16"
    path = tmp_path / "my.yaml"
    path.write_text(
        "model: {dtype: bfloat16}\ndata: {seq_len: 32}\nengine: {name: ray, workers: 3}\n"
    )
    config = load_config(path, ["model=comigs-tiny", "data=topics", "engine=inline"])
    assert (config.model.dtype, config.data.seq_len, config.engine.workers) == ("bfloat16", 32, 3)
    assert (config.data.name, config.engine.name) == ("topics", "inline")
    path.write_text("data: topics\n")
    config = load_config(path, ["data.seq_len=32"])
    assert (config.data.name, config.data.seq_len) == ("topics", 32)


@pytest.mark.parametrize("value", ["x" * 300, "a/" + "x" * 256, "", " ", "~nobody-of-this-name/x"])
def test_a_place_is_a_path_that_can_be(value):
    for key in ("model", "data"):
        with pytest.raises(BadInput, match=f"{key}.name is "):
            load_config({key: {"name": value}})
    if value:
        with pytest.raises(BadInput, match="the configuration is "):
            load_config(value)


def test_a_whole_number_beyond_text_is_refused_as_text_too():
    with pytest.raises(BadInput, match="digits; expected text"):
        load_config({"method": 10**5000})
