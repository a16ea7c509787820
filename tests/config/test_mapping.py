"""The frozen base stays what the kernel mapped from the file, also while it is trained on."""

import re
import sys
from pathlib import Path

import pytest
import torch
import transformers as tf

from comigs.backbone.base import load_base
from comigs.backbone.names import BUNDLED
from comigs.config.experts import ExpertsConfig
from comigs.config.model import DataConfig, ModelConfig
from comigs.config.settings import RunConfig
from comigs.config.train import TrainConfig
from comigs.local.round import Order, train_round
from tests.helpers import client_of

pytest_plugins = ("tests.fixtures",)

SHAPE = tf.LlamaConfig(
    vocab_size=2048,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    tie_word_embeddings=True,
)


def resident_and_copied(path):
    """Bytes of a mapped file in memory, and those of them that became copies of our own."""
    resident = copied = 0
    mine = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            mine = line.endswith(str(path))
        elif mine and line.startswith("Rss:"):
            resident += int(line.split()[1]) * 1024
        elif mine and line.startswith("Anonymous:"):
            copied += int(line.split()[1]) * 1024
    return resident, copied


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("tied", [True, False])
def test_a_bf16_base_is_mapped_and_never_copied_through_a_round(tmp_path, federation, tied):
    folder = tmp_path / "model"
    shape = tf.LlamaConfig(**SHAPE.to_dict() | {"tie_word_embeddings": tied})
    tf.AutoModelForCausalLM.from_config(shape, dtype=torch.bfloat16).save_pretrained(folder)
    tf.AutoTokenizer.from_pretrained(BUNDLED / "comigs-tiny").save_pretrained(folder)
    config = RunConfig(
        model=ModelConfig(str(folder), "bfloat16"),
        data=DataConfig(str(federation), seq_len=8),
        experts=ExpertsConfig(rank=2),
        rounds=1,
        local_steps=2,
        batch_size=2,
        micro_batch_size=1,
        train=TrainConfig(checkpointing=True, loss="chunked"),
    )
    train_round(Order(client_of(config), 1, 0, {}, tmp_path / "state"))
    base = load_base(str(folder), "bfloat16")
    weights = sum(p.numel() * p.element_size() for p in base.parameters())
    resident, copied = resident_and_copied(folder / "model.safetensors")
    assert resident > 0.9 * weights
    assert copied == 0
