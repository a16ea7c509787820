"""Predicted FLOPs and parameters against a counter on real steps of real models."""

from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import (
    flop_registry,
    sdpa_backward_flop_count,
    sdpa_flop_count,
    shape_wrapper,
)
from transformers import AutoTokenizer

from comigs.backbone.base import load_base
from comigs.backbone.names import BUNDLED
from comigs.config.load import load_config
from comigs.costs.shapes import adapter_shapes
from comigs.costs.work import parameter_counts, token_flops
from comigs.evaluation.perplexity import perplexity
from comigs.federation.clients import model_of
from comigs.mixture.adapters import adapter_parameters, is_router
from comigs.training.bilevel import train_locally
from tests.backbone.test_families import CONFIGS, base_of
from tests.helpers import client_of

pytestmark = pytest.mark.slow
_aten = torch.ops.aten
ON_CPU = {  # the counter knows only the kernels of GPUs, and no products by group
    _aten._grouped_mm: lambda x, w, *_, out_shape=None, **__: 2 * x[0] * w[1] * w[2],
    _aten._scaled_dot_product_flash_attention_for_cpu: (
        lambda q, k, v, *_, out_shape=None, **__: sdpa_flop_count(q, k, v)
    ),
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda grad, q, k, v, *_, out_shape=None, **__: sdpa_backward_flop_count(grad, q, k, v)
    ),
}
STEPS = 2


class Counter(TorchDispatchMode):
    """Counts by torch's own formulas; its own counter takes most of a test to look for modules."""

    formulas = flop_registry | {call: shape_wrapper(count) for call, count in ON_CPU.items()}

    def __init__(self):
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, call, types, args=(), kwargs=None):
        out = call(*args, **(kwargs or {}))
        if formula := self.formulas.get(call.overloadpacket):
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """By family, the folder of a small model of it."""
    tokenizer = AutoTokenizer.from_pretrained(BUNDLED / "comigs-tiny")

    def write(family):
        folder = tmp_path_factory.mktemp(family)
        model = base_of(family)
        model.resize_token_embeddings(len(tokenizer))
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return str(folder)

    return {family: write(family) for family in CONFIGS}


def config_of(folder, *settings):
    small = ["data.seq_len=16", "batch_size=4", "router.every=1000", "router.steps=1"]
    return load_config(None, [f"model.name={folder}", *small, *settings])


def counted(config, client=0):
    """FLOPs per token of an expert step, of a router step (or 0), and of an evaluation."""
    client = client_of(config, client)
    model = model_of(client)
    stream = torch.randint(60, (1600,), generator=torch.Generator().manual_seed(0))
    tokens = config.batch_size * config.data.seq_len

    def train(router, steps):
        tried = replace(client, config=replace(client.config, router=router))
        with Counter() as counter:
            train_locally(
                tried, model, stream, stream, {}, round_number=1, steps=steps, steps_done=0
            )
        return counter.total / tokens

    expert = train(config.router, STEPS) / STEPS
    router = train(replace(config.router, every=STEPS), STEPS) - STEPS * expert
    with Counter() as counter:
        perplexity(model, stream[: tokens + 1], config.data.seq_len, 4)
    return expert, router, counter.total / tokens


def assert_close(config, client=0, rel=0.002):
    predicted, seen = token_flops(client_of(config, client)), counted(config, client)
    for name, was in zip(("expert", "router", "forward"), seen, strict=True):
        assert getattr(predicted, name) == pytest.approx(was, rel=rel, abs=1), name


@pytest.mark.parametrize("family", CONFIGS)
def test_flops_of_every_family(family, folders):
    assert_close(config_of(folders[family]))


LAYOUTS = [  # which linears there are, and what is kept of their products, depends on the family
    ["experts.specialists=3", "experts.top_k=4"],
    ["experts.specialists=3", "experts.top_k=2"],
    ["experts.specialists=3", "experts.top_k=1"],
    ["experts.specialists=0"],
    ["model.attention_lora=false"],
    ["model.attention_lora=false", "experts.specialists=0"],
    ["micro_batch_size=2", "experts.specialists=2"],
    ["method=fedavg", "experts.specialists=3"],
    ["method=ffa-lora"],
    ["data.seq_len=48"],
    ["train.layers=1"],
    ["train.checkpointing=true"],
    ["train.checkpointing=true", "model.attention_lora=false", "experts.specialists=3"],
    ["train.loss=chunked"],
    ["model.dtype=bfloat16", "model.compute=float32"],
    ["model.dtype=nf4", "model.compute=float32"],
]
EITHER = [  # the same in every family, and seen in one
    ["experts.dropout=0.1"],
    ["micro_batch_size=2", "experts.specialists=2", "experts.routed=false"],
    ["micro_batch_size=2", "experts.specialists=0"],
    ["router.grad=first_order"],
    ["router.trainable=false"],
    ["train.layers=1", "router.grad=first_order"],
    ["train.layers=1", "seed=3", "method=pfedmoe", "train.checkpointing=true"],
    ["router.scope=global", "experts.specialists=2"],
    ["experts.router=mlp"],
    ["method=pfedmoe"],
    ["method=fdlora"],
    ["method=ditto"],
    ["method=apfl"],
    ["method=fedalt"],
    ["method=feddpa"],
]
CASES = [(family, settings) for settings in LAYOUTS for family in ("gpt2", "llama")]
CASES += [(("gpt2", "llama")[n % 2], settings) for n, settings in enumerate(EITHER)]


@pytest.mark.parametrize(("family", "settings"), CASES, ids=str)
def test_flops_of_every_layout(family, settings, folders):
    assert_close(config_of(folders[family], *settings))


def test_flops_of_routers_in_a_row(folders):
    """To 3 %: the state before the first layer is 0 and gets no gradient, which is counted."""
    assert_close(config_of(folders["llama"], "experts.router=rmoe"), rel=0.03)


def test_flops_per_client(folders):
    config = config_of(folders["llama"], "experts.specialists=[0,1,3]", "clients=3")
    for client in range(3):
        assert_close(config, client)


def test_a_method_without_training_costs_evaluation_only(folders):
    config = config_of(folders["llama"], "method=pretrained")
    flops = token_flops(client_of(config))
    stream = torch.zeros(65, dtype=torch.long)
    with Counter() as counter:
        perplexity(load_base(folders["llama"], "float32"), stream, 16, 4)
    assert (flops.expert, flops.router) == (0, 0)
    assert flops.forward == pytest.approx(counter.total / 64, rel=0.02)


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("method", ["comigs", "comigs-2s", "fedavg", "local-moe"])
def test_parameters_and_shapes_are_exact(family, method, folders):
    settings = ["experts.specialists=[0,2]", "clients=2", "experts.rank=3", f"method={method}"]
    for attention in ("true", "false"):
        config = config_of(folders[family], *settings, f"model.attention_lora={attention}")
        for number in range(2):
            client = client_of(config, number)
            model = model_of(client)
            named = adapter_parameters(model)
            assert adapter_shapes(client) == {n: tuple(p.shape) for n, p in named.items()}
            counts = parameter_counts(client)
            total = sum(p.numel() for _, p in model.named_parameters())
            assert counts.base == total - sum(p.numel() for p in named.values())
            for kind, ours in (
                ("generalist", counts.generalist),
                ("specialist", counts.specialists),
            ):
                assert ours == sum(p.numel() for n, p in named.items() if f".{kind}_" in n)
            assert counts.router == sum(p.numel() for n, p in named.items() if is_router(n))
