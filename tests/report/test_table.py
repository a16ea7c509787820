"""The final table read from metrics.jsonl."""

import json
from pathlib import Path

from comigs.report.table import events_of, final_rows


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
