"""Small model folders, whole and harmed, as people have them."""

import json

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from comigs.backbone.base import base_on, load_base, load_tokenizer
from comigs.backbone.names import BUNDLED

SIZES = {
    "vocab_size": 2048,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}


def llama(**changed):
    """A random Llama of two layers."""
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**(SIZES | changed))).eval()


def save(model, folder, **how):
    """Write `model` and the bundled tokenizer."""
    model.save_pretrained(folder, **how)
    AutoTokenizer.from_pretrained(BUNDLED / "comigs-tiny").save_pretrained(folder)
    return folder


def rewrite(folder, change):
    """Put `change` of all tensors (a dict by name) in the place of the tensors."""
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, {"format": "pt"})


def set_config(folder, **changed):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


def loaded(folder, dtype="float32"):
    """The base of a folder as a process of its own would load it."""
    base_on.cache_clear()
    load_tokenizer.cache_clear()
    return load_base(str(folder), dtype)


@torch.no_grad()
def logits(model):
    return model(torch.arange(20)[None]).logits.float()
