"""A client's text in several files, and its chats in one: joined, cut, looked at as one text is."""

import json
import lzma
import os

import pytest

from comigs.app.fingerprint import fingerprint
from comigs.config.load import load_config
from comigs.data import places
from comigs.data.corpus import check_sizes, client_names, holds_chats, on_disk, read_split
from comigs.data.examples import chats_of
from comigs.data.names import SPLITS
from comigs.data.places import blocks, example_blocks
from comigs.data.tokens import client_data
from comigs.deploy.project import _copy_text
from comigs.errors import BadInput
from comigs.prepare.describe import describe
from tests.data.chats import chat, made_up_chats
from tests.fixtures import made_up_text

DIARY = {"diary-1": "one\n" * 40, "diary-2": "two\n" * 40, "diary-10": "ten\n" * 40}


@pytest.fixture(autouse=True)
def forget_folders():
    client_names.cache_clear()


@pytest.fixture
def folder(tmp_path):
    """anna has a diary in three files, ben all in one."""
    (tmp_path / "anna").mkdir()
    for name, text in DIARY.items():
        (tmp_path / "anna" / f"{name}.txt").write_text(text)
    (tmp_path / "ben.txt").write_text("\n".join(DIARY.values()))
    return tmp_path


def splits_of(folder, client):
    return [read_split(str(folder), client, split) for split in SPLITS]


def lines_of(chats):
    return "".join(f"{json.dumps(each)}\n" for each in chats)


def test_several_files_are_one_text_in_the_order_in_which_people_count(folder):
    assert client_names(str(folder)) == ("anna", "ben")
    assert splits_of(folder, "anna") == splits_of(folder, "ben")
    assert splits_of(folder, "anna") == blocks("\n".join(DIARY.values()))
    assert not holds_chats(str(folder), "anna", "train")


def test_files_of_several_are_joined_by_one_blank_line_however_they_end(folder):
    (folder / "anna" / "diary-1.txt").write_bytes(("\ufeff" + "\r\n" + "one\r\n" * 40).encode())
    (folder / "anna" / "diary-2.txt").write_text("two\n" * 39 + "two")
    (folder / "anna" / "diary-3.txt").touch()
    whole = "".join(splits_of(folder, "anna"))
    assert whole == "one\r\n" * 39 + "one\n\n" + DIARY["diary-2"] + "\n" + DIARY["diary-10"]


def test_each_file_is_looked_at_as_one_text_is(folder, monkeypatch):
    packed = lzma.compress(DIARY["diary-2"].encode())
    (folder / "anna" / "diary-2.txt").unlink()
    (folder / "anna" / "diary-2.TXT.xz").write_bytes(packed)
    (folder / "anna" / ".diary-3.txt").write_text("hidden\n")
    assert splits_of(folder, "anna") == splits_of(folder, "ben")
    size = sum(path.stat().st_size for path in (folder / "anna").glob("d*"))
    found = on_disk(folder, "anna").values()
    assert sum(split.size for split in found) == pytest.approx(size)
    monkeypatch.setattr(places, "LIMIT", 300)
    for look in (lambda: check_sizes(str(folder), ["anna"]), lambda: splits_of(folder, "anna")):
        with pytest.raises(BadInput, match=r"anna are larger than 0 MiB together"):
            look()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"caf\xe9\n", r"anna/zoo\.txt is not UTF-8 \(byte 3\)"),
        (None, r"anna/zoo\.txt leads out of"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(folder, tmp_path_factory, data, words):
    path = folder / "anna" / "zoo.txt"
    if data is None:
        secret = tmp_path_factory.mktemp("other") / "secret.txt"
        secret.write_text("secret\n")
        os.symlink(secret, path)
    else:
        path.write_bytes(data)
    with pytest.raises(BadInput, match=words):
        read_split(str(folder), "anna", "test")


def test_two_files_of_one_name_are_refused(folder):
    (folder / "anna" / "diary-1.txt.xz").write_bytes(lzma.compress(b"one\n"))
    with pytest.raises(BadInput, match=r"diary-1\.txt and diary-1\.txt\.xz are the same client's"):
        check_sizes(str(folder), ["anna"])


@pytest.mark.parametrize("name", ["train.txt", "Train.txt", "test.jsonl"])
def test_a_folder_with_some_of_the_splits_is_refused_with_two_ways_out(folder, name):
    (folder / "anna" / name).write_text("some\n")
    words = r"anna/\w+\.(txt|jsonl) is missing; .* train, valid and test .*: add it, or give the"
    for look in (lambda: check_sizes(str(folder), ["anna"]), lambda: splits_of(folder, "anna")):
        with pytest.raises(BadInput, match=words):
            look()


def test_they_are_fingerprinted_described_and_copied(folder, tmp_path_factory):
    texts = fingerprint(load_config(None, [f"data={folder}"]))["text"]
    assert texts.keys() == {*(f"anna/{name}.txt" for name in DIARY), "ben.txt"}
    found = describe(str(folder), "comigs-tiny", lambda *_: None)
    counted = [(row.parts, row.characters, row.tokens) for row in found.splits]
    assert counted[:3] == counted[3:] and found.divergence[0][1] == 0
    copy = tmp_path_factory.mktemp("device")
    _copy_text(folder, "anna", copy)
    assert splits_of(copy, "anna") == splits_of(folder, "anna")


@pytest.mark.parametrize("name", ["cy.jsonl", "cy.JSONL", "cy.jsonl.xz"])
def test_a_file_of_chats_is_cut_into_blocks_of_examples(tmp_path, name):
    chats = made_up_chats(3, 27)
    text = "\n" + lines_of(chats)
    (tmp_path / name).write_bytes(
        lzma.compress(text.encode()) if name.endswith("xz") else text.encode()
    )
    (tmp_path / "dan.txt").write_text(made_up_text(2))
    assert client_names(str(tmp_path)) == ("cy", "dan")
    check_sizes(str(tmp_path), ["cy", "dan"])
    read = {split: list(chats_of(str(tmp_path), "cy", split)) for split in SPLITS}
    assert [len(rows) for rows in read.values()] == [23, 2, 2]
    said = [turn.content for rows in read.values() for _, each in rows for turn in each]
    assert said == [turn["content"] for each in chats for turn in each["messages"]]
    config = load_config(None, [f"data={tmp_path}", "data.seq_len=24"])
    assert [client_data(config, client).train.ndim for client in (0, 1)] == [2, 1]
    assert fingerprint(config)["text"].keys() == {name, "dan.txt"}


@pytest.mark.parametrize(("count", "sizes"), [(3, [1, 1, 1]), (19, [17, 1, 1]), (20, [16, 2, 2])])
def test_every_block_has_an_example(tmp_path, count, sizes):
    text = "\n\n".join(f"line {i}" for i in range(count))
    cut = example_blocks(text, tmp_path)
    assert [sum(map(bool, block.split("\n"))) for _, block in cut] == sizes
    assert [before for before, _ in cut] == [0, 2 * sizes[0], 2 * (sizes[0] + sizes[1])]


def test_a_damaged_chat_is_named_with_its_line_in_the_file(tmp_path):
    path = tmp_path / "cy.jsonl"
    path.write_text(lines_of([chat("a", "b")] * 9) + '{"text": "c"}\n')
    words = r"cy\.jsonl, line 10: it holds 'text'; .* or let comigs data prepare make chats of it"
    with pytest.raises(BadInput, match=words):
        list(chats_of(str(tmp_path), "cy", "test"))
    path.write_text(lines_of([chat("a", "b")] * 2))
    with pytest.raises(BadInput, match=r"cy\.jsonl holds 2 examples; train, valid and test need"):
        read_split(str(tmp_path), "cy", "test")


@pytest.mark.parametrize("other", ["cy.txt", "cy.jsonl.xz", "cy/train.jsonl", "cy/notes.txt"])
def test_chats_and_another_text_of_one_client_are_refused(tmp_path, other):
    (tmp_path / "cy.jsonl").write_text(lines_of(made_up_chats(1, 9)))
    (tmp_path / other).parent.mkdir(exist_ok=True)
    (tmp_path / other).write_text(lines_of(made_up_chats(1, 9)))
    with pytest.raises(BadInput, match="are the same client's text, in two places"):
        client_names(str(tmp_path))
    with pytest.raises(BadInput, match="are the same client's text, in two places"):
        read_split(str(tmp_path), "cy", "train")


def test_a_folder_is_listed_once_for_all_of_its_clients(tmp_path, monkeypatch):
    for number in range(60):
        (tmp_path / f"{number}").mkdir()
        for split in SPLITS:
            (tmp_path / f"{number}" / f"{split}.txt").write_text("some words\n" * 9)
    os.utime(tmp_path, (1, 1))
    listed, real = [], os.scandir

    def watched(path):
        listed.append(path)
        return real(path)

    monkeypatch.setattr(os, "scandir", watched)
    describe(str(tmp_path), "comigs-tiny", lambda *_: None)
    assert listed.count(tmp_path) <= 4
