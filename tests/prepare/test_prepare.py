"""The whole way: what the folder holds, again and again, and what is left behind when it fails."""

import hashlib
import itertools
import json

import pytest

from comigs.data.corpus import client_names
from comigs.data.names import SPLITS
from comigs.errors import BadInput
from comigs.prepare.prepare import prepare
from comigs.prepare.settings import Settings
from tests.prepare.made import everything, jsonl, numbered, prepared, texts


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def source(tmp_path):
    """Sixty examples of two users; three are empty, four are there twice."""
    rows = numbered(60, user=["bo", "ana"], topic="xyz")
    rows += [row | {"text": " \n"} for row in rows[:3]]
    rows += [row | {"user": "cy"} for row in rows[10:14]]
    return jsonl(tmp_path / "all.jsonl", rows)


def test_folder_is_a_federation_with_every_example_once(source, out):
    done = prepared(source, out, by="user", label="topic")
    assert client_names(str(out)) == ("ana", "bo")
    assert sorted(everything(out, "ana")) == sorted(f"text {i}" for i in range(1, 60, 2))
    assert sorted(everything(out, "bo")) == sorted(f"text {i}" for i in range(0, 60, 2))
    assert [len(texts(out, "ana", split)) for split in SPLITS] == [24, 3, 3]
    assert (done.counts.read, done.counts.kept) == (67, 60)
    assert (done.counts.empty, done.counts.duplicates) == (3, 4)
    assert done.clients[0].labels == {"x": 10, "y": 10, "z": 10}


def test_manifest_says_where_the_texts_are_from_and_what_they_are(source, out):
    prepared(source, out, by="user", seed=4)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["source"]["files"] == [
        {"file": "all.jsonl", "sha256": hashlib.sha256(source.read_bytes()).hexdigest()}
    ]
    assert manifest["settings"]["by"] == "user" and manifest["settings"]["seed"] == 4
    assert manifest["shape"] == "text"
    assert set(manifest["versions"]) >= {"comigs", "python", "datasets", "flwr-datasets"}
    for client, split in itertools.product(manifest["clients"], SPLITS):
        data = (out / client["client"] / f"{split}.txt").read_bytes()
        assert client["bytes"][split] == len(data)
        assert client["sha256"][split] == hashlib.sha256(data).hexdigest()
        assert client["examples"][split] == len(texts(out, client["client"], split))


def test_the_same_command_writes_the_same_bytes(source, tmp_path):
    def files(name, **settings):
        settings = {"clients": 3, "partition": "dirichlet", "label": "topic", "alpha": 2} | settings
        prepared(source, tmp_path / name, **settings)
        paths = sorted((tmp_path / name).rglob("*.*"))
        return {path.relative_to(tmp_path / name): path.read_bytes() for path in paths}

    first = files("one", seed=1)
    assert len(first) == 10
    assert files("two", seed=1) == first
    assert files("three", seed=2) != first


def test_no_text_is_in_two_splits_or_clients(tmp_path, out):
    rows = [{"text": f"text {i % 40}\n", "user": f"u{i % 3}"} for i in range(200)]
    done = prepared(jsonl(tmp_path / "a.jsonl", rows), out, by="user")
    found = [text for client in client_names(str(out)) for text in everything(out, client)]
    assert sorted(found) == sorted(f"text {i}" for i in range(40))
    assert done.counts.duplicates == 160


def test_damaged_lines_are_refused_or_skipped_and_counted(tmp_path, out):
    rows = ["{", *numbered(10, user=["ana"]), '{"text": "no user"}', '{"user": "ana"}', "[]"]
    source = jsonl(tmp_path / "a.jsonl", rows)
    with pytest.raises(BadInput, match=r"^a\.jsonl, line 1: it is not JSON .*--skip-damaged$"):
        prepared(source, out, by="user")
    done = prepared(source, out, by="user", skip_damaged=True)
    assert (done.counts.damaged, done.counts.kept) == (4, 10)
    whole = jsonl(tmp_path / "b.jsonl", rows[1:])
    with pytest.raises(BadInput, match=r"b\.jsonl, line 11: there is no 'user'"):
        prepared(whole, tmp_path / "out2", by="user")


def test_small_clients_and_unused_examples_are_counted(tmp_path, out):
    rows = numbered(12, user=["ana", "ana", "ana", "bo"], topic="aabc")
    source = jsonl(tmp_path / "a.jsonl", rows)
    done = prepared(source, out, by="user", min_examples=4)
    assert client_names(str(out)) == ("ana",)
    assert (done.left_out, done.unused) == (1, 3)
    one = {"clients": 1, "partition": "pathological", "label": "topic", "per_client": 2}
    assert prepared(source, tmp_path / "out2", **one).unused == 3  # label c


def test_nothing_to_prepare(tmp_path, out):
    with pytest.raises(BadInput, match="there is no example among 2 rows"):
        prepared(jsonl(tmp_path / "a.jsonl", [{"text": ""}, {"text": " "}]), out, clients=1)


def test_a_place_where_something_is_stays_as_it_is(source, out, tmp_path):
    out.mkdir()
    (out / "mine").write_text("mine")
    with pytest.raises(BadInput, match="is not empty"):
        prepared(source, out, by="user")
    assert [path.name for path in out.iterdir()] == ["mine"]
    with pytest.raises(BadInput, match="is not a folder"):
        prepared(source, source, by="user")
    with pytest.raises(BadInput, match="there is no folder"):
        prepared(source, tmp_path / "no" / "out", by="user")
    (out / "mine").unlink()
    prepared(source, out, by="user")
    assert client_names(str(out)) == ("ana", "bo")


@pytest.mark.parametrize("step", ["reading", "sharing out", "writing", "checksums"])
def test_interrupted_anywhere_it_leaves_nothing_behind(source, out, step):
    def interrupt(now, done, total):
        if now == step:
            raise KeyboardInterrupt

    before = sorted(source.parent.iterdir())
    with pytest.raises(KeyboardInterrupt):
        prepare(str(source), out, Settings(by="user"), interrupt)
    assert sorted(source.parent.iterdir()) == before


def test_texts_keep_their_letters_and_empty_lines(tmp_path, out):
    rows = [{"text": f"grüße\n\n{i} \u2028 \U0001f600"} for i in range(3)]
    prepared(jsonl(tmp_path / "a.jsonl", rows), out, clients=1)
    written = [(out / "client_0" / f"{split}.txt").read_text("utf-8") for split in SPLITS]
    assert sorted(written) == [f"{row['text']}\n" for row in rows]


def test_with_clients_held_out_all_others_are_tested_on_their_examples(source, tmp_path):
    done = prepared(source, tmp_path / "out", clients=4, held_out=1, seed=3)
    names = client_names(str(tmp_path / "out"))
    [unseen] = done.held_out
    assert {*names, unseen} == {f"client_{i}" for i in range(4)} and unseen not in names
    held = {split: texts(tmp_path / "out", names[0], split) for split in ("valid", "test")}
    for name in names:
        assert len(texts(tmp_path / "out", name, "train")) == 15
        assert {s: texts(tmp_path / "out", name, s) for s in held} == held
    trained = [t for name in names for t in texts(tmp_path / "out", name, "train")]
    assert sorted(trained + held["valid"] + held["test"]) == sorted(f"text {i}" for i in range(60))
    assert len(held["valid"]) == 7 and done.unused == 0


def test_somebody_must_be_left_to_train(source, out):
    with pytest.raises(BadInput, match="--held-out is 2; there are 2 clients"):
        prepared(source, out, by="user", held_out=2)
