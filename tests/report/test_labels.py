"""Runs on one page have the names of what differs."""

from dataclasses import replace

import pytest

from comigs.report.page import _differences, write_report
from comigs.report.page.labels import labelled
from comigs.report.page.run import load_run
from tests.report.runs import append, final, text_of

pytest_plugins = ("tests.report.runs",)


def labels(*folders):
    runs = [load_run(folder) for folder in folders]
    return [run.label for run in labelled(runs, _differences(runs))]


def test_method_and_seed_come_first_and_how_it_was_run_does_not_count(make):
    one = make("one", method="fedavg", threads=1)
    two = make("two", seed=43, threads=2)
    assert labels(one, two) == ["method=fedavg, seed=42", "method=comigs, seed=43"]


def test_runs_of_the_same_settings_have_their_folders(make):
    assert labels(make("one", threads=1), make("two", threads=2)) == ["one", "two"]
    third = make("third", seed=5)
    same = [third.parent / "one", third.parent / "two", third]
    assert labels(*same) == ["seed=42 (one)", "seed=42 (two)", "seed=5 (third)"]


def test_where_much_differs_a_name_stays_short(make):
    one = make("one", method="fedavg", participation=0.5, batch_size=2, local_steps=1)
    two = make("two", participation=0.6, batch_size=4, local_steps=2)
    assert labels(one, two) == ["method=fedavg", "method=comigs"]
    three = make("three", participation=0.7, batch_size=8, local_steps=3)
    assert labels(two, three) == ["two", "three"]
    longer = make("longer", local_steps=2, extended=[[1, 2]])
    assert labels(make("short", local_steps=1), longer) == ["local_steps=1", "local_steps=2"]


def test_a_run_without_settings_has_its_folder(make):
    one, two, bare = make("one", seed=1), make("two", seed=2), make("bare")
    (bare / "config.yaml").unlink()
    assert labels(one, two, bare) == ["seed=1", "seed=2", "bare"]


@pytest.mark.slow
def test_other_clients_and_other_test_text_are_warned_of(make):
    one, two = make("one"), make("two", seed=5)
    assert "Not the same data" not in text_of(write_report([one, two]))
    append(one, final(2, "it"))
    assert "the clients differ" in text_of(write_report([one, two]))
    three, four = make("three"), make("four", seed=5)
    lines = (three / "metrics.jsonl").read_text().replace('"test_tokens": 9', '"test_tokens": 8')
    (three / "metrics.jsonl").write_text(lines)
    text = text_of(write_report([three, four]))
    assert "the length of the test text differs" in text
    assert text.index("Not the same data") < text.index("Round by round")


def test_the_same_run_twice_is_told_apart(make):
    run = load_run(make("run"))
    twice = [run, replace(run, folder=run.folder / ".." / "run")]
    assert len({each.label for each in labelled(twice, {})}) == 2
