"""Folders as people leave them: hidden entries, capitals, numbers, marks, two of one name."""

import json
import lzma

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comigs.data.corpus import check_sizes, client_names, read_split
from comigs.data.names import SPLITS, holds_text, in_order
from comigs.errors import BadInput

TEXT = "".join(f"paragraph {i} of the text\n" for i in range(100))


@pytest.fixture(autouse=True)
def forget_folders():
    client_names.cache_clear()


def split_folder(folder):
    folder.mkdir()
    for split in SPLITS:
        (folder / f"{split}.txt").write_text(TEXT)


def test_hidden_entries_are_no_clients(tmp_path):
    (tmp_path / "anna.txt").write_text(TEXT)
    (tmp_path / ".anna.txt").write_text(TEXT)
    (tmp_path / "._ben.txt.xz").write_bytes(lzma.compress(TEXT.encode()))
    split_folder(tmp_path / ".ipynb_checkpoints")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / ".hidden.txt").write_text(TEXT)
    assert client_names(str(tmp_path)) == ("anna",)


@pytest.mark.parametrize(
    ("file", "held"),
    [
        ("diary.txt", True),
        ("Diary.TXT.XZ", True),
        (".diary.txt", False),
        ("valid.jsonl", True),
        ("valid.JSONL.xz", True),
        ("Valid.jsonl", False),
        ("diary.jsonl", False),
        ("notes.md", False),
    ],
)
def test_a_folder_is_a_client_s_where_it_holds_text_or_a_split_of_chats(tmp_path, file, held):
    (tmp_path / "more.txt").mkdir()
    (tmp_path / file).touch()
    assert holds_text(tmp_path) is held


def test_clients_come_in_the_order_in_which_people_count(tmp_path):
    for number in (1, 10, 2, 100, 3):
        (tmp_path / f"client_{number}.txt").write_text(TEXT)
    numbers = [1, 2, 3, 10, 100]
    assert client_names(str(tmp_path)) == tuple(f"client_{number}" for number in numbers)


@given(st.lists(st.from_regex(r"[a-c_ -]{0,3}[0-9]{3}[A-C.]{0,3}", fullmatch=True), unique=True))
def test_numbers_of_one_length_sort_as_they_always_did(names):
    assert in_order(names) == tuple(sorted(names))


@pytest.mark.parametrize("file", ["de.TXT", "de.Txt", "de.TXT.XZ", "de.txt.XZ"])
def test_an_ending_in_capital_letters_is_an_ending(tmp_path, file):
    data = TEXT.encode()
    (tmp_path / file).write_bytes(lzma.compress(data) if file[-2:] == "XZ" else data)
    (tmp_path / "fr.txt").write_text("other\n" * 100)
    assert client_names(str(tmp_path)) == ("de", "fr")
    check_sizes(str(tmp_path), ["de", "fr"])
    assert "".join(read_split(str(tmp_path), "de", s) for s in SPLITS) == TEXT


@pytest.mark.parametrize("name", ["y" * 201, "a\nb", "\x1b[31mred", "a\u202eb", "\udcff"])
def test_a_name_that_a_server_would_not_take_is_refused_before_round_1(tmp_path, name):
    (tmp_path / "clients").mkdir()
    (tmp_path / "clients" / f"{name}.txt").write_text(TEXT)
    (tmp_path / "listed").mkdir()
    (tmp_path / "listed" / "clients.json").write_text(json.dumps(["anna", name]))
    with pytest.raises(BadInput, match="at most 200 characters") as refused:
        client_names(str(tmp_path / "clients"))
    assert str(refused.value).isprintable()
    with pytest.raises(BadInput, match="list of the clients' names"):
        client_names(str(tmp_path / "listed"))


def test_a_text_that_is_a_link_to_nothing_is_no_client_less(tmp_path):
    (tmp_path / "anna.txt").write_text(TEXT)
    (tmp_path / ".ben.txt").symlink_to("nowhere")
    assert client_names(str(tmp_path)) == ("anna",)
    for place in (tmp_path / "ben.txt", tmp_path / "ben.TXT", tmp_path / "loop.jsonl"):
        place.symlink_to("loop.jsonl")
        client_names.cache_clear()
        with pytest.raises(BadInput, match=f"{place.name} is a link to nothing; put the text"):
            client_names(str(tmp_path))
        place.unlink()


@pytest.mark.parametrize("file", ["de.txt.xz", "de.TXT", "de"])
def test_two_texts_of_one_client_are_refused(tmp_path, file):
    (tmp_path / "de.txt").write_text(TEXT)
    (tmp_path / "fr.txt").write_text(TEXT)
    if file == "de":
        split_folder(tmp_path / file)
    else:
        (tmp_path / file).write_bytes(lzma.compress(TEXT.encode()))
    with pytest.raises(BadInput, match=r"de\S* and de\S* are the same client's text.*keep one"):
        client_names(str(tmp_path))


def test_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "anna.txt").write_text(TEXT, encoding="utf-8-sig")
    (tmp_path / "ben.txt.xz").write_bytes(lzma.compress(TEXT.encode("utf-8-sig")))
    for client in ("anna", "ben"):
        assert "".join(read_split(str(tmp_path), client, s) for s in SPLITS) == TEXT
