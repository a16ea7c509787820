"""Adapters that load elsewhere: they name the user's own base, and are the same every time."""

import json
import subprocess
import sys

import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM

import comigs
from comigs.backbone import cache
from comigs.backbone.base import base_on
from comigs.backbone.names import BUNDLED
from comigs.export.client import export_client
from tests.folders import llama, save
from tests.helpers import ROOT

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


def test_what_is_written_does_not_depend_on_the_hash_seed(tmp_path):
    written = []
    for seed in ("1", "2"):
        to = tmp_path / seed
        command = [sys.executable, "-c", WRITE, str(BUNDLED / "comigs-tiny"), str(to)]
        env = {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, env=env)
        texts = [path for path in to.rglob("*.*") if path.suffix in (".json", ".md")]
        written.append({str(path.relative_to(to)): path.read_bytes() for path in texts})
    assert written[0] == written[1]
    targets = json.loads(written[0]["generalist_0/adapter_config.json"])["target_modules"]
    assert targets == sorted(targets) != []
