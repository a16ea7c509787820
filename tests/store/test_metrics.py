"""The final table read from metrics.jsonl."""

import json
from pathlib import Path

import pytest

from comigs.store.metrics import damaged_lines, events_of, final_rows


def test_a_folder_without_metrics_has_no_events(tmp_path: Path) -> None:
    assert events_of(tmp_path) == []
    assert final_rows(tmp_path) == []


def test_a_last_line_cut_off_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"event": "start"}\n{"event": "rou')
    assert events_of(tmp_path) == [{"event": "start"}]


def test_rows_come_in_the_clients_order(tmp_path: Path) -> None:
    order = [(10, "k"), (2, "c"), (0, "b"), (0, "a")]
    events = [{"event": "final", "client": number, "name": name} for number, name in order]
    lines = [json.dumps(e) for e in [{"event": "start"}, *events, {"event": "end"}]]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    assert [row["name"] for row in final_rows(tmp_path)] == ["a", "b", "c", "k"]


GOOD = b'{"event": "start"}'
ROUND = b'{"event": "round", "round": 1}'


@pytest.mark.parametrize(
    "bad", [b'{"event": "ro', b"\xff\xfe", b"\x00" * 9, b"5", b'{"round": 2}', b"[" * 100000, b""]
)
def test_a_damaged_line_hides_no_other(tmp_path: Path, bad: bytes) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join([GOOD, bad, ROUND, b""]))
    assert [event["event"] for event in events_of(tmp_path)] == ["start", "round"]
    assert damaged_lines(tmp_path) == [2]
