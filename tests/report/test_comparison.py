"""The table of a suite, from synthetic results."""

import base64
import csv
import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from comigs.report.cells import make_cells, paired, regrets
from comigs.report.comparison import write_comparison
from comigs.report.curves import curve

Run = tuple[str, str, dict[str, Any]]


def result(method: str, seed: int, *after: float, target: str = "mixture") -> Run:
    config = {"method": method, "seed": seed, "data": {"target": target}}
    cost = {"trainable": 5000, "communicated": 70, "bytes_up": 10**6, "bytes_down": 5 * 10**5}
    rows = [{"name": f"c{i}", "after": a, "valid": a} | cost for i, a in enumerate(after)]
    return method, target, {"config": config, "final": rows}


def test_mean_over_clients_then_mean_and_sd_over_seeds(tmp_path: Path) -> None:
    results = [result("comigs", 1, 8.0, 12.0), result("comigs", 2, 11.0, 13.0)]
    results += [result("fedavg", 1, 30.0, 40.0)]
    text = write_comparison(results, ["fedavg", "comigs"], "T", tmp_path)
    assert text.splitlines()[2:] == ["| fedavg | 35.00 |", "| comigs | **11.00 ± 1.41** |"]
    (cell,) = [c for c in json.loads((tmp_path / "table.json").read_text()) if c["seeds"] == [1, 2]]
    assert cell["perplexity"] == [10.0, 12.0]
    assert cell["sd"] == pytest.approx(2**0.5)
    assert cell["worst_client"] == 12.5


def test_a_reference_is_never_marked_as_best(tmp_path: Path) -> None:
    results = [result("pretrained", 1, 2.0), result("centralized", 1, 1.0)]
    results += [result("local", 1, 4.0), result("fedavg", 1, 3.0)]
    rows = ["pretrained", "centralized", "local", "fedavg"]
    text = write_comparison(results, rows, "T", tmp_path)
    assert [line for line in text.splitlines() if "**" in line] == ["| fedavg | **3.00** |"]
    assert (tmp_path / "table.html").read_text().count('class="best"') == 1


def test_references_alone_mark_nothing(tmp_path: Path) -> None:
    text = write_comparison([result("pretrained", 1, 2.0)], ["pretrained"], "T", tmp_path)
    assert "**" not in text


def test_each_column_has_its_own_best_and_gaps_stay_empty(tmp_path: Path) -> None:
    results = [result("local", 1, 4.0), result("comigs", 1, 5.0)]
    results += [result("comigs", 1, 6.0, target="in_distribution")]
    text = write_comparison(results, ["local", "comigs"], "T", tmp_path)
    assert text.splitlines() == [
        "| method | mixture | in_distribution |",
        "|---|---|---|",
        "| local | **4.00** |  |",
        "| comigs | 5.00 | **6.00** |",
    ]


def test_every_file_is_written_and_the_title_is_escaped(tmp_path: Path) -> None:
    text = write_comparison([result("comigs", 1, 5.0)], ["comigs"], "T & <i>", tmp_path)
    assert (tmp_path / "table.md").read_text(encoding="utf-8").startswith(text)
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


def test_rows_are_paired_with_comigs_by_client_and_seed() -> None:
    ours = [result("comigs", seed, 10.0, 20.0)[2] for seed in (1, 2, 3)]
    twice = [result("local", seed, 20.0, 40.0)[2] for seed in (3, 2, 1, 4)]
    effect, p = paired(twice, ours)
    assert effect == pytest.approx(1.0)
    assert p == pytest.approx(2 / 2**6)  # all six pairs on one side
    assert paired(ours, ours) == (0.0, None)
    assert paired(twice[:1], ours) == (pytest.approx(1.0), None)
    assert paired(twice, []) == (None, None)


def test_regret_is_the_worst_ratio_to_the_best_of_a_column(tmp_path: Path) -> None:
    own, mixed = "in_distribution", "mixture"
    results = [result("centralized", 1, 1.0, target=t) for t in (own, mixed)]
    results += [result("local", 1, 10.0, target=own), result("local", 1, 90.0, target=mixed)]
    results += [result("fedavg", 1, 40.0, target=own), result("fedavg", 1, 60.0, target=mixed)]
    results += [result("comigs", 1, 11.0, target=own), result("comigs", 1, 72.0, target=mixed)]
    results += [result("pcl", 1, 10.0, target=own)]
    found = regrets(make_cells(results))
    assert found == pytest.approx({"local": 1.5, "fedavg": 4.0, "comigs": 1.2})
    write_comparison(results, ["centralized", "local", "fedavg", "pcl", "comigs"], "T", tmp_path)
    assert "| comigs | 1.200 |" in (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "1.200" in (tmp_path / "table.html").read_text(encoding="utf-8")


def test_the_page_has_every_table_of_the_text_and_a_link_to_the_csv(tmp_path: Path) -> None:
    results = [result("local", seed, 10.0, 20.0) for seed in (1, 2, 3)]
    results += [result("comigs", seed, 5.0, 10.0) for seed in (1, 2, 3)]
    write_comparison(results, ["local", "comigs"], "T", tmp_path, reach=60)
    text = (tmp_path / "table.md").read_text(encoding="utf-8")
    page = unescape((tmp_path / "table.html").read_text(encoding="utf-8"))
    titles = [line for line in text.splitlines() if line and not line.startswith("|")]
    assert len(titles) == 5 and all(f"<h2>{title}</h2>" in page for title in titles)
    assert "<td>+100.0 % (p 0.031)</td>" in page and "<td>20.00, 5.00</td>" in page
    [link] = re.findall(r'href="data:text/csv;base64,([^"]+)"', page)
    assert base64.b64decode(link).decode() == (tmp_path / "table.csv").read_bytes().decode()


def test_who_ends_worse_than_alone_is_counted_by_client_and_seed() -> None:
    runs = [result("local", 1, 10.0, 20.0), result("local", 2, 10.0, 20.0)]
    runs += [result("fedavg", 1, 11.0, 20.0), result("fedavg", 2, 9.0, 20.1)]
    found = {cell.row: cell.worse for cell in make_cells(runs)}
    assert found == {"local": None, "fedavg": 0.5}
    runs += [result("local-moe", 1, 30.0, 30.0)]
    found = {cell.row: cell.worse for cell in make_cells(runs)}
    assert found == {"local": None, "local-moe": None, "fedavg": 0.0}


def test_worst_client_spread_and_traffic() -> None:
    (cell,) = make_cells([result("local", 1, 10.0, 30.0), result("local", 2, 10.0, 50.0)])
    assert (cell.worst_client, cell.spread, cell.megabytes) == (40.0, 15.0, 1.5)


def test_curves_count_bytes_up_to_the_start_of_the_evaluated_round(tmp_path: Path) -> None:
    rounds = [
        {"round": n, "valid_ppl": ppl, "bytes_up": 10**6, "bytes_down": (n > 1) * 10**6}
        for n, ppl in ((1, 9.0), (2, None), (3, 5.0))
    ]
    runs = [result("comigs", 1, 5.0), result("local", 1, 6.0)]
    runs[0][2]["rounds"] = rounds
    assert curve([runs[0][2]]) == [(0, 0.0, 0.0, 0.0, 9.0), (2, 3.0, 0.0, 0.0, 5.0)]
    assert curve([runs[1][2]]) == []
    write_comparison(runs, ["local", "comigs"], "T", tmp_path)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_race_tells_what_each_method_spends_until_it_reaches_a_perplexity(tmp_path) -> None:
    runs = [result("comigs", 1, 5.0), result("local", 1, 6.0)]
    for (_, _, kept), ppl in zip(runs, ((99, 70, 50), (99, 90, 80)), strict=True):
        kept["rounds"] = [
            {"round": n, "valid_ppl": p, "bytes_up": 10**6, "sim_seconds": 30, "sim_joules": 500}
            for n, p in enumerate(ppl, 1)
        ]
    write_comparison(runs, ["local", "comigs"], "T", tmp_path, reach=60)
    lines = (tmp_path / "table.md").read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if "Until validation perplexity 60" in line)
    assert lines[start + 4 : start + 6] == [
        "| local | never |",
        "| comigs | 60 s, 2.0 MB, 1000 J |",
    ]
    assert "simulated s" in (tmp_path / "curves.svg").read_text(encoding="utf-8")
