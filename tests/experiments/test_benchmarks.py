"""The benchmark programs run and write what they measured; nothing is asserted on time."""

import json
import sys

import pytest
import torch
from transformers import GPT2Config

from experiments.benchmarks import (
    choices,
    codecs,
    crowd,
    fuse,
    influence,
    ondevice,
    overhead,
    router,
    serve,
    step,
)

pytest_plugins = ("tests.fixtures",)

PARTS = ("train", "valid", "test")
SMALL = ["batch_size=1", "data.seq_len=16", *(f"data.{part}_tokens=400" for part in PARTS)]


@pytest.fixture
def call(monkeypatch, tmp_path, capsys):
    def run(program, *arguments):
        out = tmp_path / "out.json"
        monkeypatch.setattr(sys, "argv", ["benchmark", *arguments, "--out", str(out)])
        threads = torch.get_num_threads()
        program.main()
        torch.set_num_threads(threads)
        body = json.loads(out.read_text())
        assert body["machine"]["cores"] >= 1
        return body, capsys.readouterr().out

    return run


def test_step(call, monkeypatch):
    small = GPT2Config(vocab_size=64, n_embd=16, n_layer=2, n_head=2, n_positions=32)
    monkeypatch.setattr(step, "SHAPES", {"small": small})
    body, shown = call(step, "--quick")
    assert [row["dtype"] for row in body["rows"]] == ["float32", "bfloat16"]
    assert all(row["peak_bytes"]["a"] > 0 for row in body["rows"])
    assert "c/a" in shown


def test_codecs(call, monkeypatch, tree):
    monkeypatch.setattr(codecs, "SOURCE", tree)
    monkeypatch.setattr(codecs, "FIXED", ["log.eval_every=0"])
    body, shown = call(codecs, "--rounds", "2", "--keep", "0.5")
    rows = {row["codec"]: row for row in body["rows"]}
    assert rows["topk-int4"]["bytes"] == rows["int4-topk"]["bytes"] < rows["topk-int8"]["bytes"]
    for bits in (4, 8):
        assert rows[f"topk-int{bits}"]["error"] <= rows[f"int{bits}-topk"]["error"]
    assert "int4-topk" in shown


@pytest.mark.slow
def test_overhead(call, monkeypatch):
    monkeypatch.setattr(overhead, "FIXED", SMALL)
    body, shown = call(overhead, "--rounds", "1", "--steps", "1")
    assert len(body["overhead"]) == 1
    assert "median overhead" in shown


@pytest.mark.slow
def test_crowd(call, monkeypatch):
    monkeypatch.setattr(crowd, "ROUNDS", 2)
    body, shown = call(crowd, "--quick")
    rows = [(row["registered"], row["folders"]) for row in body["rows"]]
    assert rows == [(8, False), (16, False), (16, True)]
    assert all(row["start_seconds"] > 0 for row in body["rows"])
    assert [list(row["round_seconds"]) for row in body["rows"]] == [["2", "4"]] * 3
    assert "bytes of memory per registered device" in shown


@pytest.mark.slow
def test_router(call, monkeypatch):
    monkeypatch.setattr(router, "STEPS", 2)
    monkeypatch.setattr(router, "FIXED", SMALL)
    body, shown = call(router, "--rounds", "1")
    assert list(body["seconds"]) == list(router.KINDS)
    assert "against alternating" in shown


@pytest.mark.slow
def test_choices(call, finished):
    body, shown = call(choices, str(finished), "--tokens", "32")
    [bits] = body["bits"].values()
    assert list(bits) == ["client", "topic", "token"]
    assert all(0 <= value <= 2 for value in bits.values())
    assert "bits that a choice tells" in shown


@pytest.mark.slow
def test_influence(call, monkeypatch):
    monkeypatch.setattr(influence, "FIXED", SMALL)
    bad, good = torch.tensor([3.0, 1.0]), torch.tensor([0.0, 1.0, 2.0])
    assert influence.auroc(bad, good) == pytest.approx((3 + 1 + 0.5) / 6)
    arguments = ("--clients", "1", "--blocks", "7", "--valid", "2", "--steps", "0")
    body, shown = call(influence, *arguments)
    [of_steps] = body["auroc"].values()
    assert list(of_steps["0"]) == ["hyperinf", "datainf", "tracin", "classifier"]
    assert all(0 <= value <= 1 for kinds in of_steps["0"].values() for value in kinds.values())
    assert "other language" in shown


@pytest.mark.slow
def test_fuse(call, monkeypatch):
    small = GPT2Config(vocab_size=64, n_embd=16, n_layer=2, n_head=2, n_positions=32)
    monkeypatch.setattr(fuse, "SHAPES", {"small": small})
    body, shown = call(fuse, "--quick", "--clients", "1", "--clients", "3", "--batch", "2")
    assert [row["clients"] for row in body["rows"]] == [1, 3]
    assert all(row["peak_bytes"][way] > 0 for row in body["rows"] for way in fuse.WAYS)
    assert body["rows"][1]["peak_bytes"]["own base"] > body["rows"][1]["peak_bytes"]["serial"]
    assert "serial | fused | own base" in shown


def test_serve(call, monkeypatch):
    small = GPT2Config(vocab_size=2048, n_embd=16, n_layer=2, n_head=2, n_positions=64)
    monkeypatch.setattr(serve, "SHAPES", {"small": small})
    body, shown = call(serve, "--quick")
    (row,) = body["rows"]
    assert list(row["tokens_per_second"])[:2] == ["one by one", "together"]
    assert row["together/one by one"] > 0 and row["one client/plain PEFT"] > 0
    assert "one client/plain PEFT" in shown


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits are the Linux kernel's")
def test_ondevice(call, monkeypatch):
    small = GPT2Config(vocab_size=2048, n_embd=16, n_layer=2, n_head=2, n_positions=32)
    monkeypatch.setattr(ondevice, "SHAPE", small)
    monkeypatch.setattr(ondevice, "STEP", 400_000_000)
    body, shown = call(ondevice, "--quick")
    (row,) = body["rows"]
    assert 0 < row["smallest_limit"] <= row["resident"] + 2 * ondevice.STEP
    assert "smallest limit" in shown
