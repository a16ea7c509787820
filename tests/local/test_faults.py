"""Poisoned clients of a simulation: what they send, and what robust strategies make of it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import comigs
from comigs.app.suites.suite import load_suite
from comigs.config.privacy import FaultsConfig
from comigs.data.corpus import client_names
from comigs.errors import BadInput
from comigs.local.faults import poison
from comigs.messages.update import minus, norm_of
from comigs.store.state import read_state
from experiments.recipes.halves import halves, write
from tests.helpers import assert_same_numbers

pytest_plugins = ("tests.fixtures",)

UPDATE = {"a": torch.arange(6.0).reshape(2, 3), "b": -torch.ones(4)}


@pytest.mark.parametrize("kind", ["flip", "noise"])
@given(scale=st.floats(0.1, 1000.0))
def test_poison_is_as_long_as_told(kind, scale):
    sent = poison(FaultsConfig([3], kind, scale), UPDATE, 42, 3, 1)
    assert norm_of(sent) == pytest.approx(scale * norm_of(UPDATE), rel=1e-4)
    if kind == "flip":
        assert all(torch.equal(sent[name], -scale * UPDATE[name]) for name in UPDATE)


def test_noise_comes_from_seed_client_and_round():
    def of(*place):
        return poison(FaultsConfig([3], "noise"), UPDATE, *place)["a"]

    assert torch.equal(of(42, 3, 1), of(42, 3, 1))
    others = [of(43, 3, 1), of(42, 2, 1), of(42, 3, 2)]
    assert not any(torch.equal(of(42, 3, 1), other) for other in others)


def test_a_poisoned_client_that_does_not_exist_is_refused(tree, tmp_path):
    with pytest.raises(BadInput, match=r"faults.poisoned has client 3; there are 0..2"):
        comigs.run(tree | {"faults": {"poisoned": [3]}}, out=tmp_path)


def test_poison_leaves_the_clients_own_state_alone_in_the_first_round(tree, finished, tmp_path):
    tree = tree | {"rounds": 1, "train": {"schedule": "constant"}}
    clean = comigs.run(tree, out=tmp_path / "clean").folder
    folder = comigs.run(tree | {"faults": {"poisoned": [1]}}, out=tmp_path / "bad").folder
    for client in range(3):
        own, other = (read_state(f / f"clients/{client}", 1)[0]["tensors"] for f in (clean, folder))
        assert all(torch.equal(own[name], other[name]) for name in own)
    shared, other = (read_state(f / "server", 1)[0]["shared"] for f in (clean, folder))
    assert norm_of(minus(other, shared)) > 0


def test_without_poisoned_clients_the_section_changes_nothing(tree, finished, tmp_path):
    faults = {"kind": "noise", "scale": 3.0}
    assert_same_numbers(comigs.run(tree | {"faults": faults}, out=tmp_path).folder, finished)


def text_of(client):
    from tests.fixtures import made_up_text

    return made_up_text(client, 40)


def test_halves_keep_every_character_of_every_client(federation, tmp_path):
    names = write(str(federation), tmp_path)
    assert names == list(client_names(str(tmp_path)))
    assert len(names) == 2 * len(client_names(str(federation)))
    for text in ("one line", "a\nb\nc\n", "\n", text_of(1)):
        assert "".join(halves(text)) == text


def test_the_suite_shows_that_median_and_krum_withstand_what_breaks_the_mean(
    tree, tmp_path, tmp_path_factory
):
    """`comigs compare poisoned` at tiny size: how far each average is from the unpoisoned one."""
    data = tmp_path_factory.mktemp("eight")
    for client in range(8):
        (data / f"{client}.txt").write_text(text_of(client), encoding="utf-8")
    tiny = [
        f"data={{name: '{data}', seq_len: 16, test_clients: 1}}", f"model={tree['model']['name']}",
        "model.dtype=float32", "rounds=1", "local_steps=3", "batch_size=2", "experts.rank=2",
        "router.steps=1",
    ]  # fmt: skip
    suite = load_suite("poisoned", tiny, [42])
    assert suite.rows[0] == "nobody poisoned"
    assert len(suite.rows) == 8
    shared = {}
    for run in suite.runs[:4]:
        assert run.config.faults.poisoned == (None if run.row == suite.rows[0] else [3])
        out = tmp_path / run.row
        (tmp_path / "config.yaml").write_text(comigs.config.load.dump_yaml(run.config))
        comigs.run(tmp_path / "config.yaml", out=out)
        shared[run.row] = read_state(out / "server", 1)[0]["shared"]
    clean = shared.pop("nobody poisoned")
    off = {row: norm_of(minus(tensors, clean)) for row, tensors in shared.items()}
    assert max(off["FedMedian (flip)"], off["Krum (flip)"]) < 0.9 * off["FedAvg (flip)"]
    assert all(run.config.faults.kind == "noise" for run in suite.runs[4:7])
