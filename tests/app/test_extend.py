"""A run that goes on to more rounds: with which numbers, from where, and what it refuses."""

import json
import math
import shutil

import pytest

import comigs
from comigs.app.run import resume
from comigs.config.load import config_hash, load_config, read_config
from comigs.errors import BadInput
from comigs.store.eventjson import from_object
from comigs.store.state import saved_rounds
from tests.helpers import assert_same_numbers, events

pytest_plugins = ("tests.fixtures",)


@pytest.fixture(scope="module")
def constant(tree):
    return tree | {"rounds": 4, "train": {"schedule": "constant"}}


@pytest.fixture(scope="module")
def short(tree, tmp_path_factory):
    """Two rounds under a cosine of two rounds; look, do not touch."""
    return comigs.run(tree | {"rounds": 2}, out=tmp_path_factory.mktemp("short")).folder


@pytest.fixture
def copy(short, tmp_path):
    return shutil.copytree(short, tmp_path / "copy")


def told(seen):
    return next(from_object(event) for event in seen if event["event"] == "extended").told


@pytest.mark.slow
def test_with_a_constant_rate_it_is_bit_for_bit_the_run_that_was_as_long_from_the_start(
    constant, tmp_path
):
    seen: list = []
    straight = comigs.run(constant, out=tmp_path / "straight").folder
    out = comigs.run(constant | {"rounds": 2}, out=tmp_path / "run").folder
    assert resume(out, ["rounds=4"], watch=seen.append).config.rounds == 4
    assert told(seen) == "extends round 2 to 4: the same as 4 rounds from the start"
    assert_same_numbers(out, straight)
    assert [event["round"] for event in events(out, "round")] == [1, 2, 3, 4]
    assert [(e["rounds"], e["round"]) for e in events(out, "start")] == [(2, 0), (4, 2)]
    assert len(events(out, "end")) == 1
    assert config_hash(read_config(out)) == config_hash(read_config(straight))


@pytest.mark.slow
def test_a_schedule_goes_on_as_in_the_longer_run_and_its_config_repeats_it(tree, copy, tmp_path):
    seen: list = []
    resume(copy, ["rounds=3"], watch=seen.append)
    longer = 2e-3 * (0.1 + 0.9 * (1 + math.cos(math.pi * 4 / 5)) / 2)  # step 5 of 6
    assert told(seen) == (
        "extends round 2 to 3: from round 3 on the learning rate is that of 3 rounds, "
        f"{longer:.3g} after 0.0002; 3 rounds from the start would differ"
    )
    config = read_config(copy)
    assert config.extended == [[2, 2]]
    assert config_hash(config) != config_hash(load_config(tree | {"rounds": 3}))
    again = comigs.run(copy / "config.yaml", out=tmp_path / "again").folder
    assert_same_numbers(copy, again)


@pytest.mark.slow
def test_stopped_in_the_middle_on_ray_it_ends_the_same(copy, short, tmp_path):
    straight = shutil.copytree(short, tmp_path / "straight")
    resume(straight, ["rounds=4"])

    def stop(event):
        if event["event"] == "client" and event["round"] == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        resume(copy, ["rounds=4", "engine=ray", "engine.workers=2"], watch=stop)
    assert saved_rounds(copy / "server")[-1] == 3
    assert not comigs.open(copy).finished
    assert not list(copy.glob("clients/*/final")), "they would pass for the longer run's"
    resume(copy)
    assert read_config(copy).extended == [[2, 2]]
    assert_same_numbers(copy, straight)


@pytest.mark.slow
def test_a_run_that_waits_for_something_better_waits_on(constant, tmp_path):
    tree = constant | {"stop": {"patience": 3}}
    straight = comigs.run(tree, out=tmp_path / "straight")
    out = comigs.run(tree | {"rounds": 2}, out=tmp_path / "run").folder
    assert resume(out, ["rounds=4"]).chosen == straight.chosen
    assert_same_numbers(out, straight.folder)


@pytest.mark.slow
def test_a_run_that_has_ended_early_is_not_made_longer(constant, tmp_path):
    still = {"schedule": "constant", "lr": 1e-30}  # no pass is better than the one before
    result = comigs.run(constant | {"stop": {"patience": 1}, "train": still}, out=tmp_path)
    assert result.chosen.stopped
    with pytest.raises(BadInput, match=r"has ended at round \d by stop\.patience 1"):
        resume(tmp_path, ["rounds=9"])
    assert comigs.open(tmp_path).chosen == result.chosen


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (["rounds=1"], "has 2: it can be made longer, not shorter"),
        (["rounds=4", "seed=8"], "^seed differs from the run"),
        (["rounds=4", "extended=[[1, 1]]"], "^extended differs from the run"),
        (["rounds=4", "engine=flower"], "have agreed to 2 rounds"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(copy, settings, why):
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    with pytest.raises(BadInput, match=why):
        resume(copy, settings)
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_a_run_that_keeps_its_final_models_only_is_not_made_longer(copy):
    """As `comigs compare --keep-models` leaves it."""
    shutil.rmtree(copy / "server")
    with pytest.raises(BadInput, match="no round to go on from"):
        resume(copy, ["rounds=4"])
    assert len(list(copy.glob("clients/*/final/*/tensors.safetensors"))) == 3


@pytest.mark.slow
def test_a_kill_between_its_two_files_leaves_a_run_that_goes_on(copy):
    """Without identity.json, and with the old settings or the new ones."""
    config = copy / "config.yaml"
    for name in ("identity.json", "pin.json"):
        (copy / name).unlink()
    assert read_config(copy).rounds == 2
    config.write_text(config.read_text().replace("rounds: 2", "rounds: 3"))
    assert len(resume(copy).rounds) == 3


def test_each_round_keeps_the_schedule_that_it_was_trained_under():
    """Stopped at 12 of 20 and made 40, stopped at 30 and made 60."""
    config = load_config({"rounds": 60, "extended": [[12, 20], [30, 40]]})
    assert [config.scheduled(n) for n in (1, 12, 13, 30, 31, 60)] == [20, 20, 40, 40, 60, 60]
    assert load_config({"rounds": 60}).scheduled(1) == 60


@pytest.mark.parametrize("pairs", ["[[3]]", "[[30, 20]]", "[[5, 90]]", "[[9, 20], [5, 30]]", "[]"])
def test_pairs_that_say_nothing_are_refused(pairs):
    with pytest.raises(BadInput, match="extended is"):
        load_config({"rounds": 60} | {"extended": json.loads(pairs)})
