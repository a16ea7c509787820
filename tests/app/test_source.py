"""`data.source`: a data set in a configuration is prepared once, and its federation is run on."""

import json
from pathlib import Path

import pytest

import comigs
from comigs.app.run import plan
from comigs.app.source import with_source
from comigs.app.suites.suite import load_suite
from comigs.config.load import config_hash, load_config
from comigs.config.settings import RunConfig
from comigs.data.corpus import client_names, read_split
from comigs.data.roster import roster
from comigs.errors import BadInput
from comigs.prepare.prepare import prepare
from tests.fixtures import made_up_text
from tests.prepare.made import jsonl

pytest_plugins = ("tests.fixtures",)


@pytest.fixture
def chats(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    lines = made_up_text(3, 60).splitlines()
    rows = [{"user": f"u{i % 2}", "text": f"{lines[i]} {lines[-i]} {i}"} for i in range(60)]
    return jsonl(tmp_path / "chats.jsonl", rows)


def config_of(chats, **prepare):
    return load_config({"data": {"source": str(chats), "prepare": prepare}})


@pytest.mark.slow
def test_a_run_is_on_the_prepared_folder(chats, tmp_path, tiny_model):
    settings = {"local_steps": 1, "batch_size": 2, "log": {"tensorboard": False}}
    data = {"source": str(chats), "prepare": {"by": "user"}, "seq_len": 16}
    source = {"model": str(tiny_model), "data": data, "rounds": 1} | settings
    result = comigs.run(source, out=tmp_path / "run")
    assert [row["name"] for row in result.table] == ["u0", "u1"]
    assert result.config.data.source is None and result.config.data.prepare == {}
    manifest = json.loads((Path(result.config.data.name) / "manifest.json").read_text())
    assert manifest["source"]["name"] == str(chats) and manifest["settings"]["by"] == "user"
    assert plan(source)[0].data.name == result.config.data.name


def test_it_is_made_once_until_the_file_or_a_setting_changes(chats, monkeypatch):
    first = with_source(config_of(chats, by="user"))
    text = read_split(first.data.name, "u0", "train")
    seed = with_source(config_of(chats, by="user", seed=1))
    assert read_split(seed.data.name, "u0", "train") != text
    with monkeypatch.context() as patch:
        patch.setattr("comigs.app.source._make", None)
        assert with_source(config_of(chats, by="user")) == first
    (Path(first.data.name) / "u0" / "train.txt").write_text("damaged")
    assert with_source(config_of(chats, by="user")) == first
    assert read_split(first.data.name, "u0", "train") == text
    jsonl(chats, [{"user": f"v{i % 2}", "text": f"text {i}"} for i in range(20)])
    changed = with_source(config_of(chats, by="user"))
    assert client_names(changed.data.name) == ("v0", "v1")


def test_what_a_kill_has_left_is_gone_at_the_next_start(chats):
    folder = Path(with_source(config_of(chats, by="user")).data.name)
    (folder / "manifest.json").unlink()
    left = folder.with_name(f".{folder.name}.abc.tmp")
    left.mkdir()
    with_source(config_of(chats, by="user"))
    assert not left.exists() and (folder / "manifest.json").is_file()


def test_waiting_for_another_process_is_told(chats, monkeypatch, caplog):
    def held(handle, wait=True):
        if not wait:
            raise BlockingIOError

    monkeypatch.setattr("comigs.app.source.lock", held)
    with_source(config_of(chats, by="user"))
    assert caplog.messages[0] == f"another process prepares {chats}; waiting for it"


def test_a_file_that_changes_while_it_is_read_is_not_kept_as_what_it_was(chats, monkeypatch):
    text = chats.read_bytes()

    def make(name, folder, settings):
        prepare(name, folder, settings, lambda *_: None)
        chats.write_bytes(text + b'{"user": "u0", "text": "one more"}\n')

    with monkeypatch.context() as patch:
        patch.setattr("comigs.app.source._make", make)
        with pytest.raises(BadInput, match=r"^data\.source: .* changed while it was read"):
            with_source(config_of(chats, by="user"))
    chats.write_bytes(text)
    assert Path(with_source(config_of(chats, by="user")).data.name).is_dir()


def test_all_runs_of_a_suite_have_the_same_text(chats, tmp_path):
    suite = tmp_path / "suite.yaml"
    base = {"data": {"source": str(chats), "prepare": {"clients": 3}, "seq_len": 16}}
    tree = {"title": "a", "base": base, "methods": ["local", "fedavg"], "seeds": [1, 2]}
    suite.write_text(json.dumps(tree))
    [name] = {run.config.data.name for run in load_suite(str(suite)).runs}
    assert client_names(name) == ("client_0", "client_1", "client_2")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["data.prepare.by=usr"], "data.prepare.by is 'usr'; there is no such column"),
        (["data.prepare.clients=a"], "data.prepare.clients is 'a'; expected a whole number"),
        (["data.prepare.client=3"], "did you mean data.prepare.clients?"),
        (["data.prepare.seed=2"], "data.prepare.clients N makes N of them"),
        (["engine=flower", "data.prepare.clients=2"], "comigs deploy init --data"),
        (["data=topics"], "data.name and data.source are both given"),
    ],
)
def test_what_is_wrong_is_told_by_its_key(chats, settings, words):
    with pytest.raises(BadInput) as error:
        with_source(load_config(None, [f"data.source={chats}", *settings]))
    assert words in str(error.value) and "\n" not in str(error.value)


def test_name_and_source_in_one_file_are_refused():
    both = {"data": {"name": "topics", "source": "chats.jsonl"}}
    with pytest.raises(BadInput, match=r"data.name is 'topics' and data.source 'chats.jsonl'"):
        load_config(both)
    assert load_config(both | {"data": {"name": "topics"}}, ["data.source=a"]).data.source == "a"
    with pytest.raises(BadInput, match=r"data.prepare is for data.source"):
        load_config({"data": {"prepare": {"by": "user"}}})


def test_text_of_a_name_is_never_taken_instead(chats):
    with pytest.raises(BadInput, match="was not prepared"):
        roster(config_of(chats, by="user"))


def test_hashes_of_runs_without_it_are_as_before():
    assert config_hash(RunConfig()) == config_hash(load_config({"data": {"prepare": {}}}))
