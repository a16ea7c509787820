"""Every kind of source: its rows, and where they are from."""

import json

import datasets
import huggingface_hub
import pytest

from comigs.errors import BadInput
from comigs.prepare import tables
from comigs.prepare.lines import rows_of_csv, rows_of_json, rows_of_text
from comigs.prepare.sources import find_source
from comigs.prepare.tables import rows_of_folder, rows_of_parquet, rows_of_saved
from tests.prepare.made import jsonl

ROWS = [{"text": "eins", "lang": "de"}, {"text": "deux", "lang": "fr"}]


def seen(rows):
    return [(row.place, row.damage or row.values) for row in rows]


def test_jsonl(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"text": "eins"}\n\n{"text": "zw\xc3\xb6lf"}\n{"x\n[1]\n"\xff"\n'
    )
    assert seen(rows_of_json(find_source(str(path)))) == [
        ("a.jsonl, line 1", {"file": "a", "text": "eins"}),
        ("a.jsonl, line 3", {"file": "a", "text": "zwölf"}),
        ("a.jsonl, line 4", "it is not JSON (Unterminated string starting at, column 2)"),
        ("a.jsonl, line 5", "it is not a JSON object"),
        ("a.jsonl, line 6", "it is not UTF-8"),
    ]


@pytest.mark.parametrize("indent", [None, 1])
def test_json_list(tmp_path, indent):
    rows = [{"text": "eins, zwei"}, 3, {"text": "x" * 2**21}, {"text": "é"}]
    (tmp_path / "a.json").write_text(f"\n{json.dumps(rows, indent=indent)}\n", "utf-8")
    found = list(rows_of_json(find_source(str(tmp_path / "a.json"))))
    assert [row.values.get("text") for row in found] == ["eins, zwei", None, "x" * 2**21, "é"]
    assert found[1].damage == "it is not a JSON object"
    line = {None: 2, 1: 6}[indent]
    assert found[1].place == f"a.json, line {line}"


def test_json_list_that_ends_too_early(tmp_path):
    (tmp_path / "a.json").write_text('[{"text": "eins"},\n\n{"text": "zw')
    with pytest.raises(BadInput, match=r"^a\.json, line 3: it is not JSON \(Unterminated"):
        list(rows_of_json(find_source(str(tmp_path / "a.json"))))


def test_json_list_with_a_number_too_long(tmp_path):
    (tmp_path / "a.json").write_text('[{"text": "eins"},\n{"text": ' + "1" * 5000 + "}]")
    with pytest.raises(BadInput, match=r"^a\.json, line 2: it is not JSON \(Exceeds the limit"):
        list(rows_of_json(find_source(str(tmp_path / "a.json"))))


def test_csv(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(
        b'text,lang\n"one, \n""1""",en\nzwei\n\nzw\xffei,de\n'
        b'tr\xc3\xa8s,fr\n"x"y,en\nsix,en\n"open,en\n'
    )
    assert seen(rows_of_csv(find_source(str(path)))) == [
        ("a.csv, line 2", {"file": "a", "text": 'one, \n"1"', "lang": "en"}),
        ("a.csv, line 4", "it has 1 fields; the header has 2"),
        ("a.csv, line 6", "it is not UTF-8"),
        ("a.csv, line 7", {"file": "a", "text": "très", "lang": "fr"}),
        ("a.csv, line 8", "it is not CSV (',' expected after '\"')"),
        ("a.csv, line 9", {"file": "a", "text": "six", "lang": "en"}),
        ("a.csv, line 10", "it is not CSV (unexpected end of data)"),
    ]


@pytest.mark.parametrize("head", ["", "a,a\n", '"a\n'])
def test_csv_without_a_header_is_refused(tmp_path, head):
    (tmp_path / "a.csv").write_text(head)
    with pytest.raises(BadInput, match=r"a\.csv, line 1"):
        list(rows_of_csv(find_source(str(tmp_path / "a.csv"))))


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        (b"one\ntwo\n\n", [(1, "one\n"), (2, "two\n")]),
        (b"\none\ntwo\n \n\nthree", [(2, "one\ntwo\n"), (6, "three")]),
        (b"one\n\xff\n", [(1, "one\n"), (2, "it is not UTF-8")]),
        (b"", []),
    ],
)
def test_text_is_blocks_or_else_lines(tmp_path, text, rows):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.txt").write_bytes(text)
    found = rows_of_text(find_source(str(tmp_path)))
    assert [(row.place, row.damage or row.values["text"]) for row in found] == [
        (f"sub/a.txt, line {number}", value) for number, value in rows
    ]
    assert all(row.damage or row.values["file"] == "sub/a" for row in found)


def test_parquet_has_the_names_of_its_labels(tmp_path):
    table = datasets.Dataset.from_list(ROWS).class_encode_column("lang")
    assert table["lang"][0] == 0
    table.to_parquet(tmp_path / "a.parquet")
    found = seen(rows_of_parquet(find_source(str(tmp_path)), tmp_path / "cache"))
    assert found == [(f"a.parquet, row {i}", {"file": "a"} | row) for i, row in enumerate(ROWS)]


def test_parquet_that_is_damaged_is_one_line(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(BadInput, match=r"^a\.parquet cannot be read as a data set \(.+\)$"):
        list(rows_of_parquet(find_source(str(tmp_path)), tmp_path / "cache"))


def test_saved_data_set_and_its_splits(tmp_path):
    table = datasets.Dataset.from_list(ROWS)
    table.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"a": table, "b": table.select([1])}).save_to_disk(tmp_path / "two")
    one, two = (find_source(str(tmp_path / name)) for name in ("one", "two"))
    assert [row.values for row in rows_of_saved(one, "train")] == ROWS
    assert [row.values for row in rows_of_saved(two, "b")] == ROWS[1:]
    with pytest.raises(BadInput, match="no split 'train'; --split chooses one: there are a, b"):
        list(rows_of_saved(two, "train"))
    (tmp_path / "one" / "state.json").write_text("{")
    with pytest.raises(BadInput, match="cannot be read as a data set"):
        list(rows_of_saved(one, "train"))


def test_folder_that_describes_itself(tmp_path):
    jsonl(tmp_path / "x.jsonl", ROWS[:1])
    jsonl(tmp_path / "y.jsonl", ROWS[1:])
    files = "data_files: [{split: train, path: y.jsonl}]"
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  {files}\n---\n")
    source = find_source(str(tmp_path))
    found = rows_of_folder(source, tmp_path / "cache", "train", None)
    assert [row.values for row in found] == ROWS[1:]
    with pytest.raises(BadInput, match="cannot be read as a data set"):
        list(rows_of_folder(source, tmp_path / "cache", "train", "nosuch"))


def test_sources_in_a_folder(tmp_path):
    jsonl(tmp_path / "b.jsonl", ROWS)
    jsonl(tmp_path / "a.JSON", ROWS)
    jsonl(tmp_path / ".hidden.jsonl", ROWS)
    source = find_source(str(tmp_path))
    assert source.kind == "json"
    assert [source.called(path) for path in source.files] == ["a.JSON", "b.jsonl"]
    (tmp_path / "LICENSE.txt").write_text("do as you like")
    (tmp_path / "d.jsonl.gz").write_text("")
    again = find_source(str(tmp_path))
    assert again.files == source.files
    assert [again.called(path) for path in again.beside] == ["LICENSE.txt", "d.jsonl.gz"]
    (tmp_path / "c.csv").write_text("text\n")
    with pytest.raises(BadInput, match=r"several kinds \(csv, json\)"):
        find_source(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nosuch.jsonl", "there is no nosuch.jsonl"),
        ("a/b/c", "there is no a/b/c"),
        ("../x", "there is no ../x"),
        ("a.pdf", r"a\.pdf is not read; expected \.jsonl"),
        ("empty", "empty is empty"),
    ],
)
def test_what_is_no_source(tmp_path, monkeypatch, name, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.pdf").write_text("")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match=words):
        find_source(name)


def test_without_a_network_the_cache_is_read_at_once(monkeypatch):
    found = []

    def load(*_, **__):
        found.append((datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE))
        raise ConnectionError("not in the cache")

    def connect(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(tables.datasets, "load_dataset", load)
    monkeypatch.setattr(tables.urllib.request, "getproxies", dict)
    monkeypatch.setattr(tables.huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(tables.datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(tables.socket, "create_connection", connect)
    with pytest.raises(BadInput, match="cannot be loaded from the hub"):
        list(tables.rows_of_hub(find_source("somebody/something"), "train", None))
    assert found == [(True, True)]
    assert not datasets.config.HF_HUB_OFFLINE  # as before
