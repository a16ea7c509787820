"""Metrics of a client in a round: their values, and that only what was asked for is told."""

import itertools
import math

import pytest
import torch

import comigs
from comigs.config.load import load_config
from comigs.data.windows import marked, packed
from comigs.evaluation.metrics import find_metric, measured
from comigs.messages.fields import metric_of
from comigs.messages.reply import Broken, check_asked, read_reported
from comigs.mixture.adapters import init_adapters
from comigs.mixture.experts import expert_blocks
from tests.backbone.test_families import base_of, mixture_of
from tests.helpers import events

pytest_plugins = ("tests.fixtures",)

TOKENS = torch.randint(1, 64, (61,), generator=torch.Generator().manual_seed(5))
NAMES = ("generalist_share", "router_entropy")


def client_config(**settings):
    return load_config({"data": {"seq_len": 20}, **settings}).for_client(0)


def routed(logits, top_k=2, **layout):
    """A mixture whose routers give every token these logits times the sign of its first number."""
    model = mixture_of(base_of("llama"), top_k=top_k, rank=2, **layout)
    init_adapters(model, 0, 0, lambda name: False)
    for block in expert_blocks(model):
        block.router.weight.data.zero_()
        block.router.register_forward_hook(
            lambda module, inputs, out: torch.tensor(logits).expand_as(out)
        )
    return model


def test_share_and_entropy_of_gates_that_are_known():
    model = routed([math.log(3.0), 0.0], specialists=1)  # gates 3/4 and 1/4
    found = measured(NAMES, model, TOKENS, client_config())
    assert found["generalist_share"] == pytest.approx(0.75)
    entropy = 0.75 * math.log(4 / 3) + 0.25 * math.log(4)
    assert found["router_entropy"] == pytest.approx(entropy)


def test_routing_is_told_layer_by_layer():
    model = routed([0.0, math.log(4.0), 0.0 - 9], top_k=2, specialists=2)  # 1/5 and 4/5
    found = measured(["routing"], model, TOKENS, client_config())
    assert len(found) == 2 * 5  # layers; two numbers and three experts
    assert found["routing/1/generalist_share"] == pytest.approx(0.2)
    assert found["routing/2/load/generalist_0"] == pytest.approx(0.2)
    assert found["routing/2/load/specialist_0"] == pytest.approx(0.8)
    assert found["routing/2/load/specialist_1"] == 0
    entropy = measured(["router_entropy"], model, TOKENS, client_config())["router_entropy"]
    assert found["routing/1/entropy"] == pytest.approx(entropy)


def test_the_share_is_of_the_gates_that_were_chosen():
    model = routed([0.0, math.log(4.0), 0.0 - 9], top_k=2, specialists=2)  # 1/5 and 4/5
    assert measured(NAMES, model, TOKENS, client_config())["generalist_share"] == pytest.approx(0.2)


def test_without_a_router_the_share_is_that_of_the_experts():
    model = mixture_of(base_of("llama"), specialists=3, routed=False, rank=2)
    found = measured(NAMES, model, TOKENS, client_config())
    assert found == {"generalist_share": pytest.approx(0.25), "router_entropy": 0.0}


def test_filling_behind_chats_is_not_measured():
    model = mixture_of(base_of("llama"), specialists=1, rank=2)
    init_adapters(model, 0, 0, lambda name: False)
    examples = [marked(TOKENS[:n], torch.ones(n, dtype=torch.bool)) for n in (5, 9, 3)]
    short, long = (
        measured(NAMES, model, packed(examples, length), client_config()) for length in (18, 21)
    )
    alone = [measured(NAMES, model, packed([e], len(e) + 1), client_config()) for e in examples]
    for name in NAMES:
        assert long[name] == pytest.approx(short[name], rel=1e-5)
        wanted = sum(len(e) * each[name] for e, each in zip(examples, alone, strict=True)) / 17
        assert short[name] == pytest.approx(wanted, rel=1e-5)


def test_a_metric_weighs_every_token_alike_however_long_the_last_window_is():
    model = mixture_of(base_of("llama"), specialists=1, rank=2)
    init_adapters(model, 0, 0, lambda name: False)
    share = find_metric("generalist_share")
    parts = [share(model, TOKENS[a:b], client_config()) for a, b in ((0, 21), (20, 41), (40, 61))]
    cut = share(model, TOKENS[:50], client_config())
    last = share(model, TOKENS[40:50], client_config())
    assert share(model, TOKENS, client_config()) == pytest.approx(sum(parts) / 3)
    assert cut == pytest.approx((20 * parts[0] + 20 * parts[1] + 9 * last) / 49)


@torch.no_grad()
def test_token_accuracy_is_the_share_of_first_choices(monkeypatch):
    model = mixture_of(base_of("llama"), specialists=1, rank=2)
    init_adapters(model, 0, 0, lambda name: False)
    right = 0
    for start in range(0, 60, 20):
        part = TOKENS[start : start + 21]
        right += int((model(part[None, :-1]).logits[0].argmax(-1) == part[1:]).sum())
    monkeypatch.setattr("comigs.backbone.head.CHUNK", 64 * 3)  # three rows of logits at once
    accuracy = find_metric("token_accuracy")
    assert accuracy(model, TOKENS, client_config()) == pytest.approx(right / 60)
    chosen = model(TOKENS[None, :4]).logits[0].argmax(-1)
    for answer, wanted in ((chosen[3], 1.0), ((chosen[3] + 1) % 64, 0.0)):
        chat = torch.cat([TOKENS[:4], answer[None]])  # one token is learnt, four are read
        rows = packed([marked(chat, torch.tensor([False] * 4 + [True]))], 21)
        assert accuracy(model, rows, client_config()) == wanted


A, B = "up.lora_A.generalist_0.weight", "up.lora_B.generalist_0.weight"


def test_the_size_and_the_angle_of_updates_are_means_over_rows_and_steps():
    updates = find_metric("updates").watch()
    steps = [  # A turns by a right angle and grows; B begins at 0, then turns by a half circle
        {A: torch.tensor([[3.0, 0.0]]), B: torch.zeros(2, 1), "up.router.weight": torch.ones(1, 1)},
        {A: torch.tensor([[0.0, 4.0]]), B: torch.tensor([[1.0], [2.0]])},
        {A: torch.tensor([[0.0, 5.0]]), B: torch.tensor([[-1.0], [2.0]])},
    ]
    for before, after in itertools.pairwise(steps):
        updates.before(before)
        updates.after(after)
    assert updates.told() == {
        "A/size": pytest.approx((5 + 1) / 2),
        "A/angle": pytest.approx(math.pi / 4),
        "B/size": pytest.approx((1 + 2 + 2 + 0) / 4),
        "B/angle": pytest.approx(math.pi / 2),
    }


def test_lionas_updates_have_one_length_and_an_unasked_run_is_as_before(tree, tmp_path):
    """Rows of B are as long as the rank, 2, and every entry of theirs steps alike."""
    train = {"optimizer": "liona", "lr": 0.01, "schedule": "constant", "weight_decay": 0.0}
    tree = tree | {"train": train, "log": tree["log"] | {"eval_every": 0}}
    plain = comigs.run(tree, out=tmp_path / "plain").folder
    tree["log"] = tree["log"] | {"metrics": ["updates"]}
    asked = comigs.run(tree, out=tmp_path / "asked").folder
    told = [event["metrics"] for event in events(asked, "client")]
    assert {name for one in told for name in one} == {
        f"updates/{kind}/{what}" for kind in "AB" for what in ("size", "angle")
    }
    size = 0.01 * math.sqrt(0.1 / 1.9) * math.sqrt(2)
    assert [one["updates/B/size"] for one in told] == pytest.approx([size] * len(told), rel=1e-3)
    assert "metrics" not in events(plain, "client")[0]
    losses = [[event["loss"] for event in events(run, "client")] for run in (plain, asked)]
    assert losses[0] == losses[1]


def test_what_is_asked_for_is_measured_on_the_test_text_too(tree, tmp_path):
    tree = tree | {"log": {"metrics": ["token_accuracy"]}, "rounds": 1}
    for method in ("comigs", "pretrained"):
        log = {"metrics": ["token_accuracy", "generalist_share"]}
        for row in comigs.run(tree | {"log": log}, out=tmp_path / method, method=method).table:
            assert 0 <= row["metrics"]["token_accuracy"] <= 1
            assert row["bits_per_byte"] > 0
            assert ("generalist_share" in row["metrics"]) == (method == "comigs")


def test_an_unknown_metric_is_refused_with_the_names_there_are(tree):
    with pytest.raises(comigs.BadInput, match=r"log\.metrics is 'gate'; expected generalist_share"):
        comigs.run(tree | {"log": {"metrics": ["gate"]}})


@pytest.mark.slow
def test_metrics_are_told_per_client_and_as_a_mean_and_change_no_number(tree, finished, tmp_path):
    plain = events(finished, "final")
    asked = [*NAMES, "routing"]
    log = tree.get("log", {}) | {"metrics": asked, "eval_every": 1}
    result = comigs.run(tree | {"log": log}, out=tmp_path / "run")
    told = events(result.folder, "client")
    assert told and all(set(map(metric_of, event["metrics"])) == set(asked) for event in told)
    for done in events(result.folder, "round"):
        mine = [e["metrics"] for e in told if e["round"] == done["round"]]
        for name in (*NAMES, "routing/1/generalist_share"):
            assert done["metrics"][name] == pytest.approx(sum(m[name] for m in mine) / len(mine))
    key = "after"
    assert [row[key] for row in result.table] == [row[key] for row in plain]
    assert "metrics" not in events(finished, "client")[0]


def test_a_metric_that_is_no_number_is_a_broken_reply():
    good = {
        "round": 1, "loss": 1.0, "tokens": 1, "router_tokens": 0, "num-examples": 1,
        "seconds": 1.0, "train_seconds": 1.0, "eval_seconds": 1.0,
    }  # fmt: skip
    assert read_reported(good | {"metric.a": 0.5}).metrics == {"a": 0.5}
    assert read_reported(good).metrics is None
    with pytest.raises(Broken, match=r"metrics\.a"):
        read_reported(good | {"metric.a": [0.5]})


def test_a_part_of_a_metric_is_told_only_with_the_metric():
    check_asked({"routing/1/entropy": 0.5, "peak": 1.0}, ["routing", "peak"])
    with pytest.raises(Broken, match="gate"):
        check_asked({"gate/1": 0.5}, ["routing"])
