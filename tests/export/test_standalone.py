"""The whole mixture loads without comigs, and is the one that was trained."""

import copy
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, dynamic_module_utils

import comigs
from comigs.export.standalone import write_standalone
from comigs.mixture.adapters import adapter_parameters
from comigs.mixture.deltas import load_deltas
from tests.backbone.test_families import CONFIGS, base_of, mixture_of

IDS = torch.arange(1, 41).view(2, 20)


@pytest.fixture(autouse=True)
def modules(tmp_path, monkeypatch):
    """Where Transformers puts code of others: not into the home of who tests."""
    place = tmp_path / "modules"
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(place))
    monkeypatch.syspath_prepend(str(place))
    for name in [n for n in sys.modules if n.startswith("transformers_modules")]:
        monkeypatch.delitem(sys.modules, name)


def client(dtype="float32", compute="float32", router="linear"):
    return SimpleNamespace(experts=SimpleNamespace(router=router), dtype=dtype, compute=compute)


def written(model, place, **how):
    place.mkdir()
    write_standalone(client(**how), copy.deepcopy(model), place)
    return place


def opened(place, **how):
    return AutoModelForCausalLM.from_pretrained(place, trust_remote_code=True, **how)


@torch.no_grad()
def logits(model):
    return model.eval()(IDS).logits


@pytest.mark.slow
@pytest.mark.parametrize("family", CONFIGS)
def test_every_family_has_the_same_logits_alone_and_back_again(family, tmp_path):
    model = mixture_of(base_of(family), specialists=2, top_k=2, rank=4)
    wanted = logits(model)
    place = written(model, tmp_path / "to")
    torch.testing.assert_close(logits(opened(place)), wanted, rtol=0, atol=1e-5)
    torch.testing.assert_close(logits(comigs.load(place)), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "experts",
    [
        {"specialists": 2, "top_k": 1},
        {"specialists": 1, "routed": False},
        {"specialists": 0, "top_k": 1},
        {"specialists": 1, "scaling": "standard", "dropout": 0.5},
    ],
)
def test_every_way_to_mix_is_taken_along(experts, tmp_path):
    base = base_of("gpt2")  # with biases, which a gate below 1 scales
    for parameter in base.parameters():
        parameter.data += 0.05
    model = mixture_of(base, rank=4, **experts)
    place = written(model, tmp_path / "to")
    torch.testing.assert_close(logits(opened(place)), logits(model), rtol=1e-5, atol=1e-5)


def test_corrections_of_the_base_are_taken_along(tmp_path):
    model = mixture_of(base_of("llama"), specialists=1, rank=4)
    rng = torch.Generator().manual_seed(0)
    for path, expert, outputs, inputs in (
        ("model.layers.0.mlp.up_proj", "specialist_0", 48, 32),
        ("model.layers.1.mlp.down_proj", "generalist_0", 32, 48),
        ("model.layers.1.self_attn.q_proj", "generalist_0", 32, 32),
    ):
        shapes = {"A": (3, inputs), "B": (outputs, 3)}
        pair = {
            f"{path}.delta_{h}.{expert}.weight": torch.randn(s, generator=rng) * 0.3
            for h, s in shapes.items()
        }
        load_deltas(model, pair)
    plain = mixture_of(base_of("llama"), specialists=1, rank=4)
    assert (logits(model) - logits(plain)).abs().max() > 1e-3
    place = written(model, tmp_path / "to")
    torch.testing.assert_close(logits(opened(place)), logits(model), rtol=0, atol=1e-5)
    torch.testing.assert_close(logits(comigs.load(place)), logits(model), rtol=0, atol=1e-5)


def test_it_generates_learns_and_is_saved_again(tmp_path):
    model = mixture_of(base_of("gpt2"), specialists=2, top_k=1, rank=4)
    alone = opened(written(model, tmp_path / "to"))
    assert alone.lm_head.weight is alone.transformer.wte.weight
    with safe_open(tmp_path / "to" / "model.safetensors", "pt") as file:
        assert "lm_head.weight" not in file.keys()  # noqa: SIM118
    how = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    told = alone.eval().generate(IDS[:1, :5], **how)
    assert torch.equal(told, model.generate(input_ids=IDS[:1, :5], **how))
    assert torch.equal(told, alone.generate(IDS[:1, :5], use_cache=False, **how))

    loss = alone(IDS, labels=IDS).loss
    loss.backward()
    named = dict(alone.named_parameters())
    assert {n for n in adapter_parameters(model) if named[n].grad is None} == set()
    with torch.no_grad():
        for name in adapter_parameters(model):
            named[name] -= 0.1 * named[name].grad
    assert alone(IDS, labels=IDS).loss < loss
    alone.save_pretrained(tmp_path / "again")
    again = opened(tmp_path / "again")
    assert torch.equal(logits(again), logits(alone))


def test_a_bf16_base_stays_so_and_its_experts_do_not(tmp_path):
    model = mixture_of(base_of("llama").to(torch.bfloat16), specialists=1, rank=4)
    place = written(model, tmp_path / "to", dtype="bfloat16", compute="bfloat16")
    with safe_open(place / "model.safetensors", "pt") as file:
        kinds = {
            ".lora_" in n or ".router." in n: file.get_slice(n).get_dtype()
            for n in file.keys()  # noqa: SIM118
        }
    assert kinds == {True: "F32", False: "BF16"}
    alone = opened(place)
    named = dict(alone.named_parameters())
    assert {named[name].dtype for name in adapter_parameters(model)} == {torch.float32}
    assert named["model.norm.weight"].dtype == torch.bfloat16
    error = (logits(alone) - logits(model)).float().norm() / logits(model).float().norm()
    assert error < 0.02


def test_a_router_of_another_kind_is_refused(tmp_path):
    model = mixture_of(base_of("llama"), specialists=1, rank=4)
    with pytest.raises(comigs.BadInput, match=r"router 'mine' .* --as peft"):
        written(model, tmp_path / "to", router="mine")


LOADS = """
import sys, torch
from transformers import AutoModelForCausalLM
sys.modules["comigs"] = sys.modules["peft"] = None
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True)
print(model(torch.arange(8)[None]).logits.sum().item())
"""


@pytest.mark.slow
def test_it_loads_where_neither_comigs_nor_peft_is(tmp_path):
    model = mixture_of(base_of("llama"), specialists=1, rank=4)
    place = written(model, tmp_path / "to")
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", LOADS, str(place)],
        env=kept | {"HF_MODULES_CACHE": str(tmp_path / "there")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        total = model(torch.arange(8)[None]).logits.sum().item()
    assert float(done.stdout) == pytest.approx(total, abs=1e-3)


def test_a_folder_that_lacks_a_tensor_is_refused_on_the_way_back(tmp_path):
    place = written(mixture_of(base_of("llama"), specialists=1, rank=4), tmp_path / "to")
    settings = json.loads((place / "config.json").read_text())
    settings["mixture"]["experts"]["specialists"] = 2
    (place / "config.json").write_text(json.dumps(settings))
    with pytest.raises(comigs.BadInput, match=r"tensors lack .*specialist_1"):
        comigs.load(place)
