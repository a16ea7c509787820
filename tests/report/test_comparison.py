"""The table of a suite, from synthetic results."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from comigs.report.comparison import write_comparison


def result(method: str, seed: int, *after: float, target: str = "mixture") -> dict[str, Any]:
    config = {"method": method, "seed": seed, "data": {"target": target}}
    rows = [{"after": a, "valid": a, "trainable": 5000, "communicated": 70} for a in after]
    return {"config": config, "final": rows}


def suite(*methods: str) -> dict[str, Any]:
    return {"methods": list(methods), "grid": {"data.target": []}, "title": "T & <i>"}


def test_mean_over_clients_then_mean_and_sd_over_seeds(tmp_path: Path) -> None:
    results = [result("comigs", 1, 8.0, 12.0), result("comigs", 2, 11.0, 13.0)]
    results += [result("fedavg", 1, 30.0, 40.0)]
    text = write_comparison(results, suite("fedavg", "comigs"), tmp_path)
    assert text.splitlines()[2:] == ["| fedavg | 35.00 |", "| comigs | **11.00 ± 1.41** |"]
    (cell,) = [c for c in json.loads((tmp_path / "table.json").read_text()) if c["seeds"] == [1, 2]]
    assert cell["perplexity"] == [10.0, 12.0]
    assert cell["sd"] == pytest.approx(2**0.5)
    assert cell["worst_client"] == 12.5


def test_a_reference_is_never_marked_as_best(tmp_path: Path) -> None:
    results = [result("pretrained", 1, 2.0), result("centralized", 1, 1.0)]
    results += [result("local", 1, 4.0), result("fedavg", 1, 3.0)]
    methods = suite("pretrained", "centralized", "local", "fedavg")
    text = write_comparison(results, methods, tmp_path)
    assert [line for line in text.splitlines() if "**" in line] == ["| fedavg | **3.00** |"]
    assert (tmp_path / "table.html").read_text().count('class="best"') == 1


def test_references_alone_mark_nothing(tmp_path: Path) -> None:
    text = write_comparison([result("pretrained", 1, 2.0)], suite("pretrained"), tmp_path)
    assert "**" not in text


def test_each_column_has_its_own_best_and_gaps_stay_empty(tmp_path: Path) -> None:
    results = [result("local", 1, 4.0), result("comigs", 1, 5.0)]
    results += [result("comigs", 1, 6.0, target="in_distribution")]
    text = write_comparison(results, suite("local", "comigs"), tmp_path)
    assert text.splitlines() == [
        "| method | mixture | in_distribution |",
        "|---|---|---|",
        "| local | **4.00** |  |",
        "| comigs | 5.00 | **6.00** |",
    ]


def test_every_file_is_written_and_the_title_is_escaped(tmp_path: Path) -> None:
    text = write_comparison([result("comigs", 1, 5.0)], suite("comigs"), tmp_path)
    assert (tmp_path / "table.md").read_text(encoding="utf-8") == text
    assert (tmp_path / "table.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "table.svg").read_text()
    (row,) = csv.DictReader((tmp_path / "table.csv").read_text().splitlines())
    assert (row["method"], row["mean"], row["sd"], row["trainable"]) == (
        "comigs",
        "5.0",
        "",
        "5000",
    )
    page = (tmp_path / "table.html").read_text(encoding="utf-8")
    assert "T &amp; &lt;i&gt;" in page
    assert "http" not in page
