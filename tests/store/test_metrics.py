"""Events and the final table read from metrics.jsonl."""

from pathlib import Path

import pytest

from comigs.store.eventjson import to_line
from comigs.store.events import Ended, Started
from comigs.store.metrics import damaged_lines, events_of, final_rows
from tests.samples import ROUND, final

START = Started("comigs", ["a"], 2, 0)


def test_a_folder_without_metrics_has_no_events(tmp_path: Path) -> None:
    assert events_of(tmp_path) == []
    assert final_rows(tmp_path) == []


def test_a_last_line_cut_off_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(to_line(START) + '{"event": "rou')
    assert events_of(tmp_path) == [START]
    assert damaged_lines(tmp_path) == []


def test_a_last_line_without_its_end_is_read(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(to_line(START) + to_line(Ended(1.0)).rstrip())
    assert events_of(tmp_path) == [START, Ended(1.0)]


def test_rows_come_in_the_clients_order(tmp_path: Path) -> None:
    order = [(10, "k"), (2, "c"), (0, "b"), (0, "a")]
    events = [START, *(final(number, name) for number, name in order), Ended(1.0)]
    (tmp_path / "metrics.jsonl").write_text("".join(map(to_line, events)))
    assert [row["name"] for row in final_rows(tmp_path)] == ["a", "b", "c", "k"]


BAD = [
    b'{"event": "ro', b"\xff\xfe", b"\x00" * 9, b"5", b'{"round": 2}', b"[" * 100000, b"",
    b'{"event": "roundd", "round": 1}', b'{"event": "end", "seconds": "1"}',
    b'{"event": "end"}',
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD)
def test_a_damaged_line_hides_no_other(tmp_path: Path, bad: bytes) -> None:
    lines = [to_line(START).encode(), bad, b"\n", to_line(ROUND).encode()]
    (tmp_path / "metrics.jsonl").write_bytes(b"".join(lines))
    assert events_of(tmp_path) == [START, ROUND]
    assert damaged_lines(tmp_path) == [2]
