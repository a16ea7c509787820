"""A run is tied to the text, the base and the settings that it was started with."""

import json
import os
import shutil

import pytest

import comigs
from comigs.app.fingerprint import at_home, check_origin, fingerprint, write_origin
from comigs.app.run import resume
from comigs.config.load import config_hash, load_config, read_config
from comigs.data.corpus import client_names
from comigs.errors import BadInput
from comigs.export.client import export_client
from comigs.report.page import write_report
from comigs.use.generate import generate_text
from tests.helpers import assert_same_numbers

pytest_plugins = ("tests.fixtures",)


@pytest.fixture
def places(federation, tiny_model, tmp_path):
    """Two folders, each with text and a model of the same names; the second's text is another."""
    for place in ("one", "two"):
        shutil.copytree(federation, tmp_path / place / "txt")
        shutil.copytree(tiny_model, tmp_path / place / "mm")
    with open(tmp_path / "two" / "txt" / "bo.txt", "a") as file:
        file.write("another line\n")
    return tmp_path


@pytest.mark.slow
def test_a_run_goes_on_from_any_folder_with_what_it_began_with(places, tree, finished, monkeypatch):
    tree = tree | {"data": {"name": "txt", "seq_len": 16}, "model": {"name": "mm"}}

    def stop(event):
        if event["event"] == "round":
            raise KeyboardInterrupt

    monkeypatch.chdir(places / "one")
    with pytest.raises(KeyboardInterrupt):
        comigs.run(tree, out=places / "run", watch=stop)
    monkeypatch.chdir(places / "two")
    assert_same_numbers(resume(places / "run").folder, finished)
    shutil.copy(places / "two/txt/bo.txt", places / "one/txt/bo.txt")
    with pytest.raises(BadInput, match=r"the text in .*one/txt differs in bo\.txt"):
        resume(places / "run")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda place: (place / "txt/ana.txt").write_text("x"), r"text .* differs in ana\.txt"),
        (lambda place: (place / "txt/dee.txt").write_text("x"), r"clients .* are ana, bo, cy, dee"),
        (
            lambda place: (place / "mm/config.json").open("a").write(" "),
            r"base model .*config\.json",
        ),
    ],
)
def test_a_difference_is_refused_by_name(places, tree, change, words, monkeypatch):
    place = places / "one"
    names = {"data": {"name": str(place / "txt")}, "model": {"name": str(place / "mm")}}
    config = at_home(load_config(tree | names))
    write_origin(config, places)
    check_origin(config, places)
    change(place)
    client_names.cache_clear()
    with pytest.raises(BadInput, match=words):
        check_origin(config, places)


def test_paths_become_absolute_and_names_stay(places, tree, monkeypatch):
    monkeypatch.chdir(places / "one")
    local = load_config(tree | {"data": {"name": "txt"}, "model": {"name": "mm"}})
    assert at_home(local).data.name == str((places / "one/txt").resolve())
    assert at_home(local).model.name == str((places / "one/mm").resolve())
    bundled = load_config(None)
    assert at_home(bundled) == bundled
    hub = load_config(None, ["model.name=org/model"])
    assert at_home(hub).model.name == "org/model"
    far = load_config(tree | {"data": {"name": "txt"}, "engine": {"name": "flower"}})
    assert at_home(far) == far
    assert fingerprint(far) == {}


def test_the_names_of_kept_results_are_as_they_were():
    assert config_hash(load_config(None)) == config_hash(load_config("quickstart"))


@pytest.mark.parametrize(
    "use",
    [
        resume,
        read_config,
        lambda run: write_report([run]),
        lambda run: export_client(run, 0, run / "to"),
        lambda run: generate_text(run, 0, "mira", 2, 0),
        lambda run: comigs.RunResult(run, []).config,
    ],
    ids=["resume", "read", "report", "export", "generate", "result"],
)
def test_an_edited_configuration_is_refused_by_every_reader(finished, tmp_path, use):
    run = shutil.copytree(finished, tmp_path / "run")
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("alpha: 16.0", "alpha: 160.0"))
    with pytest.raises(BadInput, match=r"experts\.alpha = 160\.0, but .* started with 16\.0"):
        use(run)


def test_a_run_whose_sequences_began_without_the_tokenizer_s_bos_does_not_go_on(
    finished, tmp_path, monkeypatch
):
    run = shutil.copytree(finished, tmp_path / "run")
    resume(run)
    monkeypatch.setattr("comigs.app.fingerprint.opening", lambda tokenizer: 1)
    with pytest.raises(BadInput, match="began without the token that the model's tokenizer puts"):
        resume(run)


def test_a_damaged_record_is_one_line(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    for name, words in (("origin.json", "origin.json is damaged"), ("identity.json", "identity")):
        text = (run / name).read_text()
        for bad in ("{", "5", json.dumps([1])):
            (run / name).write_text(bad)
            with pytest.raises(BadInput, match=words):
                resume(run)
        (run / name).write_text(text)
    os.unlink(run / "origin.json")
    os.unlink(run / "identity.json")
    resume(run)  # a run of an earlier version has neither


def test_a_run_from_before_clients_came_as_people_count_says_how_to_go_on(
    tree, federation, tmp_path
):
    data = tmp_path / "data"
    data.mkdir()
    before = ["c1", "c10", "c2"]  # as they used to come
    for name, text in zip(before, sorted(federation.iterdir()), strict=True):
        shutil.copy(text, data / f"{name}.txt")
    (data / "clients.json").write_text(json.dumps(before))
    tree = tree | {"data": {"name": str(data), "seq_len": 16}}
    whole = comigs.run(tree, out=tmp_path / "whole").folder

    def stop(event):
        if event["event"] == "round":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        comigs.run(tree, out=tmp_path / "run", watch=stop)
    (data / "clients.json").unlink()
    told = r'in another order; .* "clients" of .*/run/origin\.json into .*/data/clients\.json'
    with pytest.raises(BadInput, match=told):
        resume(tmp_path / "run")
    origin = json.loads((tmp_path / "run" / "origin.json").read_text())
    (data / "clients.json").write_text(json.dumps(origin["clients"]))
    assert_same_numbers(resume(tmp_path / "run").folder, whole)
