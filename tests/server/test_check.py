"""What can be known before round 1 is said before round 1, by `run` and by `plan`."""

import pytest

import comigs
from comigs.app.run import plan
from comigs.errors import BadInput
from tests.fixtures import made_up_text
from tests.folders import llama, save

pytest_plugins = ("tests.fixtures",)
BOTH = pytest.mark.parametrize("command", [comigs.run, plan])


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize("devices", [[], ["devices.profiles={laptop: 1}", "devices.fit=derive"]])
def test_sequences_beyond_the_models_positions(tmp_path, monkeypatch, command, devices):
    monkeypatch.chdir(tmp_path)
    words = r"data\.seq_len is 256; model 'comigs-tiny' has 128 positions: set data\.seq_len=128"
    with pytest.raises(BadInput, match=words):
        command(None, ["data.seq_len=256", *devices])
    assert list(tmp_path.iterdir()) == []


@BOTH
def test_positions_of_other_families(tmp_path, monkeypatch, tree, command):
    monkeypatch.chdir(tmp_path)
    model = str(save(llama(), tmp_path / "model"))
    data = {"name": tree["data"]["name"], "seq_len": 65}
    with pytest.raises(BadInput, match=r"data\.seq_len is 65; model .* has 64 positions"):
        command(tree | {"model": {"name": model}, "data": data})


@BOTH
@pytest.mark.parametrize("count", [3, 70])
def test_a_text_that_is_too_short(tmp_path, monkeypatch, tree, command, count):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for number in range(count):
        text = "too short\n" * 12 if number == count - 1 else made_up_text(number, 40)
        (tmp_path / "data" / f"c{number}.txt").write_text(text)
    few = {"specialists": 1, "rank": 2}
    config = tree | {"data": {"name": str(tmp_path / "data"), "seq_len": 16}, "experts": few}
    with pytest.raises(BadInput, match=rf"client 'c{count - 1}' has \d+ tokens in its valid split"):
        command(config)
    assert not (tmp_path / "runs").exists()
