"""Models with native experts: what cannot be done with these, and the way back."""

import copy
from dataclasses import replace

import pytest
import torch
import transformers as tf

import comigs
from comigs.backbone.stored import store
from comigs.config.experts import ExpertsConfig
from comigs.export.client import export_client
from comigs.mixture.adapters import adapter_parameters
from comigs.use.generate import open_client
from tests.folders import save
from tests.mixture.test_more_families import EXPERTS, IDS, MOE, MORE, filled

pytest_plugins = ("tests.fixtures",)


def test_native_experts_that_cannot_take_lora_are_refused_at_the_start(tree, tmp_path):
    with pytest.raises(
        comigs.BadInput, match=r"gpt2 models have no native .* for granitemoe, mixtral"
    ):
        comigs.run(tree | {"experts": {"native": True}}, out=tmp_path / "run")
    partly = tf.AutoModelForCausalLM.from_config(tf.Qwen3MoeConfig(**MOE, mlp_only_layers=[1]))
    with pytest.raises(comigs.BadInput, match=r"only 1 of 2 layers have native experts"):
        comigs.add_experts(partly, ExpertsConfig(native=True))


def test_a_base_with_lora_on_its_native_experts_comes_back_as_it_was():
    base = tf.AutoModelForCausalLM.from_config(copy.deepcopy(MORE["granitemoe"])).eval()
    with torch.no_grad():
        want = base(IDS).logits
        model = filled(comigs.add_experts(base, replace(EXPERTS, native=True)), 0)
        assert not torch.allclose(model(IDS).logits, want, atol=1e-3)
        with model.disable_adapter():
            torch.testing.assert_close(model(IDS).logits, want)
        again = model.unload()
    assert torch.equal(again(IDS).logits, want)
    assert set(again.state_dict()) == set(
        tf.AutoModelForCausalLM.from_config(copy.deepcopy(MORE["granitemoe"])).state_dict()
    )


def test_native_experts_are_not_quantised():
    base = tf.AutoModelForCausalLM.from_config(copy.deepcopy(MORE["mixtral"]))
    with pytest.raises(comigs.BadInput, match=r"is int8; the native experts of mixtral models"):
        store(base, "int8", "float32")


def test_routers_of_the_base_are_none_of_ours():
    base = tf.AutoModelForCausalLM.from_config(copy.deepcopy(MORE["llama4_text"]))
    model = comigs.add_experts(base, EXPERTS)
    assert [name for name in adapter_parameters(model) if ".router." in name] == [
        "model.layers.0.feed_forward.router.weight",
        "model.layers.1.feed_forward.shared_expert.router.weight",
    ]


def test_a_run_on_native_experts_is_taken_away_as_the_shared_expert_merged(tree, tmp_path):
    model = save(tf.OlmoeForCausalLM(tf.OlmoeConfig(**MOE | {"vocab_size": 2048})), tmp_path / "b")
    config = tree | {"model": {"name": str(model)}, "rounds": 1, "local_steps": 1}
    config["experts"] = {"native": True, "rank": 2}
    comigs.run(config, out=tmp_path / "run")
    for form in ("peft", "transformers", "merged"):
        with pytest.raises(comigs.BadInput, match=rf"--as {form} cannot hold .* merged"):
            export_client(tmp_path / "run", 1, tmp_path / "to", form)
    export_client(tmp_path / "run", 1, tmp_path / "to", "merged", generalist_only=True)
    merged = tf.AutoModelForCausalLM.from_pretrained(tmp_path / "to")
    _, own = open_client(tmp_path / "run", 1)
    with torch.no_grad(), comigs.using_expert(own, "generalist_0"):
        want = own(IDS).logits
        base = tf.AutoModelForCausalLM.from_pretrained(model)
        assert not torch.allclose(base(IDS).logits, want, atol=1e-4)
        torch.testing.assert_close(merged(IDS).logits, want, rtol=1e-4, atol=1e-5)
