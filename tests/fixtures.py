"""A federation small enough to run in a second: text, model, configuration, and a finished run."""

import json
import random

import pytest

from comigs.backbone.names import BUNDLED

WORDS = ["mira", "tolu", "sanke", "brifo", "zelt", "ando", "kypra", "rem", "ulste", "no", "vai"]


def made_up_text(seed, lines=80):
    rng = random.Random(seed)
    return "".join(" ".join(rng.choices(WORDS, k=8)) + ".\n" for _ in range(lines))


@pytest.fixture(scope="session")
def federation(tmp_path_factory):
    """A folder with the made-up text of three clients."""
    folder = tmp_path_factory.mktemp("federation")
    for seed, name in enumerate(("ana", "bo", "cy")):
        (folder / f"{name}.txt").write_text(made_up_text(seed), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """A folder with a random GPT-2 of two layers and the bundled tokenizer."""
    import torch
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    folder = tmp_path_factory.mktemp("model")
    tokenizer = AutoTokenizer.from_pretrained(BUNDLED / "comigs-tiny")
    torch.manual_seed(0)
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}
    GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tree(federation, tiny_model):
    """The configuration of the tests: three unequal clients, three rounds of two steps."""
    return {
        "name": "test",
        "model": {"name": str(tiny_model)},
        "data": {"name": str(federation), "seq_len": 16},
        "experts": {"specialists": [0, 1, 3], "rank": 2, "dropout": 0.1},
        "router": {"every": 2, "steps": 1},
        "rounds": 3,
        "local_steps": 2,
        "batch_size": 2,
        "seed": 7,
        "threads": 1,
        "log": {"tensorboard": False},
    }


@pytest.fixture(scope="session")
def yaml_file(tree, tmp_path_factory):
    """`tree` as a file (JSON is YAML)."""
    path = tmp_path_factory.mktemp("config") / "test.yaml"
    path.write_text(json.dumps(tree), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def finished(tree, tmp_path_factory):
    """The folder of an uninterrupted run of `tree` in this process; look, do not touch."""
    import comigs

    return comigs.run(tree, out=tmp_path_factory.mktemp("finished")).folder


@pytest.fixture(scope="module")
def quick_plans():
    """Plans that time one step of each kind, in place of two seconds of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("comigs.costs.calibrate.SECONDS", 0.0)
        yield
