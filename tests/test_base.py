"""The frozen base: loaded once, shared by every model, and clear about folders it cannot use."""

import json
import shutil

import pytest
import torch

from comigs.adapters import adapter_parameters
from comigs.base import BUNDLED, expert_model, load_base, load_tokenizer
from comigs.config import ExpertsConfig, ModelConfig
from comigs.errors import BadInput

TINY = BUNDLED / "comigs-tiny"


def test_clients_of_every_shape_share_the_very_same_frozen_weights():
    base = load_base("comigs-tiny", "float32")
    shared = {p.data_ptr() for p in base.parameters()}
    for specialists in (0, 1, 3):
        model = expert_model(ModelConfig(), ExpertsConfig(specialists=specialists, rank=4))
        adapters = {p.data_ptr() for p in adapter_parameters(model).values()}
        others = {p.data_ptr() for p in model.parameters()} - adapters
        assert others == shared
    assert load_base("comigs-tiny", "float32") is base


def test_adding_experts_leaves_the_base_as_it_was():
    base = load_base("comigs-tiny", "float32")
    expert_model(ModelConfig(), ExpertsConfig(rank=2))
    assert not any("lora" in name or "router" in name for name, _ in base.named_parameters())


def test_a_bf16_base_keeps_fp32_adapters_and_stays_close_to_fp32():
    ids = torch.randint(1, 2000, (2, 64), generator=torch.Generator().manual_seed(0))
    outputs = []
    for dtype in ("float32", "bfloat16"):
        model = expert_model(ModelConfig(dtype=dtype), ExpertsConfig(rank=4))
        assert {p.dtype for p in adapter_parameters(model).values()} == {torch.float32}
        with torch.no_grad():
            outputs.append(model(ids).logits.float().log_softmax(-1))
    assert (outputs[0] - outputs[1]).abs().mean() < 0.05


def copy_of_tiny(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(TINY, folder)
    return folder


def test_a_local_folder_loads(tmp_path):
    folder = copy_of_tiny(tmp_path)
    assert load_base(str(folder), "float32").config.model_type == "gpt2"


def test_missing_folders_and_files_are_named(tmp_path):
    with pytest.raises(BadInput, match="there is no such folder"):
        load_base(str(tmp_path / "nowhere"), "float32")
    with pytest.raises(BadInput, match=r"holds no config\.json"):
        load_base(str(tmp_path), "float32")
    with pytest.raises(BadInput, match="a GGUF file is converted to a folder once"):
        load_base(str(tmp_path / "model.gguf"), "float32")
    folder = copy_of_tiny(tmp_path)
    (folder / "model.safetensors").unlink()
    with pytest.raises(BadInput, match="no model could be loaded"):
        load_base(str(folder), "float32")


def test_an_unknown_family_is_refused(tmp_path):
    folder = copy_of_tiny(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "bloom"}))
    with pytest.raises(BadInput, match="'bloom' is unknown"):
        load_base(str(folder), "float32")


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(tmp_path):
    folder = copy_of_tiny(tmp_path)
    tokenizer = load_tokenizer(str(folder))
    tokenizer.add_tokens([f"<extra{i}>" for i in range(5)])
    tokenizer.save_pretrained(folder)
    load_tokenizer.cache_clear()
    with pytest.raises(BadInput, match=r"knows 2053 tokens, the model only 2048"):
        load_base(str(folder), "float32")
