"""How routers decide: by temperature, by the prefix of a text, once for all layers, or in a row."""

import copy
import json
from dataclasses import replace

import pytest
import torch
from torch import nn

import comigs
from comigs.backbone.base import load_tokenizer
from comigs.config.experts import PLAIN, Routes
from comigs.config.load import config_hash, load_config
from comigs.config.train import TrainConfig
from comigs.data.windows import BEGINS, read_marks
from comigs.evaluation.perplexity import batch_loss
from comigs.export.standalone import write_standalone
from comigs.federation.clients import model_of
from comigs.mixture.adapters import adapter_parameters, adapter_tensors
from comigs.mixture.experts import balance_loss, expert_blocks
from comigs.mixture.router import prefix_means
from comigs.talk.alone import Alone, batch_of, speakers
from comigs.talk.voices import Voice, Voices
from tests.backbone.test_families import base_of
from tests.helpers import assert_same_numbers, client_of, events, run_and_resumed
from tests.mixture.test_forward import IDS, gradients
from tests.mixture.test_fused import CONFIG, assert_trained_alike
from tests.talk.test_batch import all_of, prompt

pytest_plugins = ("tests.fixtures",)

SEQUENCE, GLOBAL = Routes(unit="sequence"), Routes(scope="global")
WAYS = [("linear", SEQUENCE), ("linear", GLOBAL), ("rmoe", PLAIN), ("rmoe", SEQUENCE)]


def routed(kind="linear", routes=PLAIN, family="llama", top_k=2, base=None, **more):
    """A mixture of three experts with tensors that are all drawn."""
    experts = comigs.ExpertsConfig(specialists=2, top_k=top_k, rank=4, router=kind, **more)
    model = comigs.add_experts(base or base_of(family), experts, routes=routes)
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in adapter_parameters(model).values():
            parameter.copy_(torch.randn(parameter.shape, generator=rng) * 0.3)
    return model


@torch.no_grad()
def read(model, ids, **more):
    """What each layer's router read (rows x L x d), how it routed, and the model's logits."""
    heard = []
    hooks = [
        block.register_forward_pre_hook(lambda block, given: heard.append(given[0]))
        for block in expert_blocks(model)
    ]
    logits = model(input_ids=ids, use_cache=False, **more).logits
    for hook in hooks:
        hook.remove()
    return heard, [block.routing for block in expert_blocks(model)], logits


def test_defaults_leave_names_of_results_alone():
    usual = config_hash(load_config("quickstart"))
    settings = ["router.unit=token", "router.scope=layer", "router.temperature=1.0"]
    assert config_hash(load_config("quickstart", settings)) == usual
    for change in ("router.unit=sequence", "router.scope=global", "router.temperature=2.0"):
        assert config_hash(load_config("quickstart", [change])) != usual


@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_logits_are_divided_by_the_temperature(top_k):
    model = routed(routes=Routes(temperature=2.5), top_k=top_k)
    heard, routings, _ = read(model, IDS)
    for block, x, routing in zip(expert_blocks(model), heard, routings, strict=True):
        logits = x.flatten(0, 1) @ block.router.weight.T / 2.5
        torch.testing.assert_close(routing.logits, logits)
        chosen = logits.topk(top_k).indices
        weights = logits.gather(1, chosen).softmax(1)
        if top_k == 1:
            weights = logits.softmax(1).gather(1, chosen)
        gates = torch.zeros_like(logits).scatter(1, chosen, weights)
        torch.testing.assert_close(
            torch.zeros_like(logits).scatter(1, routing.chosen, routing.gates), gates
        )


def test_two_layers_with_a_gelu():
    model = routed("mlp")
    heard, routings, _ = read(model, IDS)
    for block, x, routing in zip(expert_blocks(model), heard, routings, strict=True):
        first, second = block.router[0].weight, block.router[2].weight
        assert (first.shape, second.shape) == ((16, 32), (3, 16))
        logits = nn.functional.gelu(x.flatten(0, 1) @ first.T) @ second.T
        torch.testing.assert_close(routing.logits, logits)


def test_one_decision_for_all_layers_is_that_of_the_first():
    model = routed(routes=GLOBAL)
    names = [name for name in adapter_parameters(model) if ".router." in name]
    assert names == ["model.layers.0.mlp.router.weight"]
    _, (first, second), logits = read(model, IDS)
    assert second is first
    twin = routed()
    twin.load_state_dict(model.state_dict(), strict=False)
    one, two = expert_blocks(twin)
    two.router = nn.Linear(32, 3, bias=False)
    two.router.forward = lambda x: one.routing.logits
    torch.testing.assert_close(read(twin, IDS)[2], logits)
    torch.testing.assert_close(balance_loss(model, 0.3), balance_loss(twin, 0.3))


def test_routers_in_a_row_are_torch_s_gru_cell_over_the_layers():
    model = routed("rmoe", base=base_of("llama", num_hidden_layers=3))
    gru = expert_blocks(model)[0].router.gru
    assert sum(".gru." in name for name in adapter_parameters(model)) == 2
    cell = nn.GRUCell(32, 32, bias=False)
    with torch.no_grad():
        cell.weight_ih.copy_(gru.inputs.weight)
        cell.weight_hh.copy_(gru.states.weight)
        heard, routings, _ = read(model, IDS)
        state = torch.zeros(IDS.numel(), 32)
        for block, x, routing in zip(expert_blocks(model), heard, routings, strict=True):
            state = cell(x.flatten(0, 1) @ block.router.project.weight.T, state)
            torch.testing.assert_close(routing.logits, state @ block.router.out.weight.T)


def test_the_means_of_two_examples_in_a_row_by_hand():
    logits = torch.tensor([[2.0], [4.0], [6.0], [10.0], [18.0]])
    positions = torch.tensor([[0, 1, 2, 0, 1]])
    assert prefix_means(logits, 5, None).flatten().tolist() == [2, 3, 4, 5.5, 8]
    assert prefix_means(logits, 5, positions).flatten().tolist() == [2, 3, 4, 10, 14]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_prefix_is_routed_by_the_mean_of_what_its_tokens_gave(family):
    model = routed(routes=replace(SEQUENCE, temperature=0.5), family=family)
    heard, routings, _ = read(model, IDS)
    for block, x, routing in zip(expert_blocks(model), heard, routings, strict=True):
        means = torch.stack([x[:, : i + 1].mean(1) for i in range(x.shape[1])], 1)
        wanted = (means @ block.router.weight.T / 0.5).flatten(0, 1)
        torch.testing.assert_close(routing.logits, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind, routes", WAYS)
@pytest.mark.parametrize("top_k", [1, 2])
def test_no_output_moves_when_a_later_token_does(kind, routes, top_k):
    model = routed(kind, routes, top_k=top_k)
    for at in (5, 16):
        other = IDS.clone()
        other[:, at] = (other[:, at] + 7) % 60 + 1
        before, after = (read(model, ids)[2] for ids in (IDS, other))
        torch.testing.assert_close(after[:, :at], before[:, :at], rtol=1e-5, atol=1e-6)
        assert not torch.allclose(after[:, at:], before[:, at:], atol=1e-3)


@pytest.mark.parametrize("kind, routes", WAYS)
def test_examples_of_one_row_do_not_see_each_other(kind, routes):
    examples = [torch.arange(3, 9), torch.arange(20, 25)]
    parts = [torch.cat([-1 - e[:1] - BEGINS, e[1:]]) for e in examples]
    model = routed(kind, routes)
    with torch.no_grad():
        row = batch_loss(model, read_marks(torch.cat(parts)[None]), "none")
        each = [batch_loss(model, read_marks(part[None]), "none") for part in parts]
    torch.testing.assert_close(row[:5], each[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(row[6:], each[1], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("kind, routes", [*WAYS, ("mlp", PLAIN)])
def test_recomputed_layers_give_the_very_same_gradients(kind, routes):
    model = routed(kind, routes)
    plain = gradients(model, IDS, TrainConfig())
    again = gradients(model, IDS, TrainConfig(checkpointing=True))
    assert torch.equal(again[0], plain[0])
    for name, gradient in plain[2].items():
        torch.testing.assert_close(again[2][name], gradient, msg=name)
    assert any(g.abs().sum() > 0 for n, g in plain[2].items() if ".router." in n)
    copy.deepcopy(model)  # nothing of a pass is left in it


@pytest.mark.slow
@pytest.mark.parametrize("kind, routes", [*WAYS[:2], WAYS[3]])
def test_clients_in_one_pass_train_as_each_alone(kind, routes):
    experts = comigs.ExpertsConfig(specialists=2, top_k=2, rank=4, router=kind)
    router = replace(CONFIG.router, unit=routes.unit, scope=routes.scope, temperature=2.0)
    config = replace(CONFIG, router=router, micro_batch_size=2)
    assert_trained_alike("gpt2", experts, config)


@pytest.mark.parametrize("kind, routes", WAYS)
def test_who_writes_is_the_model_that_reads_all_of_it(kind, routes):
    base = base_of("gpt2", vocab_size=512)
    models = [routed(kind, routes, base=copy.deepcopy(base))]
    voices = speakers([*map(Voice, models)])
    assert isinstance(voices, Alone)
    batch = batch_of(voices, load_tokenizer("comigs-tiny"))
    [(row, _)] = batch.join([prompt(0, 5)])
    all_of(batch)
    with torch.no_grad():
        for at in range(5, len(row.ids)):
            best = models[0](input_ids=torch.tensor([row.ids[:at]]), use_cache=False).logits[0, -1]
            assert int(best.argmax()) == row.ids[at]


@torch.no_grad()
def test_voices_in_one_pass_keep_their_temperature():
    base = base_of("llama")
    models = [
        routed(routes=Routes(temperature=t), base=copy.deepcopy(base), top_k=k)
        for t, k in ((3.0, 2), (0.5, 2), (3.0, 1))
    ]
    for some in ([0, 1], [0, 1, 2]):
        voices = speakers([Voice(models[i]) for i in some])
        assert isinstance(voices, Voices)
        voices.seat(range(len(some)))
        logits = voices.model(input_ids=IDS[: len(some)]).logits
        own = [models[i](input_ids=IDS[i : i + 1]).logits for i in some]
        torch.testing.assert_close(logits, torch.cat(own), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_cache_does_not_know_a_prefix(family):
    model = routed(routes=SEQUENCE, family=family)
    with pytest.raises(comigs.BadInput, match=r"router\.unit is 'sequence'.*use_cache=False"):
        model.generate(input_ids=IDS[:1], max_new_tokens=3, do_sample=False)
    new = model.generate(input_ids=IDS[:1], max_new_tokens=3, do_sample=False, use_cache=False)
    assert new.shape[1] == IDS.shape[1] + 3
    with comigs.using_expert(model, "generalist_0"):  # nothing is routed
        model.generate(input_ids=IDS[:1], max_new_tokens=3, do_sample=False)


def test_one_decision_and_routers_in_a_row_do_not_go_together():
    settings = ["experts.router=rmoe", "router.scope=global"]
    with pytest.raises(comigs.BadInput, match=r"router\.scope is 'global'.*router\.scope=layer"):
        comigs.run("quickstart", settings)
    with pytest.raises(comigs.BadInput, match=r"router\.temperature is 0"):
        load_config("quickstart", ["router.temperature=0"])
    with pytest.raises(comigs.BadInput, match=r"temperature is 1e-40; .* 0\.001 to 1000"):
        load_config("quickstart", ["router.temperature=1e-40"])


@pytest.mark.parametrize("kind, routes", [("rmoe", replace(SEQUENCE, temperature=2.0)), WAYS[1]])
def test_it_is_saved_with_the_experts_and_comes_back(kind, routes, tmp_path):
    model = routed(kind, routes)
    comigs.save_experts(model, tmp_path)
    again = comigs.load_experts(base_of("llama"), tmp_path)
    assert adapter_tensors(again).keys() == adapter_tensors(model).keys()
    assert torch.equal(read(again, IDS)[2], read(model, IDS)[2])


@pytest.mark.parametrize(
    "key, value", {"unit": "sequence", "scope": "global", "temperature": 2}.items()
)
def test_a_folder_of_transformers_does_not_take_it_along(key, value, tmp_path):
    model = routed(routes=replace(PLAIN, **{key: value}))
    with pytest.raises(comigs.BadInput, match=rf"router\.{key} '?{value}.*--as peft"):
        write_standalone(client_of(load_config("quickstart")), model, tmp_path)


def test_a_folder_of_transformers_does_not_mind_routers_that_are_not_there(
    tree, tmp_path, monkeypatch
):
    changes = {"experts": {"specialists": 0, "router": "rmoe"}, "router": {"unit": "sequence"}}
    client = client_of(load_config(tree | changes))
    monkeypatch.setattr("comigs.export.standalone.write_weights", lambda *_: None)
    write_standalone(client, model_of(client), tmp_path)
    assert not json.loads((tmp_path / "config.json").read_text())["mixture"]["routed"]


@pytest.mark.slow
@pytest.mark.parametrize("kind, key", [("rmoe", "unit=sequence"), ("mlp", "scope=global")])
def test_a_run_learns_resumes_and_sends_no_router(kind, key, tree, finished, tmp_path):
    changed = tree | {
        "experts": {**tree.get("experts", {}), "router": kind},
        "router": {**tree.get("router", {}), **dict([key.split("=")])},
    }
    whole, resumed = run_and_resumed(changed, tmp_path)
    assert_same_numbers(whole, resumed)
    told, without = events(whole, "client"), events(finished, "client")
    assert sum(event["router_steps"] for event in told) > 0
    assert [e["bytes_up"] for e in told] == [e["bytes_up"] for e in without]
