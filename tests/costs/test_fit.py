"""What fits on a device: refused, or derived in the stated order of preference."""

from dataclasses import replace

import pytest

import comigs.costs.fit as fit
from comigs.app.suites.suite import as_here
from comigs.config.load import config_hash, load_config, read_config, write_config
from comigs.costs.memory import Memory
from comigs.errors import BadInput
from comigs.federation.run import resolve

FULL = {"experts": 4, "rank": 8, "dtype": "float32", "micro": 8}


def need(client):
    """A made-up predictor: 100 for a float32 base, 10 per expert and rank, 5 per sequence."""
    config = client.config
    base = {"float32": 100, "bfloat16": 50, "int8": 30, "nf4": 20}[config.model.dtype]
    adapters = 10 * (1 + config.experts.specialists) * config.experts.rank
    return Memory(base, adapters, 0, 0, 5 * config.micro_batch)


@pytest.fixture(autouse=True)
def predictor(monkeypatch):
    monkeypatch.setattr(fit, "peak_memory", need)


def resolved(memory, *overrides):
    mini = f"devices.define.mini={{like: board, memory: {memory}}}"
    names = "devices.profiles=[laptop,mini,laptop,mini]"
    most = ["experts.specialists=3", "devices.margin=0"]
    return fit.fit_devices(resolve(load_config(None, [mini, names, *most, *overrides])))


def derived(memory, *overrides):
    run = resolved(memory, "devices.fit=derive", *overrides)
    assert fit.fit_devices(run) == run
    own = run.client(1).config
    assert own == run.client(3).config
    assert run.client(0).config.experts.specialists == 3
    return own.experts.specialists, own.experts.rank, own.model.dtype, own.micro_batch


def test_what_fits_is_left_alone():
    config = resolved(460).config
    assert (config.experts.specialists, config.model.dtype) == (3, "float32")


def test_what_does_not_fit_is_refused_in_one_line_with_client_profile_need_and_have():
    with pytest.raises(BadInput) as caught:
        resolved(459)
    text = str(caught.value)
    assert "client 1 (fr) on mini needs" in text and "\n" not in text


def test_the_margin_stays_free():
    resolved(500, "devices.margin=0.08")
    with pytest.raises(BadInput, match="less devices"):
        resolved(500, "devices.margin=0.081")


def test_moments_of_layers_that_rest_must_fit_too(monkeypatch):
    monkeypatch.setattr(fit, "peak_memory", lambda client: replace(need(client), resting=40))
    assert resolved(500).config.experts.specialists == 3
    with pytest.raises(BadInput, match="on mini needs"):
        resolved(499)


@pytest.mark.parametrize(
    "memory, want",
    [
        (460, (3, 8, "float32", 8)),
        (459, (3, 8, "float32", 4)),
        (425, (3, 8, "float32", 1)),
        (424, (3, 8, "bfloat16", 8)),
        (375, (3, 8, "bfloat16", 1)),
        (374, (3, 8, "int8", 4)),
        (355, (3, 8, "int8", 1)),
        (354, (3, 8, "nf4", 2)),
        (344, (2, 8, "bfloat16", 8)),
        (105, (0, 8, "nf4", 1)),
    ],
)
def test_first_smaller_micro_batches_then_fewer_bits_then_fewer_specialists(memory, want):
    assert derived(memory) == want


def test_a_base_that_is_stored_in_few_bits_gets_no_more_of_them():
    assert derived(344, "model.dtype=int8")[:3] == (2, 8, "int8")
    assert derived(355, "model.dtype=int8") == (3, 8, "int8", 1)
    assert derived(350, "model.dtype=int8") == (3, 8, "nf4", 2)


def test_without_bitsandbytes_no_base_is_quantised(monkeypatch):
    monkeypatch.setattr(fit, "find_spec", lambda name: None)
    assert derived(374) == (2, 8, "float32", 4)
    assert derived(135) == (0, 8, "bfloat16", 1)


def test_what_is_compiled_is_not_quantised():
    assert derived(374, "train.compile=true") == (2, 8, "float32", 4)
    with pytest.raises(BadInput, match=r"train\.compile must be false with model\.dtype nf4"):
        load_config(None, ["train.compile=true", "model.dtype=[float32,nf4]"])


def test_a_lower_rank_is_the_last_resort_and_only_where_ranks_may_differ():
    assert derived(104, "method=hetlora") == (0, 4, "bfloat16", 2)
    assert derived(104, "method=local") == (0, 4, "bfloat16", 2)
    with pytest.raises(BadInput, match="at the very least"):
        derived(104)


def test_specialists_stay_where_the_method_needs_them_equal():
    with pytest.raises(BadInput, match="at the very least"):
        derived(344, "method=pcl")


def test_no_client_is_left_with_fewer_experts_than_top_k():
    assert derived(150, "experts.top_k=3")[0] == 0
    assert derived(344, "experts.top_k=4")[0] == 0


def test_micro_batches_stay_whole_for_the_first_order_router():
    assert derived(459, "router.grad=first_order") == (3, 8, "bfloat16", 8)


def test_of_very_many_clients_it_is_derived_once_for_each_profile(tmp_path, monkeypatch):
    names = [f"client_{number:05}" for number in range(12_000)]
    monkeypatch.setattr("comigs.federation.run.roster", lambda config: names)
    monkeypatch.setattr(fit, "roster", lambda config: names)
    asked = []
    monkeypatch.setattr(fit, "peak_memory", lambda client: asked.append(client) or need(client))
    monkeypatch.setattr(fit, "find_spec", lambda name: None)
    mini = "devices.define.mini={like: board, memory: 135}"
    most = ["devices.profiles={laptop: 1, mini: 2}", "devices.fit=derive", "devices.margin=0"]
    config = load_config(None, [mini, *most, "experts.specialists=3"])
    run = fit.fit_devices(resolve(config))
    assert len(asked) < 50
    one = {name: run.client(run.devices.index(name)).config for name in ("laptop", "mini")}
    assert (one["laptop"].experts.specialists, one["laptop"].model.dtype) == (3, "float32")
    mine = one["mini"]
    assert (mine.experts.specialists, mine.model.dtype, mine.micro_batch) == (0, "bfloat16", 1)
    assert list(run.config.devices.fitted) == ["mini"] and not run.config.per_client()
    assert len(run.kinds(len(names))) == 2
    assert fit.fit_devices(run) == run

    write_config(run.config, tmp_path)
    assert read_config(tmp_path) == run.config
    assert config_hash(run.config) != config_hash(config)


def test_the_name_of_a_suite_s_result_tells_what_was_derived(monkeypatch):
    fast = {"yes": lambda *a: "bfloat16", "no": lambda *a: "float32"}
    monkeypatch.setattr("comigs.costs.fit.find_spec", lambda name: None)
    settings = ["devices.define.mini={like: board, memory: 135}", "devices.margin=0"]
    settings += ["devices.profiles=[laptop,mini,laptop,mini]", "experts.specialists=3"]
    asked = load_config(None, [*settings, "devices.fit=derive"])
    named = {}
    for here, fastest in fast.items():
        monkeypatch.setattr(
            "comigs.federation.machine.fastest",
            lambda dtype, device, best=fastest: "float32" if dtype == "float32" else best(),
        )
        config = as_here(asked)
        assert config.experts.specialists == [3, 0, 3, 0]
        assert config.model.compute == ("float32" if here == "no" else ["float32", "bfloat16"] * 2)
        named[here] = config_hash(config)
    assert named["yes"] != named["no"]


def test_what_trains_in_one_place_or_not_at_all_need_not_fit():
    for method in ("centralized", "pretrained"):
        assert resolved(1, f"method={method}").config.experts.specialists == 3
