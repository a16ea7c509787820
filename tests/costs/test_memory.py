"""The memory predictor against the allocator's own record of a real training step."""

import gc
from dataclasses import replace

import pytest
import torch
import transformers as tf
from transformers import AutoTokenizer

from comigs.backbone.names import BUNDLED
from comigs.config.experts import ExpertsConfig, RouterConfig
from comigs.config.model import DataConfig, ModelConfig
from comigs.config.settings import RunConfig
from comigs.config.train import TrainConfig
from comigs.costs.memory import peak_memory
from comigs.evaluation.perplexity import evaluate
from comigs.federation.clients import model_of
from comigs.mixture.adapters import adapter_parameters, init_adapters
from comigs.training.bilevel import train_locally
from experiments.benchmarks.peak import peak_bytes_on_cpu
from tests.helpers import client_of

pytestmark = pytest.mark.slow

LLAMA = {
    "vocab_size": 2048,
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
SHAPES = {
    "llama": tf.LlamaConfig(**LLAMA | {"num_hidden_layers": 3}),  # traced whole; "layers" is not
    "gpt2": tf.GPT2Config(vocab_size=2048, n_embd=64, n_layer=4, n_head=4, n_positions=128),
    "layers": tf.LlamaConfig(**LLAMA | {"num_hidden_layers": 8, "intermediate_size": 384}),
    "logits": tf.LlamaConfig(**LLAMA | {"num_hidden_layers": 1, "vocab_size": 20_000}),
    "natives": tf.OlmoeConfig(**LLAMA, num_experts=8, num_experts_per_tok=2),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A random model of each shape, by name."""
    tokenizer = AutoTokenizer.from_pretrained(BUNDLED / "comigs-tiny")
    found = {}
    for name, shape in SHAPES.items():
        found[name] = tmp_path_factory.mktemp(name)
        torch.manual_seed(0)
        tf.AutoModelForCausalLM.from_config(shape).save_pretrained(found[name])
        tokenizer.save_pretrained(found[name])
    return found


def measured_peak(config):
    """Most bytes of tensors that a round and an evaluation make and hold, moments included."""
    client = client_of(config)
    model = model_of(client)
    init_adapters(model, 0, 0, client.method.shares)
    tokens = torch.randint(2000, (4000,), generator=torch.Generator().manual_seed(0))

    def round_of(number, moments):
        for parameter in adapter_parameters(model).values():
            parameter.grad = None
        return train_locally(
            client, model, tokens, tokens, moments, round_number=number, steps=1, steps_done=0
        )[0]

    moments = round_of(1, {})
    gc.collect()  # what an earlier test left would be freed, and counted, in this record

    def train_and_evaluate():
        nonlocal moments
        moments = round_of(2, {name: kept.clone() for name, kept in moments.items()})  # as read
        evaluate(model, tokens[:1100], config)

    return peak_bytes_on_cpu(train_and_evaluate)


CONFIG = RunConfig(
    experts=ExpertsConfig(rank=4),
    data=DataConfig(seq_len=64),
    router=RouterConfig(every=1, steps=1),
    rounds=2,
    batch_size=4,
).for_client(0)
RECOMPUTED = TrainConfig(checkpointing=True)
CHUNKED = TrainConfig(loss="chunked")
BOTH = TrainConfig(checkpointing=True, loss="chunked")
CASES = [
    ("llama", {}, {}),
    ("llama", {"specialists": 0}, {}),
    ("llama", {"specialists": 3, "top_k": 4}, {}),
    ("llama", {"specialists": 3, "top_k": 2}, {}),
    ("llama", {"specialists": 3, "top_k": 1, "rank": 32}, {"micro_batch_size": 1}),
    ("llama", {"rank": 64}, {"batch_size": 1}),
    ("layers", {}, {"batch_size": 1}),
    ("logits", {}, {"batch_size": 1}),
    ("llama", {"dropout": 0.1}, {}),
    ("llama", {}, {"method": "pfedmoe"}),
    ("llama", {}, {"method": "ffa-lora"}),
    ("gpt2", {}, {}),
    ("gpt2", {"specialists": 3, "top_k": 2}, {"micro_batch_size": 2}),
    ("gpt2", {"routed": False}, {}),
    ("layers", {}, {}),
    ("layers", {}, {"micro_batch_size": 1}),
    ("logits", {}, {}),
    ("logits", {"specialists": 3}, {"micro_batch_size": 2}),
    ("llama", {"specialists": 3, "top_k": 2}, {"train": RECOMPUTED}),
    ("layers", {}, {"train": RECOMPUTED, "micro_batch_size": 1}),
    ("layers", {}, {"train": BOTH}),
    ("logits", {}, {"train": CHUNKED}),
    ("logits", {}, {"train": BOTH, "micro_batch_size": 2}),
    ("llama", {}, {"method": "ditto"}),
    ("layers", {"router": "rmoe"}, {"router": RouterConfig(unit="sequence")}),
    ("layers", {}, {"train": TrainConfig(layers=3), "seed": 3}),  # the first one among them
    ("natives", {"native": True}, {}),
    ("natives", {"native": True, "specialists": 3, "top_k": 2}, {"micro_batch_size": 2}),
]


BF16 = (6, 12, 18)  # of CASES: whatever is in one of these is in one of float32 too
TYPED = [(*case, "float32", "float32") for n, case in enumerate(CASES) if n not in BF16]
TYPED += [(*CASES[n], "bfloat16", "bfloat16") for n in (0, *BF16, 24)]
STORED = [("bfloat16", "float32"), ("int8", "float32"), ("nf4", "float32"), ("nf4", "bfloat16")]
SOME = [CASES[0], CASES[11], CASES[19], CASES[14]]
TYPED += [(*case, *how) for how, case in zip(STORED, SOME, strict=True)]


@pytest.mark.parametrize(("shape", "experts", "more", "dtype", "compute"), TYPED, ids=str)
def test_the_peak_is_predicted_within_15_percent(folders, shape, experts, more, dtype, compute):
    config = replace(CONFIG, **more)
    config = replace(
        config,
        model=ModelConfig(str(folders[shape]), dtype, compute),
        experts=replace(config.experts, **experts),
    )
    memory = peak_memory(client_of(config))
    peak = measured_peak(config)
    held = memory.gradients + memory.moments
    assert memory.activations == pytest.approx(peak - held, rel=0.15)
    assert memory.activations + held == pytest.approx(peak, rel=0.15)
