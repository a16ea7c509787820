"""A run with `stop` tests its best round, kept however old, whatever happens on the way."""

import shutil

import pytest

import comigs
import comigs_clients.app
import comigs_server.loop
from comigs.errors import ComigsError
from comigs.store.metrics import chosen_round
from comigs.store.state import round_folder, saved_rounds
from tests.helpers import assert_same_numbers, damage, events

pytest_plugins = ("tests.fixtures",)

# By round, what clients tell of the models of the round before: those of round 2 are the best.
PERPLEXITY = {1: 10.0, 2: 30.0, 3: 20.0, 4: 25.0, 5: 26.0, 6: 27.0, 7: 28.0, 8: 5.0}


@pytest.fixture(scope="module", autouse=True)
def _told():
    train_round = comigs_clients.app.train_round

    def tell(order):
        tensors, metrics = train_round(order)
        return tensors, metrics | {"valid_ppl": PERPLEXITY[order.round]}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comigs_clients.app, "train_round", tell)
        yield


@pytest.fixture(scope="module")
def stopping(tree):
    return tree | {"rounds": 8, "stop": {"patience": 4}, "train": {"schedule": "constant"}}


@pytest.fixture(scope="module")
def whole(stopping, tmp_path_factory):
    """A run that stops after round 7, since round 2 was not bettered; look, do not touch."""
    return comigs.run(stopping, out=tmp_path_factory.mktemp("whole"))


def test_the_best_round_is_tested_as_if_it_had_been_the_last(whole, stopping, tmp_path):
    chosen = whole.chosen
    assert (chosen.tested, chosen.trained, chosen.stopped) == (2, 7, True)
    assert [e["round"] for e in events(whole.folder, "round")] == [1, 2, 3, 4, 5, 6, 7]
    assert len(events(whole.folder, "end")) == 1
    short = comigs.run(stopping | {"rounds": 2, "stop": {}}, out=tmp_path)
    assert short.chosen is None
    for row, other in zip(whole.table, short.table, strict=True):
        assert [row[k] for k in ("before", "after", "valid")] == [
            other[k] for k in ("before", "after", "valid")
        ]
        assert row["bytes_up"] == 3.5 * other["bytes_up"], "what the run has cost, to its end"
    finals = [{p: (f / p).read_bytes() for p in _finals(f)} for f in (whole.folder, tmp_path)]
    assert len(finals[0]) == 3
    assert finals[0] == finals[1]
    for client in range(3):
        root = whole.folder / "clients" / str(client)
        assert saved_rounds(root) == [2, 5, 6, 7]
        state, last = (
            round_folder(f / "clients" / str(client), 2) for f in (whole.folder, tmp_path)
        )
        assert (state / "tensors.safetensors").read_bytes() == (
            last / "tensors.safetensors"
        ).read_bytes()
    assert saved_rounds(whole.folder / "server") == [2, 5, 6, 7]


def _finals(folder):
    return sorted(p.relative_to(folder) for p in folder.glob("clients/*/final/*/*.safetensors"))


def test_the_page_says_which_round_and_marks_it(whole):
    page = (whole.folder / "report.html").read_text(encoding="utf-8")
    assert "Stopped after round 7 of 8: mean validation perplexity 20.00 of round 2" in page
    assert "The dotted line marks the models that were tested." in page


def test_a_run_killed_between_a_save_and_its_next_event_ends_the_same(
    stopping, whole, tmp_path, monkeypatch
):
    """When a new best is known, while it waits, and when it is over."""
    write_state, saved = comigs_server.loop.write_state, []

    def killed(root, number, *rest):
        write_state(root, number, *rest)
        saved.append(number)
        if number in (3, 4, 7):
            raise KeyboardInterrupt

    monkeypatch.setattr(comigs_server.loop, "write_state", killed)
    with pytest.raises(KeyboardInterrupt):
        comigs.run(stopping, out=tmp_path)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            comigs.app.run.resume(tmp_path)
    assert comigs.app.run.resume(tmp_path).chosen == whole.chosen
    assert saved == [1, 2, 3, 4, 5, 6, 7]
    assert_same_numbers(tmp_path, whole.folder)
    assert len(events(tmp_path, "chosen")) == 1


def test_half_of_the_clients_and_an_end_after_every_few_events(stopping, tmp_path):
    tree = stopping | {"participation": 0.5, "stop": {"patience": 2}}
    whole = comigs.run(tree, out=tmp_path / "whole")
    assert whole.chosen.stopped
    out, stops = tmp_path / "stopped", 0
    for patience in range(4, 100, 5):
        left = iter(range(patience))

        def watch(event, left=left):
            if next(left, None) is None:
                raise KeyboardInterrupt

        try:
            result = (
                comigs.app.run.resume(out, watch=watch)
                if stops
                else comigs.run(tree, out=out, watch=watch)
            )
            break
        except KeyboardInterrupt:
            stops += 1
    assert stops >= 3
    assert result.chosen == whole.chosen
    assert_same_numbers(out, whole.folder)


def test_a_finished_run_that_is_resumed_trains_no_more(whole, tmp_path):
    copy = shutil.copytree(whole.folder, tmp_path / "copy")
    assert comigs.app.run.resume(copy).chosen == whole.chosen
    assert_same_numbers(copy, whole.folder)
    assert len(events(copy, "chosen")) == 1


def test_a_newest_round_that_is_damaged_is_done_again_with_the_same_end(whole, tmp_path):
    copy = shutil.copytree(whole.folder, tmp_path / "copy")
    damage(round_folder(copy / "server", 7) / "shared.safetensors", "flip")
    assert comigs.app.run.resume(copy).chosen == whole.chosen
    assert_same_numbers(copy, whole.folder)


def test_a_best_round_that_is_damaged_is_told(whole, tmp_path):
    copy = shutil.copytree(whole.folder, tmp_path / "copy")
    damage(round_folder(copy / "server", 2) / "shared.safetensors", "flip")
    with pytest.raises(ComigsError, match=r"round_00002.* is damaged"):
        comigs.app.run.resume(copy)


def test_a_run_that_is_not_stopped_tests_its_last_round_if_the_newest_evaluation_was_best(
    stopping, tmp_path
):
    result = comigs.run(stopping | {"rounds": 3}, out=tmp_path)
    assert (result.chosen.tested, result.chosen.stopped) == (3, False)
    assert chosen_round(tmp_path) == result.chosen
    assert "dotted line" not in (tmp_path / "report.html").read_text(encoding="utf-8")
