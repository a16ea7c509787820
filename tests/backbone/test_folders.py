"""Model folders as people have them: read right, or refused in one line that names the fault."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
)

from comigs.backbone import cache
from comigs.backbone.base import load_settings
from comigs.costs.shapes import skeleton
from comigs.errors import BadInput
from tests.folders import SIZES, llama, loaded, logits, rewrite, save, set_config


def neox():
    torch.manual_seed(0)
    sizes = {key: value for key, value in SIZES.items() if key != "num_key_value_heads"}
    return GPTNeoXForCausalLM(GPTNeoXConfig(**sizes)).eval()


def gpt2():
    torch.manual_seed(0)
    ends = {"bos_token_id": None, "eos_token_id": None}
    config = GPT2Config(vocab_size=2048, n_embd=32, n_layer=2, n_head=2, n_positions=64, **ends)
    return GPT2LMHeadModel(config).eval()


def prefixed(word):
    return lambda tensors: {f"{word}.{name}": tensor for name, tensor in tensors.items()}


def bare(word):
    return lambda tensors: {n.removeprefix(f"{word}."): t for n, t in tensors.items()}


def without(part):
    return lambda tensors: {n: t for n, t in tensors.items() if part not in n}


def beside(*names):
    return lambda tensors: tensors | {name: torch.zeros(3) for name in names}


@pytest.mark.parametrize(
    ("model", "change"),
    [
        (llama(), prefixed("model")),  # transformers' own prefix, once more
        (llama(), bare("model")),
        (llama(tie_word_embeddings=True), bare("model")),
        (llama(), beside("v_head.summary.weight", "score.weight")),
        (llama(), beside("model.layers.0.self_attn.rotary_emb.inv_freq")),
        (neox(), bare("gpt_neox")),
        (neox(), beside(*(f"gpt_neox.layers.0.attention.{x}" for x in ("bias", "masked_bias")))),
        (gpt2(), bare("transformer")),
        (gpt2(), beside("transformer.h.0.attn.bias", "transformer.h.0.attn.masked_bias")),
    ],
)
def test_names_and_additions_that_say_what_they_are_change_nothing(tmp_path, model, change):
    for name in ("plain", "changed"):
        save(model, tmp_path / name)
    rewrite(tmp_path / "changed", change)
    found = logits(loaded(tmp_path / "changed"))
    assert torch.equal(found, logits(loaded(tmp_path / "plain")))
    torch.testing.assert_close(found, logits(model), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (prefixed("module"), r"lm_head\.weight, .* missing; module\.lm_head\.weight, .* expected"),
        (prefixed("_orig_mod"), r"are missing; _orig_mod\.lm_head\.weight, .* not expected"),
        (without("layers.1."), r"model\.layers\.1\.input_layernorm\.weight, .* and 7 more are m"),
        (without("lm_head"), r"lm_head\.weight are missing"),
        (beside("model.layers.2.mlp.up_proj.weight"), r"layers\.2\.mlp\.up_proj\.weight are not"),
        (beside("layers.2.mlp.up_proj.weight"), r"layers\.2\.mlp\.up_proj\.weight are not"),
        (beside("model.layers.0.mlp.up_proj.bias"), r"layers\.0\.mlp\.up_proj\.bias are not exp"),
        (beside("lm_head.bias"), r"lm_head\.bias are not expected"),
    ],
)
def test_tensors_that_do_not_belong_together_are_refused_by_name(tmp_path, capfd, change, words):
    save(llama(), tmp_path)
    rewrite(tmp_path, change)
    capfd.readouterr()
    with pytest.raises(BadInput, match=words) as caught:
        loaded(tmp_path)
    assert "\n" not in str(caught.value)
    assert "LOAD REPORT" not in "".join(capfd.readouterr())


def pickled(folder):
    """Shards as they were before safetensors."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = {n: f"pytorch_model-0000{1 + i % 2}-of-00002.bin" for i, n in enumerate(tensors)}
    for file in set(names.values()):
        torch.save({n: t for n, t in tensors.items() if names[n] == file}, folder / file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": names}))


def test_pickled_shards_are_refused(tmp_path):
    pickled(save(llama(), tmp_path))
    with pytest.raises(BadInput, match="pickled weights are not read: save them as safetensors"):
        loaded(tmp_path)


def test_shards_are_read_and_one_that_is_gone_is_named(tmp_path):
    model = llama()
    save(model, tmp_path, max_shard_size="50KB")
    assert torch.equal(logits(loaded(tmp_path)), logits(model))
    [first, *_] = sorted(tmp_path.glob("model-*.safetensors"))
    first.unlink()
    with pytest.raises(BadInput, match=first.name):
        loaded(tmp_path)
    (tmp_path / "model.safetensors.index.json").unlink()
    with pytest.raises(BadInput, match=r"holds no model\.safetensors"):
        loaded(tmp_path)


def test_random_weights_are_never_kept_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "WORTH_SHARING", 1)
    folder = save(llama().half(), tmp_path / "model")
    rewrite(folder, without("layers.1.mlp"))
    for _ in range(2):
        with pytest.raises(BadInput, match=r"model\.layers\.1\.mlp\.down_proj\.weight"):
            loaded(folder)
    assert list((tmp_path / "cache").glob("comigs/*/*.safetensors")) == []


@pytest.mark.parametrize(
    "method", ["gptq", "awq", "bitsandbytes", "compressed-tensors", "fp8", "mxfp4", "of tomorrow"]
)
def test_weights_that_somebody_else_has_quantised_are_refused(tmp_path, method):
    set_config(save(llama(), tmp_path), quantization_config={"quant_method": method, "bits": 4})
    for load in (loaded, lambda folder: skeleton(str(folder))):
        with pytest.raises(BadInput, match=rf"quantised \({method}\).* give the model they were"):
            load(tmp_path)


@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_numbers_that_are_none_are_named_with_their_tensor(tmp_path, number, dtype):
    model = llama().to(dtype)
    model.model.layers[1].mlp.up_proj.weight.data[3, 4] = number
    with pytest.raises(BadInput, match=r"tensor model\.layers\.1\.mlp\.up_proj\.weight holds NaN"):
        loaded(save(model, tmp_path))


def test_a_folder_without_a_tokenizer_is_told_in_a_sentence(tmp_path):
    llama().save_pretrained(tmp_path)
    with pytest.raises(BadInput, match=r"holds no tokenizer; put the model's tokenizer\.json"):
        loaded(tmp_path)


def multimodal():
    text = SIZES | {"num_key_value_heads": 1, "head_dim": 16, "sliding_window": 8}
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
    vision = sizes | {"num_hidden_layers": 1, "image_size": 28, "patch_size": 14}
    torch.manual_seed(0)
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    return Gemma3ForConditionalGeneration(config).eval()


@pytest.mark.parametrize("old", [False, True], ids=["as saved", "with the other prefix"])
def test_the_text_model_of_a_multimodal_checkpoint_is_read(tmp_path, old):
    model = multimodal()
    save(model, tmp_path)
    if old:
        rewrite(tmp_path, lambda tensors: {_other(n): t for n, t in tensors.items()})
    base = loaded(tmp_path)
    assert base.config.model_type == load_settings(str(tmp_path)).model_type == "gemma3_text"
    torch.testing.assert_close(logits(base), logits(model), rtol=1e-5, atol=1e-6)  # its own GELU
    assert skeleton(str(tmp_path)).parameters == sum(p.numel() for p in base.parameters())


def _other(name):
    inner = name.removeprefix("language_model.model.")
    return f"model.language_model.{inner}" if inner != name else f"model.{name}"


def test_a_multimodal_checkpoint_without_its_text_model_is_refused(tmp_path):
    save(multimodal(), tmp_path)
    rewrite(tmp_path, without("layers.1.mlp.up_proj"))
    with pytest.raises(BadInput, match=r"model\.layers\.1\.mlp\.up_proj\.weight are missing"):
        loaded(tmp_path)
