"""A run that begins with another's shared tensors, and the client that joins a run so."""

import shutil

import pytest
import torch

import comigs
from comigs.app.join import ALONE, JOINED, join
from comigs.app.run import resume
from comigs.errors import BadInput
from comigs.store.state import read_state
from tests.helpers import assert_same_numbers

pytest_plugins = ("tests.fixtures",)


def shared_of(folder, number):
    return read_state(folder / "server", number)[0]["shared"]


@pytest.fixture
def begun(tree, finished):
    """A run that hardly moves, from the shared tensors of the finished one."""
    return tree | {"start": str(finished), "rounds": 2, "train": {"lr": 1e-12}}


@pytest.mark.slow
def test_a_run_begins_with_the_shared_tensors_of_another(begun, finished, tmp_path):
    folder = comigs.run(begun, out=tmp_path / "run").folder
    last, now = shared_of(finished, 3), shared_of(folder, 2)
    assert any(tensor.abs().max() > 0 for name, tensor in last.items() if "_B." in name)
    for name, tensor in last.items():
        torch.testing.assert_close(now[name], tensor, rtol=0, atol=1e-7)


@pytest.mark.slow
def test_it_goes_on_without_the_run_that_it_began_with(begun, finished, tmp_path):
    whole = comigs.run(begun, out=tmp_path / "whole").folder
    shutil.copytree(finished, tmp_path / "source")

    def stop(event):
        if event["event"] == "round":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        comigs.run(begun | {"start": str(tmp_path / "source")}, out=tmp_path / "cut", watch=stop)
    shutil.rmtree(tmp_path / "source")
    assert_same_numbers(resume(tmp_path / "cut").folder, whole)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"start": "nowhere"}, "nowhere holds no config.yaml"),
        ({"experts": {"specialists": 1, "rank": 3}}, r"it has experts.rank 2; this run has 3"),
        (
            {"method": "pcl", "experts": {"specialists": 1, "rank": 2}},
            "needs servers that average; that of 'pcl' does not",
        ),
        ({"method": "comigs-2s"}, "shares nothing that method 'comigs-2s' shares"),
    ],
)
def test_a_start_that_does_not_fit_is_refused_at_once(begun, change, words, tmp_path):
    with pytest.raises(BadInput, match=words):
        comigs.run(begun | change, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_newcomer_joins_with_one_expert_of_its_own(finished, tmp_path):
    (tmp_path / "dee.txt").write_text(
        "".join(f"{i} zelt ando, kypra {i * i}.\n" for i in range(200))
    )
    row = join(finished, tmp_path / "dee.txt", tmp_path / "out", ["rounds=1", "local_steps=1"])
    assert row.name == "dee"
    begun = shared_of(tmp_path / "out" / JOINED, 0)
    assert begun.keys() == shared_of(finished, 3).keys()
    assert not (tmp_path / "out" / ALONE / "server" / "round_00000").exists()
    assert len({row.base, row.generalist, row.alone, row.joined}) == 4
    again = join(finished, tmp_path / "dee.txt", tmp_path / "out", ["rounds=1", "local_steps=1"])
    assert again == row
    with pytest.raises(BadInput, match="begun with other text or settings; give another --out"):
        join(finished, tmp_path / "dee.txt", tmp_path / "out", ["rounds=2", "local_steps=1"])
    (tmp_path / "dee.txt").write_text("other text\n" * 200)
    with pytest.raises(BadInput, match="begun with other text or settings; give another --out"):
        join(finished, tmp_path / "dee.txt", tmp_path / "out", ["rounds=1", "local_steps=1"])


def test_who_joins_no_run_leaves_nothing_behind(finished, tmp_path):
    (tmp_path / "dee.txt").write_text("zelt ando\n" * 200)
    with pytest.raises(BadInput, match=r"holds no config\.yaml"):
        join(tmp_path / "no-run", tmp_path / "dee.txt", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.txt").write_text("mine")
    with pytest.raises(BadInput, match=r"holds mine\.txt already; give another --out"):
        join(finished, tmp_path / "dee.txt", tmp_path)
    with pytest.raises(BadInput, match="start is the run that is joined"):
        join(finished, tmp_path / "dee.txt", tmp_path / "out", ["start=elsewhere"])


def test_who_was_refused_may_come_again_with_other_text(finished, tmp_path):
    for name in ("short.txt", "little.txt"):
        (tmp_path / name).write_text("zelt\n")
        with pytest.raises(BadInput, match=f"client '{name[:-4]}'"):
            join(finished, tmp_path / name, tmp_path / "out", ["rounds=1"])
    assert [path.name for path in (tmp_path / "out" / "data").iterdir()] == ["little.txt"]


def test_newcomers_join_one_at_a_time(finished, federation, tmp_path):
    with pytest.raises(BadInput, match="--data has 3 clients"):
        join(finished, federation, tmp_path / "out")
