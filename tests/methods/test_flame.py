"""FLAME: what is counted, how experts are averaged by it, and the factor of a partial layer."""

import copy

import pytest
import torch

import comigs
from comigs.aggregation.activations import AGGREGATOR
from comigs.config.experts import ExpertsConfig
from comigs.errors import BadInput
from comigs.messages.fields import ACTIVATIONS
from comigs.methods.flame import METHOD, layout
from comigs.mixture.experts import expert_blocks, routings
from comigs.store.state import read_state
from tests.costs.test_traffic import assert_bytes
from tests.helpers import assert_same_numbers, events, numbers, run_and_resumed
from tests.methods.stepping import plain_client, play

pytest_plugins = ("tests.fixtures",)
UNEQUAL = {"generalists": 2, "specialists": 1, "rank": 2, "top_k": [1, 2, 3]}
MLP = "h.0.mlp"


def update(value, *shares):
    tensors = {
        f"{MLP}.c_fc.lora_A.generalist_0.weight": torch.full((1, 2), value),
        f"{MLP}.c_fc.lora_A.generalist_1.weight": torch.full((1, 2), 2 * value),
        "h.0.attn.c_attn.lora_A.generalist_0.weight": torch.full((1, 2), 3 * value),
        f"{MLP}.router.weight": torch.full((2, 2), 4 * value),
    }
    return tensors | ({f"{ACTIVATIONS}{MLP}": torch.tensor(shares)} if shares else {})


def combined(*updates, weights=(1.0, 1.0)):
    by_client = dict(enumerate(updates))
    made = AGGREGATOR.combine(by_client, dict(enumerate(weights)), float, {})
    return [tensor.flatten()[0].item() for _, tensor in sorted(made.items())]


def test_experts_are_averaged_by_how_often_they_were_chosen():
    """Sorted: attention, expert 0, expert 1, router."""
    found = combined(update(1.0, 1.0, 0.25), update(5.0, 0.0, 0.75))
    assert found == [9.0, 1.0, 8.0, 12.0]  # (3 + 15)/2, 1, (0.25*2 + 0.75*10), (4 + 20)/2
    found = combined(update(1.0, 0.5, 0.5), update(5.0, 0.5, 0.5), weights=(3.0, 1.0))
    assert found == [6.0, 2.0, 4.0, 8.0]
    assert combined(update(1.0, 0.0, 1.0), update(5.0, 0.0, 1.0))[1] == 3.0  # nobody: plainly


def test_where_a_mixture_is_on_attention_the_other_linears_are_averaged_plainly():
    def of(value, share):
        names = ("dense.lora_A.generalist_0", "dense.lora_A.generalist_1", "q.lora_A.generalist_0")
        tensors = {f"h.1.attn.{name}.weight": torch.full((1, 2), value) for name in names}
        shares = {"h.1.attn.gates": [share, 1 - share], "h.10.attn.gates": [1.0, 0.0]}
        return tensors | {f"{ACTIVATIONS}{n}": torch.tensor(each) for n, each in shares.items()}

    assert combined(of(1.0, 1.0), of(5.0, 0.0)) == [1.0, 5.0, 3.0]


def test_no_client_weighs_more_than_one_whose_every_token_chose_the_expert():
    honest = combined(update(1.0, 1.0, 1.0), update(5.0, 1.0, 1.0))
    assert combined(update(1.0, 1.0, 1.0), update(5.0, 1e9, 7.0)) == honest
    assert combined(update(1.0, 1.0, 1.0), update(5.0, -3.0, 1.0))[1] == 1.0
    assert combined(update(1.0, 1.0, 1.0), update(5.0))[1:3] == [1.0, 2.0]  # tells nothing
    assert combined(update(1.0, 1.0, 1.0), update(5.0, 1.0))[2] == 2.0  # tells too little


def test_a_factor_is_there_where_a_part_is_active_alone():
    assert layout(ExpertsConfig(2, 1, top_k=2)).router == "rescaled"
    assert layout(ExpertsConfig(2, 1, top_k=3)).router == "linear"
    assert layout(ExpertsConfig(1, 0, top_k=2)).router == "linear"
    assert layout(ExpertsConfig(2, 1, top_k=2)).generalists == 3
    assert not METHOD.shares(f"{MLP}.router.gain") and METHOD.shares(f"{MLP}.router.weight")


@pytest.mark.parametrize("top_k", [1, 2])
def test_a_layer_puts_out_its_factor_times_its_mixture(tree, top_k):
    from comigs.federation.clients import model_of
    from comigs.mixture.adapters import init_adapters

    client = plain_client(tree, "flame", experts=UNEQUAL | {"top_k": top_k})
    model = model_of(client)
    init_adapters(model, 0, 0)
    block = copy.deepcopy(expert_blocks(model)[0])  # its frozen weights are everybody's
    x = torch.randn(5, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        block.c_fc.base_layer.bias.normal_()
        block.c_proj.base_layer.bias.normal_()
        for name, p in block.named_parameters():
            if ".lora_B." in name:
                p.normal_()
        plain = block(x)
        block.router.gain.fill_(0.5)
        torch.testing.assert_close(block(x), 1.5 * plain, rtol=1e-4, atol=1e-5)
        block.router.gain.fill_(0.0)
        assert torch.equal(block(x), plain)


def test_what_is_sent_beside_the_tensors_is_what_tokens_chose(tree, tmp_path):
    """One step of one batch: the shares are those of a pass of the model as it began."""
    from comigs.federation.clients import data_of, model_of
    from comigs.mixture.adapters import load_adapter_tensors
    from comigs.training.trainee import Learner, Trainee

    experts = UNEQUAL | {"top_k": 2}
    client = plain_client(tree, "flame", experts=experts, local_steps=1)
    start, sent, _ = play(client, tmp_path, 1, 0, {})
    model, data = model_of(client, slot=3), data_of(client)
    load_adapter_tensors(model, start)
    learner = Learner(Trainee(client, model, data.train, data.valid, {}, 0), 1)
    windows = learner.draw(data.train, learner.batches)
    model(input_ids=windows[:, :-1])
    shares = {name: t for name, t in sent.items() if name.startswith(ACTIVATIONS)}
    assert len(shares) == len(routings(model)) == 2
    for (name, share), routing in zip(sorted(shares.items()), routings(model), strict=True):
        assert name.endswith(".mlp") and share.sum() == pytest.approx(2)
        expected = torch.stack([(routing.chosen == e).any(-1).float().mean() for e in range(3)])
        torch.testing.assert_close(share, expected)
    gains = [name for name in start if name.endswith(".gain")]
    assert len(gains) == 2 and all(not start[n].any() and sent[n].any() for n in gains)


@pytest.fixture(scope="module")
def unequal(tree):
    return tree | {"experts": UNEQUAL, "method": "flame"}


@pytest.fixture(scope="module")
def folder(unequal, tmp_path_factory):
    """Of a run of devices with k = 1, 2 and 3 of 3 experts, also cut off and resumed."""
    whole, resumed = run_and_resumed(unequal, tmp_path_factory.mktemp("flame"))
    assert_same_numbers(resumed, whole)
    return whole


def test_factors_and_nothing_else_stay_and_activations_never_come_back(folder):
    shared = read_state(folder / "server", 3)[0]["shared"]
    assert not any(name.startswith(ACTIVATIONS) or name.endswith(".gain") for name in shared)
    for client, gains in enumerate((2, 2, 0)):
        mine = read_state(folder / "clients" / str(client), 3)[0]["tensors"]
        own = mine.keys() - shared.keys()
        assert len(own) == gains and all(name.endswith(".gain") for name in own)
        assert all(mine[name].any() for name in own)
    assert not events(folder, "failure")
    assert_bytes(folder)


def test_what_rounding_takes_off_a_share_of_tokens_is_not_added_to_the_next_round_s(
    unequal, tmp_path
):
    folder = comigs.run(unequal | {"payload": {"codec": "bf16"}, "rounds": 1}, out=tmp_path).folder
    left = read_state(folder / "clients" / "0", 1)[0]["unsent"]
    assert left and not any(name.startswith(ACTIVATIONS) for name in left)


def test_devices_of_one_k_share_a_pass_and_others_do_not(unequal, tmp_path):
    """With 2, 2 and 3 of 3 experts, together and alone."""
    config = unequal | {"experts": UNEQUAL | {"top_k": [2, 2, 3]}, "rounds": 2}
    runs = [
        comigs.run(config | {"engine": {"fuse": fuse}}, out=tmp_path / str(fuse)).folder
        for fuse in (1, 3)
    ]
    for a, b in zip(*(events(run, "final") for run in runs), strict=True):
        assert a["after"] == pytest.approx(b["after"], rel=1e-5)
    assert numbers(runs[0])[0].keys() == numbers(runs[1])[0].keys()


def test_all_experts_everywhere_is_the_plain_mean(tree, tmp_path):
    experts = {"generalists": 2, "specialists": 0, "rank": 2}
    tests = []
    for method in ("flame", "fedavg-moe"):
        config = tree | {"experts": experts, "method": method, "rounds": 2}
        found = events(comigs.run(config, out=tmp_path / method).folder, "final")
        tests.append([row["after"] for row in found])
    assert tests[0] == tests[1]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"experts": {"rank": 2, "router": "mlp"}}, "flame.*experts.router must be linear"),
        ({"experts": {"rank": 2}, "router": {"scope": "global"}}, "flame.*router.scope must be"),
        ({"experts": {"specialists": [0, 1, 3], "rank": 2}}, "flame.*same number of experts"),
        ({"privacy": {"secure": "secagg"}}, r"privacy\.secure.*needs a method that averages"),
        ({"privacy": {"mechanism": "client"}}, r"privacy\.mechanism.*needs a method that averages"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(tree, tmp_path, change, why):
    with pytest.raises(BadInput, match=why) as refused:
        comigs.run(tree | {"method": "flame", "experts": {"rank": 2}} | change, out=tmp_path)
    assert "\n" not in str(refused.value)
