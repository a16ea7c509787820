"""Who takes part: all, or those whose text is long enough."""

import json
import logging
import shutil

import pytest

import comigs
from comigs.app.run import resume
from comigs.config.load import config_hash, load_config
from comigs.data.corpus import client_names
from comigs.data.enough import check_texts, tell_skipped
from comigs.data.names import SPLITS
from comigs.data.roster import roster, skipped
from comigs.data.tokens import client_data
from comigs.errors import BadInput
from comigs.federation.run import resolve
from comigs_server.checks.run import check_without_data
from tests.data.chats import chat, made_up_chats, write_split
from tests.fixtures import made_up_text

pytest_plugins = ("tests.fixtures",)


@pytest.fixture
def folder(tmp_path):
    """Of six clients bo is a little short, dee empty, eve blank, and fay has two examples."""
    client_names.cache_clear()
    for name, lines in (("ana", 40), ("bo", 12), ("cy", 40)):
        (tmp_path / f"{name}.txt").write_text(made_up_text(name, lines))
    (tmp_path / "dee.txt").touch()
    (tmp_path / "eve.txt").write_text(" \n" * 90)
    (tmp_path / "fay.jsonl").write_text(f"{json.dumps(chat('a', 'b'))}\n" * 2)
    return tmp_path


def config_of(folder, *more):
    settings = [f"data={folder}", "data.seq_len=24", "data.skip_small=true", *more]
    return load_config(None, settings)


def test_clients_with_too_little_text_are_left_out_and_told_once(folder, caplog):
    config = config_of(folder)
    assert roster(config) == ("ana", "cy")
    check_texts(config, range(2))
    assert [client_data(config, client).name for client in range(2)] == ["ana", "cy"]
    with caplog.at_level(logging.WARNING, "comigs"):
        tell_skipped(config)
        tell_skipped(config)
    (line,) = caplog.messages
    assert line.startswith("data.skip_small leaves out 4 of 6 clients: some split of theirs is too")
    assert line.endswith("data.seq_len=24: bo, dee, eve, fay")


def test_the_length_that_is_told_keeps_all_and_one_more_does_not(folder):
    for name in ("dee.txt", "eve.txt", "fay.jsonl"):
        (folder / name).unlink()
    client_names.cache_clear()
    longest = skipped(config_of(folder))["bo"]
    assert 1 < longest < 24
    keeps = config_of(folder, f"data.seq_len={longest}")
    assert roster(keeps) == ("ana", "bo", "cy") and skipped(keeps) == {}
    check_texts(keeps, range(3))
    assert roster(config_of(folder, f"data.seq_len={longest + 1}")) == ("ana", "cy")
    with pytest.raises(BadInput, match=r"'bo' has \d+ tokens"):
        check_texts(config_of(folder, "data.skip_small=false"), range(3))


def test_chats_without_an_answer_that_fits_are_left_out(tmp_path):
    long = chat("mira tolu " * 40, "sanke")
    for split in SPLITS:
        write_split(tmp_path, "gil", split, [chat("mira", "tolu"), long])
        write_split(tmp_path, "hal", split, [long])
    assert roster(config_of(tmp_path)) == ("gil",)
    (tmp_path / "ida.jsonl").write_text("\n".join(map(json.dumps, made_up_chats(1, 9))))
    client_names.cache_clear()
    assert roster(config_of(tmp_path, "clients=2")) == ("gil", "ida")


def test_too_few_that_are_left_are_refused(folder):
    assert roster(config_of(folder, "clients=1")) == ("ana",)
    with pytest.raises(BadInput, match=r"clients is 3; .* has 2 whose .*leaves out 4\): set"):
        roster(config_of(folder, "clients=3"))
    with pytest.raises(BadInput, match=r"data\.skip_small leaves no client of .*seq_len=5000: ana"):
        roster(config_of(folder, "data.seq_len=5000"))


def test_other_mistakes_are_still_refused(folder):
    (folder / "bo.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(BadInput, match="is not UTF-8"):
        roster(config_of(folder, "data.seq_len=25"))


def test_the_default_leaves_the_names_of_runs_alone():
    assert config_hash(load_config(None, ["data.skip_small=false"])) == config_hash(
        load_config(None)
    )
    assert config_hash(load_config(None, ["data.skip_small=true"])) != config_hash(load_config())


def test_a_run_is_as_one_without_the_short_client_on_every_start(tree, federation, tmp_path):
    data = shutil.copytree(federation, tmp_path / "data")
    short = {"data": tree["data"] | {"name": str(data), "skip_small": True}, "rounds": 2}
    plain = {"data": tree["data"], "rounds": 2}

    def stop(event):
        if event["event"] == "round":
            raise KeyboardInterrupt

    wanted = comigs.run(tree | plain, out=tmp_path / "plain")
    (data / "anb.txt").write_text("mira\n")
    client_names.cache_clear()
    with pytest.raises(KeyboardInterrupt):
        comigs.run(tree | short, out=tmp_path / "run", watch=stop)
    run = resume(tmp_path / "run")
    names = [row["name"] for row in run.table]
    assert names == ["ana", "bo", "cy"]
    assert [row["after"] for row in run.table] == [row["after"] for row in wanted.table]


def test_behind_a_superlink_nobody_can_tell():
    run = resolve(load_config(None, ["engine.name=flower", "data.skip_small=true", "clients=4"]))
    with pytest.raises(BadInput, match=r"data\.skip_small is true; with engine\.name flower"):
        check_without_data(run)
