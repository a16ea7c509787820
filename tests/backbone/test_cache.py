"""Processes share the frozen base, whatever dtype it is stored in."""

import os
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors import SafetensorError
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from comigs.backbone import cache as basecache
from comigs.backbone.base import base_on, load_base
from comigs.backbone.names import BUNDLED
from tests.helpers import QUIET, damage

pytest_plugins = ("tests.fixtures",)

SCRIPT = """
import sys
from comigs.backbone.base import load_base

def private():
    lines = open("/proc/self/smaps_rollup").read().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private"))

small, model = sys.argv[1:]
bases = []
for dtype in ("float32", "bfloat16"):
    load_base(small, dtype)  # imports what loading needs
    before = private()
    bases.append(load_base(model, dtype))
    for parameter in bases[-1].parameters():
        parameter.float().sum()
    print(private() - before, sum(p.nbytes for p in bases[-1].parameters()))
"""


@pytest.fixture(scope="module")
def large_model(tmp_path_factory):
    """A folder with a random GPT-2 of 30 M parameters in float32, and the bundled tokenizer."""
    folder = tmp_path_factory.mktemp("large")
    tokenizer = AutoTokenizer.from_pretrained(BUNDLED / "comigs-tiny")
    torch.manual_seed(0)
    sizes = {"n_embd": 768, "n_layer": 4, "n_head": 2, "n_positions": 64}
    ends = {"bos_token_id": None, "eos_token_id": None}
    GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **sizes, **ends)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    base_on.cache_clear()
    yield tmp_path / "comigs"
    base_on.cache_clear()


@pytest.fixture
def model(tiny_model, tmp_path_factory, monkeypatch):
    """A folder with weights that are worth sharing, however few they are."""
    monkeypatch.setattr(basecache, "WORTH_SHARING", 1)
    return shutil.copytree(tiny_model, tmp_path_factory.mktemp("small") / "model")


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/smaps_rollup"), reason="needs Linux's smaps")
def test_a_second_process_holds_no_copy_of_the_base(tiny_model, large_model, cache):
    ours = [load_base(str(large_model), dtype) for dtype in ("float32", "bfloat16")]
    for parameter in (p for base in ours for p in base.parameters()):
        parameter.float().sum()  # every page is in this process
    command = [sys.executable, "-c", SCRIPT, str(tiny_model), str(large_model)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=os.environ | QUIET)
    lines = done.stdout.splitlines()
    for base, line in zip(ours, lines, strict=True):
        private, size = map(int, line.split())
        assert size == sum(p.nbytes for p in base.parameters()) > 50e6
        assert private < size / 2


def test_the_stored_copy_holds_the_same_numbers_and_is_made_once(model, cache):
    base = load_base(str(model), "bfloat16")
    plain = GPT2LMHeadModel.from_pretrained(model, dtype=torch.bfloat16)
    for (name, one), two in zip(base.named_parameters(), plain.parameters(), strict=True):
        assert one.dtype == torch.bfloat16
        assert torch.equal(one, two), name
    [made] = [path for path in cache.iterdir() if path.is_dir()]
    before = made.stat()
    base_on.cache_clear()
    load_base(str(model), "bfloat16")
    assert [path for path in cache.iterdir() if path.is_dir()] == [made]
    assert (made.stat().st_ino, made.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_weights_that_fit_or_are_small_are_not_stored_again(large_model, tiny_model, cache):
    load_base(str(large_model), "float32")
    load_base(str(tiny_model), "bfloat16")
    assert not cache.exists()


def test_other_weights_under_the_same_name_get_a_copy_of_their_own(model, cache):
    load_base(str(model), "bfloat16")
    weights = model / "model.safetensors"
    stat = weights.stat()
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    base_on.cache_clear()
    load_base(str(model), "bfloat16")
    assert len([path for path in cache.iterdir() if path.is_dir()]) == 2


def test_a_cache_that_cannot_be_written_is_said(model, cache, caplog):
    cache.write_text("in the way")
    base = load_base(str(model), "bfloat16")
    assert base.dtype == torch.bfloat16
    assert "each process keeps its own" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("how", ["flip", "truncate", "delete"])
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "checksums.json"])
def test_a_damaged_copy_is_made_again(model, cache, how, name):
    plain = GPT2LMHeadModel.from_pretrained(model, dtype=torch.bfloat16)
    load_base(str(model), "bfloat16")
    [made] = [path for path in cache.iterdir() if path.is_dir()]
    damage(made / name, how)
    base_on.cache_clear()
    basecache.intact.cache_clear()  # as in a new process
    base = load_base(str(model), "bfloat16")
    for (name, one), two in zip(base.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(one, two), name


def nobody(uid):
    raise KeyError(uid)


@pytest.mark.parametrize("trouble", ["no home", "read-only home", "full disk"])
def test_a_user_without_a_place_for_copies_is_warned(
    model, cache, tmp_path, monkeypatch, caplog, trouble
):
    monkeypatch.delenv("XDG_CACHE_HOME")
    if trouble == "no home":
        monkeypatch.delenv("HOME")
        monkeypatch.setattr("pwd.getpwuid", nobody)
    elif trouble == "read-only home":
        (tmp_path / "home").write_text("nothing can be made in here, not even by root")
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
    else:
        monkeypatch.setenv("HOME", str(tmp_path))

        def full(*_, **__):
            raise SafetensorError("I/O error: No space left on device (os error 28)")

        monkeypatch.setattr(GPT2LMHeadModel, "save_pretrained", full)
    base = load_base(str(model), "bfloat16")
    assert base.dtype == torch.bfloat16
    assert "no bfloat16 copy" in caplog.text and "each process keeps its own" in caplog.text
    assert [path for path in tmp_path.rglob("*.safetensors")] == []
