"""The frozen base: loaded once, shared by every model, and clear about folders it cannot use."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from comigs.backbone.base import load_base, load_tokenizer
from comigs.backbone.names import BUNDLED, model_source
from comigs.config.experts import ExpertsConfig
from comigs.config.model import ModelConfig
from comigs.errors import BadInput
from comigs.mixture.adapters import adapter_parameters
from comigs.mixture.models import expert_model

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
    with pytest.raises(BadInput, match=r"holds no model\.safetensors"):
        load_base(str(folder), "float32")


def test_an_unknown_family_is_refused(tmp_path):
    folder = copy_of_tiny(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "gptj"}))
    with pytest.raises(BadInput, match="'gptj' is unknown"):
        load_base(str(folder), "float32")


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(tmp_path):
    folder = copy_of_tiny(tmp_path)
    tokenizer = load_tokenizer(str(folder))
    tokenizer.add_tokens([f"<extra{i}>" for i in range(5)])
    tokenizer.save_pretrained(folder)
    load_tokenizer.cache_clear()
    with pytest.raises(BadInput, match=r"knows 2053 tokens, the model only 2048"):
        load_base(str(folder), "float32")


def renamed(folder):
    tensors = load_file(folder / "model.safetensors")
    save_file({f"module.{n}": t for n, t in tensors.items()}, folder / "model.safetensors", META)


def without(folder):
    tensors = load_file(folder / "model.safetensors")
    del tensors["transformer.h.0.mlp.c_fc.weight"]
    save_file(tensors, folder / "model.safetensors", META)


def with_nan(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["transformer.ln_f.bias"][3] = torch.nan
    save_file(tensors, folder / "model.safetensors", META)


def pickled(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def settings(**changed):
    def harm(folder):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changed))

    return harm


META = {"format": "pt"}


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (renamed, "transformer.h.0.attn.c_attn.bias .* are missing; module.* are not expected"),
        (without, "transformer.h.0.mlp.c_fc.weight are missing"),
        (with_nan, "its tensor transformer.ln_f.bias holds NaN"),
        (pickled, "pickled weights are not read"),
        (settings(n_layer=10**9), "its config.json has n_layer = 1e.09"),
        (settings(n_embd="many"), "no model could be loaded"),
        (settings(n_embd=[]), "no model could be loaded"),
        (settings(model_type=5), "no model could be loaded"),
        (settings(vocab_size=-1), "no model could be loaded"),
        (settings(n_head=7), "no model could be loaded"),
    ],
)
def test_weights_that_are_not_whole_are_refused_in_one_line(tmp_path, harm, words):
    folder = copy_of_tiny(tmp_path)
    harm(folder)
    with pytest.raises(BadInput, match=words) as caught:
        load_base(str(folder), "float32")
    assert "\n" not in str(caught.value)


def test_a_head_that_is_tied_need_not_be_stored(tmp_path):
    names = load_file(TINY / "model.safetensors")
    assert "lm_head.weight" not in names
    assert load_base(str(copy_of_tiny(tmp_path)), "float32").lm_head.weight.isfinite().all()


@pytest.mark.parametrize("name", ["comigs-tinny", "comigs_tiny", "Comigs-tiny"])
def test_a_misspelt_bundled_name_is_told_at_once(name):
    with pytest.raises(BadInput, match="did you mean comigs-tiny"):
        model_source(name)
    assert model_source("gpt2") == "gpt2"
    assert model_source("org/comigs-tinny") == "org/comigs-tinny"
