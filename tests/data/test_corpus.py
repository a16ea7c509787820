"""Federations on disk: layouts, consecutive splits, and files that cannot be used."""

import lzma

import pytest

from comigs.data.corpus import check_sizes, client_names, read_split
from comigs.errors import BadInput

PARAGRAPHS = "".join(f"paragraph {i} of the text\n" for i in range(100))


@pytest.fixture(autouse=True)
def forget_folders():
    client_names.cache_clear()


@pytest.mark.parametrize(
    "name, count", [("multilingual", 4), ("topics", 4), ("domains", 5), ("skills", 4)]
)
def test_bundled_federations_have_their_clients(name, count):
    names = client_names(name)
    assert len(names) == count
    assert all(read_split(name, names[0], split) for split in ("train", "valid", "test"))


def test_one_file_per_client_is_split_into_consecutive_blocks_of_lines(tmp_path):
    (tmp_path / "anna.txt").write_text(PARAGRAPHS)
    (tmp_path / "ben.txt.xz").write_bytes(lzma.compress(PARAGRAPHS.encode()))
    assert client_names(str(tmp_path)) == ("anna", "ben")
    for client in ("anna", "ben"):
        blocks = [read_split(str(tmp_path), client, s) for s in ("train", "valid", "test")]
        assert "".join(blocks) == PARAGRAPHS
        assert all(block.endswith("\n") for block in blocks)
        assert len(blocks[0]) == pytest.approx(0.8 * len(PARAGRAPHS), rel=0.02)
        assert len(blocks[1]) == pytest.approx(0.1 * len(PARAGRAPHS), rel=0.1)


def test_a_block_begins_with_the_first_line_at_or_after_its_share(tmp_path):
    (tmp_path / "ten.txt").write_text("".join(f"line {i}\n" for i in range(10)))
    (tmp_path / "long.txt").write_text("a\n" * 30 + "b" * 20 + "\n" + "c\n" * 9)
    (tmp_path / "large.txt").write_text("0123456\n" * 1_000_000)  # for ever, were it quadratic
    splits = {
        name: [len(read_split(str(tmp_path), name, s)) for s in ("train", "valid")]
        for name in ("ten", "long", "large")
    }
    assert splits == {"ten": [56, 7], "long": [81, 10], "large": [6_400_000, 800_000]}


def test_a_folder_per_client_is_taken_as_it_is_split(tmp_path):
    folder = tmp_path / "anna"
    folder.mkdir()
    for split in ("train", "valid", "test"):
        (folder / f"{split}.txt").write_text(f"{split} text\n")
    assert client_names(str(tmp_path)) == ("anna",)
    assert read_split(str(tmp_path), "anna", "valid") == "valid text\n"


def test_files_that_cannot_be_used_are_named(tmp_path):
    (tmp_path / "bad.txt").write_bytes(b"caf\xe9\n" * 50)
    with pytest.raises(BadInput, match=r"bad\.txt is not UTF-8 \(byte 3\)"):
        read_split(str(tmp_path), "bad", "train")
    (tmp_path / "none.txt").write_text(" \n")
    with pytest.raises(BadInput, match=r"'none'.*no text in its train split"):
        read_split(str(tmp_path), "none", "train")
    (tmp_path / "broken.txt.xz").write_bytes(b"no xz")
    with pytest.raises(BadInput, match="not a readable xz"):
        read_split(str(tmp_path), "broken", "train")


def test_a_table_instead_of_texts_is_named_with_what_to_do(tmp_path):
    (tmp_path / "chat.CSV").write_text("a")
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(BadInput, match=r"no text: .*; chat\.CSV is none: comigs data prepare"):
        client_names(str(tmp_path))


def test_no_folder_and_no_text_are_told_apart(tmp_path):
    with pytest.raises(BadInput, match="give a folder of text files or one of: domains"):
        client_names("multilingal")
    with pytest.raises(BadInput, match="holds no text"):
        client_names(str(tmp_path))


def test_sizes_of_files_are_checked_without_opening_them(tmp_path, monkeypatch):
    for name in ("a.txt", "b.txt.xz"):
        (tmp_path / name).write_text("text")
    monkeypatch.setattr("builtins.open", None)
    check_sizes(str(tmp_path), ["a", "b"])
    with pytest.raises(BadInput, match=r"c\.txt is missing"):
        check_sizes(str(tmp_path), ["a", "c"])
    (tmp_path / "b.txt.xz").unlink()
    (tmp_path / "b.txt").touch()
    with pytest.raises(BadInput, match=r"b\.txt is empty"):
        check_sizes(str(tmp_path), ["a", "b"])


def test_a_roster_names_clients_whose_text_is_elsewhere_in_its_own_order(tmp_path):
    (tmp_path / "ben.txt").write_text(PARAGRAPHS)
    (tmp_path / "clients.json").write_text('["zoe", "ben", "anna"]')
    assert client_names(str(tmp_path)) == ("zoe", "ben", "anna")
    assert read_split(str(tmp_path), "ben", "train")
    with pytest.raises(BadInput, match=r"zoe\.txt is missing"):
        read_split(str(tmp_path), "zoe", "train")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[", "is not JSON"),
        ("{}", "list of the clients' names"),
        ("[]", "list of the clients' names"),
        ("[1]", "list of the clients' names"),
        ('["a", "a"]', "each once"),
    ],
)
def test_a_damaged_roster_is_refused(tmp_path, text, words):
    (tmp_path / "clients.json").write_text(text)
    with pytest.raises(BadInput, match=words):
        client_names(str(tmp_path))
