"""What a user takes away loads elsewhere, says what it is, and comes back."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys

import pytest
import torch
import yaml
from peft import ArrowConfig, PeftModel, XLoraConfig, create_arrow_model, get_peft_model
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

import comigs
from comigs.backbone import cache
from comigs.backbone.base import base_on
from comigs.backbone.names import BUNDLED
from comigs.cli.commands import app
from comigs.export.client import export_client
from comigs.mixture.adapters import adapter_tensors
from comigs.store.state import read_state, state_root
from tests.backbone.test_families import base_of, mixture_of
from tests.folders import llama, save
from tests.helpers import LIBRARIES, ROOT

pytest_plugins = ("tests.fixtures",)


@pytest.mark.parametrize("generalist_only", [False, True])
def test_an_adapter_of_an_fp16_base_names_the_users_model(
    tree, tmp_path, monkeypatch, generalist_only
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "WORTH_SHARING", 1)
    base_on.cache_clear()
    model = save(llama().half(), tmp_path / "mine")
    config = tree | {"model": {"name": str(model)}, "rounds": 1, "local_steps": 1}
    comigs.run(config, out=tmp_path / "run")
    assert any((tmp_path / "cache" / "comigs").iterdir()), "no copy was made"
    export_client(tmp_path / "run", 1, tmp_path / "to", "peft", generalist_only)
    adapter = tmp_path / "to" / "generalist_0"
    settings = json.loads((adapter / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(model)
    for path in (tmp_path / "to").rglob("*.*"):
        assert str(tmp_path / "cache").encode() not in path.read_bytes()
    base = AutoModelForCausalLM.from_pretrained(settings["base_model_name_or_path"])
    PeftModel.from_pretrained(base, adapter)


WRITE = """
import sys
from transformers import AutoModelForCausalLM
import comigs
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
comigs.save_experts(comigs.add_experts(model, comigs.ExpertsConfig(specialists=1, rank=2)), sys.argv[2])
"""  # noqa: E501


@pytest.mark.slow
def test_what_is_written_does_not_depend_on_the_hash_seed(tmp_path, monkeypatch):
    """By a process with another seed, and by this one."""
    arguments = {to: ["-c", str(BUNDLED / "comigs-tiny"), str(tmp_path / to)] for to in ("a", "b")}
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    env = {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", LIBRARIES + WRITE, *arguments["a"][1:]]
    subprocess.run(command, check=True, env=env)
    monkeypatch.setattr(sys, "argv", arguments["b"])
    exec(WRITE, {})
    written = []
    for to in (tmp_path / "a", tmp_path / "b"):
        texts = [path for path in to.rglob("*.*") if path.suffix in (".json", ".md")]
        written.append({str(path.relative_to(to)): path.read_bytes() for path in texts})
    assert written[0] == written[1]
    targets = json.loads(written[0]["generalist_0/adapter_config.json"])["target_modules"]
    assert targets == sorted(targets) != []


IDS = torch.arange(40)[None]


@torch.no_grad()
def logits(model):
    return model(IDS).logits


def exported(run, to, *options):
    result = CliRunner().invoke(app, ["export", str(run), "--to", str(to), *map(str, options)])
    assert result.exit_code == 0, result.output
    return to


def refused(run, to, *options):
    result = CliRunner().invoke(app, ["export", str(run), "--to", str(to), *map(str, options)])
    assert result.exit_code == 2, result.output
    assert not to.exists() and [p for p in to.parent.iterdir() if p.name.endswith(".tmp")] == []
    return result.output


@pytest.mark.parametrize("form", ["peft", "transformers"])
def test_a_whole_client_comes_back_as_it_was(finished, tmp_path, form):
    model = comigs.open(finished).client(2).model()
    back = comigs.load(exported(finished, tmp_path / "to", "--client", 2, "--as", form))
    assert type(back) is type(model)
    torch.testing.assert_close(logits(back), logits(model), rtol=0, atol=1e-5)


def test_one_expert_comes_back_from_peft_and_merged(finished, tmp_path, tiny_model):
    model = comigs.open(finished).client(2).model()
    with comigs.using_expert(model, "generalist_0"):
        wanted = logits(model)
    experts = exported(finished, tmp_path / "peft", "--client", 2, "--generalist-only")
    back = comigs.load(experts / "generalist_0")
    torch.testing.assert_close(logits(back), wanted, rtol=0, atol=1e-5)
    merged = ["--client", 2, "--as", "merged", "--generalist-only"]
    place = exported(finished, tmp_path / "merged", *merged)
    for dense in (AutoModelForCausalLM.from_pretrained(place), comigs.load(place)):
        assert type(dense).__name__ == "GPT2LMHeadModel"
        torch.testing.assert_close(logits(dense), wanted, rtol=0, atol=1e-5)
    bare = AutoModelForCausalLM.from_pretrained(tiny_model)
    assert not torch.allclose(logits(bare), wanted, atol=1e-4)
    with pytest.raises(comigs.BadInput, match=r"give one of the experts in it: generalist_0"):
        comigs.load(experts)


def test_a_mixture_is_not_merged(finished, tmp_path):
    to = tmp_path / "to"
    said = refused(finished, to, "--client", 2, "--as", "merged")
    assert "a mixture of 4: --as transformers has all of it, --expert takes one alone" in said
    exported(finished, to, "--client", 0, "--as", "merged")  # who has one expert


def test_a_form_or_a_combination_that_is_none_is_one_line(finished, tmp_path):
    to = tmp_path / "to"
    assert "did you mean merged?" in refused(finished, to, "--as", "merge")
    assert "goes with every other --as" in refused(
        finished, to, "--as", "transformers", "--generalist-only"
    )
    assert "--public goes with --push" in refused(finished, to, "--public")


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_what_is_written_has_the_modes_of_the_users_umask(finished, tmp_path, mask):
    before = os.umask(mask)
    try:
        exported(finished, tmp_path / "to", "--client", 1)
        exported(finished, tmp_path / "all", "--as", "transformers")
    finally:
        os.umask(before)
    for path in (*(tmp_path / "to").rglob("*"), *(tmp_path / "all").rglob("*")):
        wanted = (0o777 if path.is_dir() else 0o666) & ~mask
        assert stat.S_IMODE(path.stat().st_mode) == wanted, path


def test_the_card_says_what_it_is_and_what_it_measures(finished, tmp_path, tiny_model):
    place = exported(finished, tmp_path / "to", "--client", 1)
    row = comigs.open(finished).table[1]
    card = (place / "README.md").read_text()
    numbers = " | ".join(f"{row[key]:.2f}" for key in ("pretrained", "before", "after"))
    assert f"| bo | {numbers} |" in card
    for words in ("# bo: LoRA experts", f"`{tiny_model.name}`", "`comigs`", "not recorded"):
        assert words in card
    assert "base_model:" not in card  # a folder is no id on the hub
    one = (place / "specialist_0" / "README.md").read_text()
    assert "# bo: specialist_0" in one and "of all experts" in one
    for path in place.rglob("*.md"):
        assert str(tiny_model.parent) not in path.read_text()
        head = yaml.safe_load(path.read_text().split("---")[1])
        assert head["library_name"] == "peft"


def test_the_card_names_the_licences_of_a_federation_that_has_them(tree, federation, tmp_path):
    place = shutil.copytree(federation, tmp_path / "texts")
    told = [{"name": n, "licence": f"L-{n}", "attribution": "x"} for n in ("ana", "bo", "cy")]
    (place / "federation.json").write_text(json.dumps({"title": "Three", "clients": told}))
    texts = tree["data"] | {"name": str(place)}
    comigs.run(tree | {"data": texts, "method": "pretrained"}, out=tmp_path / "run")
    card = (exported(tmp_path / "run", tmp_path / "to", "--client", 2) / "README.md").read_text()
    assert "Federation `texts`: Three." in card and "| cy (this one) | L-cy | x |" in card


def test_an_unfinished_run_gives_its_last_whole_round_and_says_so(tree, tmp_path, caplog):
    def stop(event):
        if event["event"] == "round" and event["round"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        comigs.run(tree, out=tmp_path / "run", watch=stop)
    tensors, _ = read_state(state_root(tmp_path / "run", 1), 2)
    place = exported(tmp_path / "run", tmp_path / "to", "--client", 1)
    assert "is not finished: client 1's model is that of round" in caplog.text
    card = (place / "README.md").read_text()
    number = int(re.search(r"is that of round (\d) of 3", caplog.text)[1])
    assert f"{number} of 3 rounds" in card and "the run was not finished" in card
    tensors, _ = read_state(state_root(tmp_path / "run", 1), number)
    back = adapter_tensors(comigs.load(place))
    assert all(torch.equal(back[name], tensor) for name, tensor in tensors["tensors"].items())
    opened = comigs.open(tmp_path / "run")
    assert not opened.finished
    mine = adapter_tensors(opened.client(1).model())
    assert all(torch.equal(mine[name], tensor) for name, tensor in tensors["tensors"].items())


def test_peft_s_own_ways_to_mix_take_the_experts(tmp_path):
    mixture_of(base_of("llama"), specialists=3, rank=4).save_pretrained(tmp_path)
    paths = [str(tmp_path / f"specialist_{i}") for i in range(3)]
    before = logits(base_of("llama"))
    arrow = create_arrow_model(base_of("llama"), paths, ArrowConfig(top_k=2))
    assert not torch.allclose(logits(arrow), before, atol=1e-5)
    base = base_of("llama")
    base.config.use_cache = False
    named = {str(i): path for i, path in enumerate(paths)}
    xlora = get_peft_model(base, XLoraConfig(task_type="CAUSAL_LM", hidden_size=32, adapters=named))
    assert not torch.allclose(logits(xlora.eval()), before, atol=1e-5)
