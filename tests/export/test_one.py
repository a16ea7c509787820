"""One expert alone is what it is in the mixture, in every form that other programs load."""

import copy
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from gguf import GGUFReader
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

import comigs
from comigs.backbone.base import load_tokenizer
from comigs.cli.commands import app
from comigs.export.llamacpp import FETCH, convert_model
from comigs.export.lora import write_lora
from comigs.export.one import write_one
from tests.backbone.test_families import base_of, mixture_of
from tests.folders import llama, save, set_config
from tests.helpers import ROOT

pytest_plugins = ("tests.fixtures",)
IDS = torch.arange(1, 41).view(2, 20)
FAKE = """
import sys
from pathlib import Path

class TextModel:
    def get_vocab_base_pre(self, tokenizer):
        raise NotImplementedError("not recognized")

def main():
    folder, _, to, *how = sys.argv[1:]
    assert (Path(folder) / "model.safetensors").is_file()
    Path(to).write_text(" ".join([TextModel().get_vocab_base_pre(None), *how]))
"""


@torch.no_grad()
def logits(model):
    return model.eval()(IDS).logits


def wanted(model, expert):
    with comigs.using_expert(model, expert):
        return logits(model)


@pytest.mark.parametrize("family", ["gpt2", "llama", "phi3"])
def test_a_lora_is_the_expert_alone_for_whoever_scales_by_alpha_over_rank(family, tmp_path):
    model = mixture_of(base_of(family), specialists=1, rank=4)
    for expert in ("generalist_0", "specialist_0"):
        place = tmp_path / expert
        write_lora(model, expert, place)
        plain = PeftModel.from_pretrained(base_of(family), place)
        torch.testing.assert_close(logits(plain), wanted(model, expert), rtol=0, atol=1e-5)
        settings = json.loads((place / "adapter_config.json").read_text())
        assert settings["r"] == settings["lora_alpha"] == 4 and not settings["use_rslora"]
        # what vLLM refuses
        for name in ("modules_to_save", "use_dora", "rank_pattern", "lora_bias"):
            assert not settings[name], name
        assert settings["bias"] == "none"
        linears = {name for name, _ in base_of(family).named_modules()}
        assert settings["target_modules"] == sorted(settings["target_modules"])
        assert linears.issuperset(settings["target_modules"])


def export(run, to, *options, llama_cpp=None):
    env = {"COMIGS_LLAMA_CPP": str(llama_cpp) if llama_cpp else None}
    options = ["--client", "1", *map(str, options)]
    return CliRunner(env=env).invoke(app, ["export", str(run), "--to", str(to), *options])


@pytest.mark.slow
def test_a_lora_comes_back_and_its_card_says_what_it_is_worth(finished, tmp_path):
    done = export(finished, tmp_path / "to", "--as", "lora", "--expert", "specialist_0")
    assert done.exit_code == 0, done.output
    model = comigs.open(finished).client(1).model()
    back = comigs.load(tmp_path / "to")
    torch.testing.assert_close(logits(back), wanted(model, "specialist_0"), rtol=0, atol=1e-5)
    card = (tmp_path / "to" / "README.md").read_text()
    assert "One expert alone is worth less" in card and "--max-lora-rank 8" in card
    done = export(finished, tmp_path / "merged", "--as", "merged", "--expert", "specialist_0")
    dense = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits(dense), wanted(model, "specialist_0"), rtol=0, atol=1e-5)


@pytest.fixture
def fake(tmp_path):
    """A folder with converters that tell what they were given."""
    place = tmp_path / "fake"
    place.mkdir()
    (place / "convert_hf_to_gguf.py").write_text(FAKE)
    (place / "convert_lora_to_gguf.py").write_text("raise SystemExit('Model is not supported')")
    return place


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--as", "lora"], "a mixture of 2: --as transformers has all of it, --expert takes one"),
        (["--as", "lora", "--expert", "special"], "'special'; this client has generalist_0, spec"),
        (["--expert", "specialist_0"], "--as peft has them all"),
        (["--as", "lora", "--expert", "x", "--generalist-only"], "give one of them"),
        (["--as", "gguf", "--generalist-only"], "pip download"),
        (["--as", "gguf", "--generalist-only", "--llama-cpp", "."], "no convert_hf_to_gguf.py in"),
    ],
)
def test_what_cannot_be_had_is_one_line(finished, tmp_path, options, words, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = export(finished, tmp_path / "to", *options)
    assert done.exit_code == 2 and words in done.output and done.output.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_llama_cpp_is_told_how_an_unknown_tokenizer_splits_text(finished, tmp_path, fake):
    to = tmp_path / "to"
    done = export(finished, to, "--as", "gguf", "--expert", "specialist_0", llama_cpp=fake)
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in to.iterdir()) == ["README.md", "model.gguf"]
    assert (to / "model.gguf").read_text() == "gpt-2 --outtype f32"
    assert "library_name: llama.cpp" in (to / "README.md").read_text()


def test_what_the_converter_refuses_is_one_line_and_leaves_nothing(
    finished, tmp_path, fake, tiny_model
):
    to = tmp_path / "to"
    done = export(finished, to, "--as", "lora-gguf", "--expert", "specialist_0", llama_cpp=fake)
    assert done.exit_code == 1 and "refused it: Model is not supported\n" in done.output
    assert list(tmp_path.iterdir()) == [fake]

    other = tmp_path / "other"  # a tokenizer that changes text before it splits it
    AutoModelForCausalLM.from_pretrained(tiny_model).save_pretrained(other)
    told = json.loads((tiny_model / "tokenizer.json").read_text())
    (other / "tokenizer.json").write_text(json.dumps(told | {"normalizer": {"type": "NFC"}}))
    with pytest.raises(comigs.ComigsError, match="NotImplementedError: not recognized"):
        convert_model(fake, other, tmp_path / "model.gguf", "float32")


@pytest.fixture(scope="module")
def llama_cpp():
    """llama.cpp's sources, where somebody has fetched them as docs/export.md says."""
    if found := os.environ.get("COMIGS_LLAMA_CPP"):
        return Path(found)
    pytest.skip("COMIGS_LLAMA_CPP names no folder with llama.cpp's converters")


def test_the_page_says_how_the_sources_are_fetched():
    page = (ROOT / "docs" / "export.md").read_text()
    assert all(command in page for command in FETCH.split(" && "))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_llama_cpp_s_files_hold_the_expert(family, tiny_model, tmp_path, llama_cpp):
    folder = tiny_model if family == "gpt2" else save(llama(), tmp_path / "llama")
    base = AutoModelForCausalLM.from_pretrained(folder)
    model = mixture_of(base, specialists=1, rank=4)
    names = SimpleNamespace(model=SimpleNamespace(name=str(folder)))
    client = SimpleNamespace(config=names, dtype="float32", compute="float32")
    expected = wanted(model, "specialist_0")
    for form in ("lora-gguf", "gguf"):
        (tmp_path / form).mkdir()
        write_one(client, copy.deepcopy(model), "specialist_0", form, tmp_path / form, llama_cpp)

    place, how = tmp_path / "gguf", {"gguf_file": "model.gguf"}
    again = AutoModelForCausalLM.from_pretrained(place, **how, config=base.config)
    torch.testing.assert_close(logits(again), expected, rtol=0, atol=1e-4)
    text = "Il file è aperto, 12 volte."
    ids = AutoTokenizer.from_pretrained(place, **how)(text)["input_ids"]
    assert ids == load_tokenizer(str(folder))(text)["input_ids"]

    base.save_pretrained(tmp_path / "base")
    set_config(tmp_path / "base", n_ctx=64)
    load_tokenizer(str(folder)).save_pretrained(tmp_path / "base")
    convert_model(llama_cpp, tmp_path / "base", tmp_path / "base.gguf", "float32")
    files = [tmp_path / "base.gguf", place / "model.gguf", tmp_path / "lora-gguf" / "lora.gguf"]
    bare, merged, lora = (
        {t.name: torch.tensor(t.data) for t in GGUFReader(f).tensors} for f in files
    )
    changed = {name for name in bare if not torch.equal(bare[name], merged[name])}
    assert {name.rpartition(".")[0] for name in lora} == changed
    for name in changed:
        change = lora[f"{name}.lora_b"] @ lora[f"{name}.lora_a"]
        torch.testing.assert_close(bare[name] + change, merged[name], rtol=0, atol=1e-5)
