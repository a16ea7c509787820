"""One process takes a folder, before anything is written."""

import threading

import pytest

import comigs
from comigs.config.load import read_config
from comigs.errors import BadInput
from comigs.store.runfolder import held, taken, taken_anew
from tests.helpers import assert_same_numbers, start_cli

pytest_plugins = ("tests.fixtures",)


def test_a_folder_that_is_taken_is_refused_before_anything_is_written(tmp_path):
    with taken(tmp_path / "run") as folder:
        with pytest.raises(BadInput, match="in use by another process"), taken(folder):
            pass
        with pytest.raises(BadInput, match="in use by another process"), held(folder):
            pass
        assert [path.name for path in folder.iterdir()] == [".lock"]


@pytest.mark.parametrize("name", ["config.yaml", "mine.txt"])
def test_a_folder_with_something_in_it_is_refused(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(BadInput, match="is not empty"), taken(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_run_killed_before_it_had_begun_leaves_the_folder_free(tmp_path):
    for name in (".lock", "origin.json", ".identity.json.1234.tmp"):
        (tmp_path / name).write_text("")
    with taken(tmp_path):
        pass


def test_default_folders_of_one_second_are_different(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = []

    def take():
        with taken_anew("same") as folder:
            names.append(folder)

    threads = [threading.Thread(target=take) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(names)) == 5


@pytest.mark.parametrize("place", ["a-file", "a-file/below", "dangling"])
def test_a_place_where_no_folder_can_be_is_one_line(tmp_path, place):
    (tmp_path / "a-file").write_text("")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere" / "at-all")
    with pytest.raises(BadInput, match="--out"), taken(tmp_path / place):
        pass


@pytest.mark.slow
def test_of_two_runs_into_one_place_one_is_refused(tree, yaml_file, tmp_path):
    runs = [start_cli("run", yaml_file, f"seed={s}", "--out", tmp_path / "run") for s in (1, 2)]
    told = [process.communicate() for process in runs]
    codes = [process.returncode for process in runs]
    assert sorted(codes) == [0, 2], told
    seed = codes.index(0) + 1
    lines = told[codes.index(2)][1].strip().splitlines()
    assert any(words in lines[-1] for words in ("in use by another process", "is not empty"))
    whole = comigs.run(tree, [f"seed={seed}"], out=tmp_path / "whole").folder

    assert read_config(tmp_path / "run").seed == seed
    assert_same_numbers(tmp_path / "run", whole)
