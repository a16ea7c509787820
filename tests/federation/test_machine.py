"""What the machine decides is decided once, and recorded."""

import json
import shutil

import pytest
import torch

import comigs
from comigs.backbone import arithmetic
from comigs.backbone.arithmetic import fastest
from comigs.config.load import config_hash, load_config, read_config
from comigs.federation.machine import on_this_machine, with_compute
from comigs.hardware import device, resolve_device, use_device
from tests.fixtures import made_up_text

pytest_plugins = ("tests.fixtures",)
DTYPES = ("float32", "bfloat16", "int8", "nf4")


@pytest.fixture
def bf16(tmp_path, monkeypatch):
    """Sets whether a bf16 product is fast on this machine."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    note = tmp_path / "cache" / "comigs" / "arithmetic.json"

    def set_to(fast, forget=True):
        if forget:
            note.unlink(missing_ok=True)
        monkeypatch.setattr(arithmetic, "bfloat16_is_fast", lambda device: fast)
        arithmetic.remembered.cache_clear()

    yield set_to
    arithmetic.remembered.cache_clear()


def test_a_machine_without_fast_bf16_computes_in_float32(bf16):
    bf16(False)
    assert [fastest(dtype) for dtype in DTYPES] == ["float32"] * 4


def test_a_machine_with_fast_bf16_keeps_float32_exact(bf16):
    bf16(True)
    assert [fastest(dtype) for dtype in DTYPES] == ["float32"] + ["bfloat16"] * 3


def test_the_probe_is_remembered_and_a_damaged_note_is_made_anew(bf16, tmp_path):
    bf16(False)
    assert fastest("bfloat16") == "float32"
    note = tmp_path / "cache" / "comigs" / "arithmetic.json"
    assert list(json.loads(note.read_text()).values()) == [False]
    bf16(True, forget=False)
    assert fastest("bfloat16") == "float32"
    note.write_text("{")
    bf16(True, forget=False)
    assert fastest("bfloat16") == "bfloat16"


def test_auto_is_filled_in_for_each_client_by_its_storage(bf16):
    bf16(True)
    settings = ["model.dtype=[float32,bfloat16,nf4,float32]"]
    filled = with_compute(load_config(None, settings))
    assert filled.model.compute == ["float32", "bfloat16", "bfloat16", "float32"]
    bf16(False)
    assert with_compute(load_config(None, settings)).model.compute == "float32"
    asked = load_config(None, [*settings, "model.compute=[auto,float32,bfloat16,auto]"])
    filled = with_compute(asked).model.compute
    assert filled == ["float32", "float32", "bfloat16", "float32"]


def test_one_client_that_computes_otherwise_is_part_of_the_identity():
    plain = ["model.dtype=bfloat16", "clients=2"]
    other = load_config(None, [*plain, "model.compute=[bfloat16,float32]"])
    assert not other.model.native
    assert config_hash(other) != config_hash(load_config(None, plain))


def test_a_run_records_device_and_arithmetic_and_goes_on_with_them(bf16, tree, tmp_path):
    bf16(False)
    model = {"model": {"name": "comigs-tiny", "dtype": "bfloat16"}}
    folder = comigs.run(tree | model, out=tmp_path / "run").folder
    config = read_config(folder)
    assert (config.device, config.model.compute) == ("cpu", "float32")
    bf16(True)
    assert comigs.app.run.resume(folder).config.model.compute == "float32"
    with pytest.raises(comigs.BadInput, match=r"model\.compute differs from the run"):
        comigs.app.run.resume(folder, ["model.compute=bfloat16"])


def test_a_device_that_is_not_there_is_refused_with_what_to_do():
    missing = f"cuda:{torch.cuda.device_count() + 7}" if torch.cuda.is_available() else "cuda"
    with pytest.raises(comigs.BadInput, match=rf"device is '{missing}'; this machine has"):
        comigs.run("quickstart", [f"device={missing}"])
    with pytest.raises(comigs.BadInput, match=r"device is 'gpu'; it must be auto, cpu, cuda"):
        load_config(None, ["device=gpu"])


def test_nothing_but_use_device_chooses_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device().type == "cpu"
    assert resolve_device("auto") == "cuda"
    use_device("cpu")
    assert device().type == "cpu"


def test_workers_without_gpus_train_on_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert on_this_machine(load_config(None, ["engine=ray"])).device == "cpu"
    with_gpus = ["engine=ray", "ray.pools.default.gpus=0.5"]
    assert on_this_machine(load_config(None, with_gpus)).device == "cuda"
    assert on_this_machine(load_config(None, ["engine=flower"])).device == "auto"


def test_runs_of_before_keep_their_hash_on_the_cpu():
    plain = load_config(None)
    assert config_hash(plain) == config_hash(load_config(None, ["device=cpu"]))
    assert config_hash(plain) != config_hash(load_config(None, ["device=cuda"]))


@pytest.fixture
def machine(monkeypatch):
    """Sets the cores and the bytes of memory that this machine seems to have."""

    def has(cores, memory=2**36):
        monkeypatch.setattr("comigs.federation.machine.cores", lambda: cores)
        monkeypatch.setattr("comigs.federation.machine.available_memory", lambda: memory)

    return has


@pytest.mark.parametrize(
    "cores, memory, settings, workers, threads",
    [
        (2, 2**36, [], 2, 1),
        (16, 2**36, [], 4, 4),  # no more than there are clients
        (16, 2**36, ["participation=0.5"], 2, 8),
        (16, 3 * 2**30, [], 3, 5),
        (2, 2**36, ["engine.workers=3"], 3, 1),
        (8, 2**36, ["threads=4"], 2, 4),
        (1, 2**36, [], None, 1),
        (2, 2**30, [], None, 2),
        (2, None, [], None, 2),  # a system that does not tell
        (2, 2**36, ["threads=2"], None, 2),
        (2, 2**36, ["clients=1"], None, 2),
        (2, 2**36, ["batch_size=16"], None, 2),  # a step that fills the cores by itself
        (2, 2**36, ["rounds=2"], None, 2),  # done before the workers would have loaded torch
        (2, 2**36, ["engine=inline"], None, 2),
    ],
)
def test_auto_takes_workers_where_they_end_the_run_sooner(
    machine, cores, memory, settings, workers, threads
):
    machine(cores, memory)
    config = on_this_machine(load_config("quickstart", ["device=cpu", *settings]))
    engine = "ray" if workers else "inline"
    assert (config.engine.name, config.engine.workers, config.threads) == (engine, workers, threads)


def test_auto_leaves_clients_on_the_gpu(machine, monkeypatch):
    machine(8)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    config = on_this_machine(load_config("quickstart"))
    assert (config.engine.name, config.device) == ("inline", "cuda")


def test_auto_does_without_ray_where_it_is_missing(machine, monkeypatch):
    machine(8)
    monkeypatch.setattr("comigs.federation.machine.find_spec", lambda name: None)
    assert on_this_machine(load_config("quickstart", ["device=cpu"])).engine.name == "inline"


def test_a_run_goes_on_with_auto(tree, finished, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    assert comigs.app.run.resume(copy, ["engine=auto"]).config.engine.name == "inline"


@pytest.mark.parametrize(
    "settings, together",
    [
        ([], 4),
        (["engine=ray", "engine.workers=5"], 4),  # the same bits for any number of workers
        (["engine.fuse=3"], 3),
        (["participation=0.5"], 1),
        (["batch_size=64"], 1),
        (["experts.dropout=0.1"], 1),
        (["train.loss=chunked"], 1),
        (["engine=flower"], "auto"),
    ],
)
def test_many_small_clients_train_together(tmp_path, settings, together):
    for client in range(8):
        (tmp_path / f"{client}.txt").write_text("text\n")
    config = load_config(None, [f"data={tmp_path}", "batch_size=2", "device=cpu", *settings])
    assert with_compute(config).engine.fuse == together


def test_how_clients_were_put_together_is_recorded(tree, tmp_path):
    (tmp_path / "data").mkdir()
    for client in range(8):
        (tmp_path / f"data/{client}.txt").write_text(made_up_text(client))
    many = {"data": {"name": str(tmp_path / "data"), "seq_len": 16}, "experts": {"rank": 2}}
    run = comigs.run(tree | many | {"rounds": 1}, out=tmp_path / "run")
    assert read_config(run.folder).engine.fuse == 4
