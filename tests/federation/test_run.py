"""A resolved run and its clients: equal by what they say, each client with its own values."""

import json
from dataclasses import FrozenInstanceError, replace

import pytest

from comigs.config.load import load_config, to_dict
from comigs.errors import BadInput
from comigs.federation.run import resolve
from comigs.messages.order import read_config

UNEQUAL = ["clients=2", "experts.rank=[2,4]", "model.dtype=[float32,bfloat16]"]


def run_of(*settings):
    return resolve(load_config(None, settings))


def test_runs_and_clients_are_equal_and_hashable_by_their_configuration():
    one, same, other = run_of(*UNEQUAL), run_of(*UNEQUAL), run_of(*UNEQUAL, "seed=7")
    assert {one, same, other} == {one, other}
    assert {one.client(0), same.client(0), other.client(0), one.client(1)} == {
        *(run.client(0) for run in (one, other)),
        one.client(1),
    }
    tried = replace(one.client(0), config=replace(one.client(0).config, batch_size=2))
    assert tried != one.client(0)


def test_a_run_does_not_change():
    with pytest.raises(FrozenInstanceError):
        run_of().config = load_config()


def test_a_client_has_its_own_values_in_the_layout_of_the_method():
    own = [run_of("method=fedavg", *UNEQUAL).client(number) for number in (0, 1)]
    assert [client.dtype for client in own] == ["float32", "bfloat16"]
    assert [client.experts.rank for client in own] == [2, 4]
    assert [client.experts.specialists for client in own] == [0, 0]


def test_the_text_that_messages_carry_gives_the_same_run():
    run = run_of(*UNEQUAL, "devices.profiles=[board,laptop]")
    assert json.loads(run.text) == to_dict(run.config)
    assert resolve(read_config(run.text)) == run


def test_texts_are_looked_for_when_somebody_asks():
    run = run_of("data.name=/on/the/devices/only")
    with pytest.raises(BadInput, match=r"data\.name"):
        list(run.clients())
    assert run.client(3).experts.total == 2


def test_everybodys_text_in_one_place_is_one_client_with_all_the_steps():
    run, apart = run_of("method=centralized", "clients=3", "local_steps=5"), run_of("local_steps=5")
    assert (run.names, run.steps_per_round, apart.steps_per_round) == (("all",), 15, 5)
    assert run_of("method=centralized", "devices.profiles={board: 1}").devices is None


def test_an_unknown_method_is_bad_input():
    with pytest.raises(BadInput, match="did you mean 'comigs'"):
        run_of("method=comig")


def test_a_name_that_begins_with_0_is_no_number(tmp_path):
    for name in ("001", "002", "02"):
        (tmp_path / f"{name}.txt").write_text("mira tolu\n" * 400)
    run = run_of(f"data={tmp_path}")
    asked = {"001": "001", "002": "002", "02": "02", "1": run.names[1], "01": run.names[1]}
    assert {each: run.names[run.number_of(each)] for each in asked} == asked


def test_a_client_is_meant_by_its_number_or_its_name(tmp_path):
    for name in ("ana", "2", "7"):
        (tmp_path / f"{name}.txt").write_text("mira tolu\n" * 400)
    run = run_of(f"data={tmp_path}")
    assert run.names == ("2", "7", "ana")
    assert [run.number_of(asked) for asked in (1, "1", "ana", "2", 2)] == [1, 1, 2, 2, 2]
    for wrong in ("7", 3, -1, "-1", "", "9" * 5000):  # digits are a number, whatever the names are
        with pytest.raises(BadInput, match=r"there is no client .*; this run has 0 to 2: 2, 7, a"):
            run.number_of(wrong)
    with pytest.raises(BadInput, match="did you mean ana"):
        run.number_of("anna")
