"""On a CUDA device: numbers are those of the CPU to rounding, and a run can be resumed."""

import pytest
import torch

import comigs
from comigs.config.load import read_config
from tests.helpers import numbers, stopped_and_resumed

pytest_plugins = ("tests.fixtures",)
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def after(result):
    return [row["after"] for row in result.table]


def test_a_run_ends_where_that_of_the_cpu_does(tree, tmp_path):
    there = comigs.run(tree, out=tmp_path / "gpu", device="cuda")
    here = comigs.run(tree, out=tmp_path / "cpu", device="cpu")
    assert read_config(there.folder).device == "cuda"
    assert after(there) == pytest.approx(after(here), rel=1e-3)


def test_auto_is_the_gpu_and_says_so(tree, tmp_path):
    assert comigs.run(tree, out=tmp_path / "run").config.device == "cuda"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "nf4"])
def test_a_run_resumes_bit_for_bit(tree, tmp_path, dtype):
    tree = tree | {"model": {"name": "comigs-tiny", "dtype": dtype}, "device": "cuda"}
    whole = comigs.run(tree, out=tmp_path / "whole").folder
    assert numbers(stopped_and_resumed(tree, tmp_path / "resumed")) == numbers(whole)


def test_fused_clients_end_where_each_alone_does(tree, tmp_path):
    plain = ["experts.dropout=0", "device=cuda"]
    alone = comigs.run(tree, plain, out=tmp_path / "alone")
    fused = comigs.run(tree, [*plain, "engine.fuse=3"], out=tmp_path / "fused")
    assert after(fused) == pytest.approx(after(alone), rel=1e-3)
