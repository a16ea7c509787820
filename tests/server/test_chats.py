"""Runs on chats, from the start to the use of what was trained, against worked-out values."""

import json
import math

import pytest
import torch
import torch.nn.functional as F
from typer.testing import CliRunner

import comigs
from comigs.app.run import resume
from comigs.backbone.base import load_base, load_tokenizer
from comigs.cli.commands import app
from comigs.config.load import read_config
from comigs.errors import BadInput
from comigs.use.final import final_model
from comigs.use.generate import generate_text
from tests.clients.asking import Device
from tests.data.chats import made_up_chats, write_federation, write_split
from tests.helpers import assert_same_numbers, client_of, events, numbers, run_and_resumed

pytest_plugins = ("tests.fixtures",)
NAMES = ("ana", "bo", "cy")


@pytest.fixture(scope="module")
def chats(tmp_path_factory):
    return write_federation(tmp_path_factory.mktemp("chats"))


@pytest.fixture
def talk(tree, chats):
    """The configuration of the tests, on chats."""
    experts = {"specialists": 1, "rank": 2}
    data = {"name": str(chats), "seq_len": 48}
    return tree | {"data": data, "experts": experts, "log": {"tensorboard": False}}


@torch.no_grad()
def literal_perplexity(model, tokenizer, folder, client, split="test", positions=48):
    """exp(sum of CE of answer tokens / their number), chat by chat, with labels of -100."""
    total, count = 0.0, 0
    for line in (folder / client / f"{split}.jsonl").read_text("utf-8").splitlines():
        asked, said = (message["content"] for message in json.loads(line)["messages"])
        prompt = tokenizer(f"User: {asked}\nAssistant:")["input_ids"]
        answer = tokenizer(f" {said}{tokenizer.eos_token}")["input_ids"]
        ids = torch.tensor([[*prompt, *answer][: positions + 1]])
        labels = ids.clone()
        labels[:, : len(prompt)] = -100
        count += int((labels >= 0).sum())
        logits = model(input_ids=ids).logits[0, :-1]
        total += F.cross_entropy(logits, labels[0, 1:], reduction="sum").item()
    return math.exp(total / count), count


@pytest.mark.parametrize(
    "method", ["comigs", "fedavg", "centralized", "comigs-adaptive", "pcl", "fdlora", "pretrained"]
)
def test_perplexity_is_that_of_the_answers(talk, chats, tmp_path, method):
    table = comigs.run(talk, out=tmp_path / "run", method=method).table
    config = read_config(tmp_path / "run")
    tokenizer = load_tokenizer(config.model.name)
    base = load_base(config.model.name, "float32")
    model = final_model(client_of(config), tmp_path / "run")
    row = next(row for row in table if row["name"] == "ana")
    expected, count = literal_perplexity(base, tokenizer, chats, "ana")
    assert row["pretrained"] == pytest.approx(expected, rel=1e-5)
    assert row["test_tokens"] == count
    expected, _ = literal_perplexity(model, tokenizer, chats, "ana")
    assert row["after"] == pytest.approx(expected, rel=1e-5)
    assert sorted(row["name"] for row in table) == sorted(NAMES)


def test_training_learns_the_answers(talk, chats, tmp_path):
    settings = talk | {"rounds": 6, "local_steps": 8, "batch_size": 8, "train": {"lr": 0.02}}
    for row in comigs.run(settings, out=tmp_path / "run").table:
        assert row["after"] < 0.97 * row["pretrained"]  # of a base without any sense


def test_a_run_that_was_stopped_goes_on_to_the_same_bits(talk, tmp_path):
    settings = talk | {"experts": {"specialists": [0, 1, 2], "rank": 2, "dropout": 0.1}}
    whole, resumed = run_and_resumed(settings, tmp_path)
    assert_same_numbers(resumed, whole)


def test_a_run_does_not_go_on_with_other_chats(talk, tmp_path):
    folder = write_federation(tmp_path / "data")
    settings = talk | {"data": {"name": str(folder), "seq_len": 48}, "rounds": 1}
    done = comigs.run(settings, out=tmp_path / "run").folder
    write_split(folder, "bo", "train", made_up_chats("other", 24))
    with pytest.raises(BadInput, match=r"the text in .* differs in bo/train\.jsonl"):
        resume(done)


@pytest.mark.parametrize(
    "more",
    [
        ["engine.fuse=3"],
        ["micro_batch_size=1"],
        ["train.loss=chunked"],
        ["train.checkpointing=true"],
        ["router.grad=first_order", "train.loss=chunked"],
    ],
    ids=str,
)
def test_however_it_is_computed_it_is_the_same(talk, tmp_path, more):
    same = [setting for setting in more if setting.startswith("router")]
    one = comigs.run(talk, same, out=tmp_path / "one").folder
    two = comigs.run(talk, more, out=tmp_path / "two").folder
    (_, finals, losses), (_, others, their_losses) = numbers(one), numbers(two)
    for key, loss in losses.items():
        assert their_losses[key] == pytest.approx(loss, rel=1e-3)
    for client, final in finals.items():
        assert others[client][1:4] == pytest.approx(final[1:4], rel=1e-3)


@pytest.mark.slow
def test_ray_workers_change_no_bit(talk, tmp_path):
    inline = comigs.run(talk, out=tmp_path / "inline").folder
    ray = comigs.run(talk | {"engine": {"name": "ray", "workers": 2}}, out=tmp_path / "ray").folder
    assert_same_numbers(ray, inline)


def test_target_mixture_and_samples_as_weights(talk, chats, tmp_path):
    more = ["data.target=mixture", "server.weighting=samples", "log.metrics=[router_entropy]"]
    folder = comigs.run(talk, more, out=tmp_path / "run").folder
    rows = events(folder, "client")
    assert all(0 <= row["metrics"]["router_entropy"] <= math.log(2) for row in rows)
    tokenizer = load_tokenizer(read_config(folder).model.name)
    base = load_base(read_config(folder).model.name, "float32")
    own = [literal_perplexity(base, tokenizer, chats, name, "train") for name in NAMES]
    told = {row["client"]: row["num-examples"] for row in rows if "num-examples" in row}
    assert not told or [told[i] for i in range(3)] == [count for _, count in own]


def test_what_is_cut_is_told_once_at_the_start(talk, tmp_path, caplog):
    settings = talk | {"data": talk["data"] | {"seq_len": 16}, "rounds": 1}
    comigs.run(settings, out=tmp_path / "run")
    [line] = [record.getMessage() for record in caplog.records if "examples" in record.getMessage()]
    assert "are longer than data.seq_len 16" in line and "holds all" in line


def test_a_device_with_its_own_chats_alone_trains_and_tells_what_is_cut(talk, tmp_path, caplog):
    chats = tmp_path / "chats"
    write_federation(chats, ("bo",))
    (chats / "clients.json").write_text(json.dumps(NAMES))
    settings = talk | {"data": {"name": str(chats), "seq_len": 20}}
    device = Device(tmp_path, settings)
    about = json.loads(device.ask("query").content.config_records["hello"]["json"])
    assert (about["client"], about["name"]) == (1, "bo")
    assert "are longer than data.seq_len 20" in caplog.text
    assert "(of 1 of 3 clients)" in caplog.text
    assert device.train(1).content.array_records["arrays"]


def call(*arguments):
    result = CliRunner(env={"COLUMNS": "100"}).invoke(app, [str(each) for each in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_other_commands_take_chats_too(talk, chats, tmp_path):
    path = tmp_path / "talk.yaml"
    path.write_text(json.dumps(talk | {"rounds": 1}))
    assert "ana" in call("plan", path, "devices.profiles={laptop: 3}")
    model = talk["model"]["name"]
    told = call("data", "describe", chats, "--model", model)
    head, first = (line.split() for line in told.splitlines()[:2])
    row = dict(zip(head, first, strict=True))
    tokenizer = load_tokenizer(model)
    _, count = literal_perplexity(load_base(model, "float32"), tokenizer, chats, "ana", "train", 99)
    assert (row["client"], row["parts"]) == ("ana", "24")
    assert int(row["answers"].replace(",", "")) == count
    assert "cuts none" in told
    call("run", path, "--out", tmp_path / "run")
    assert generate_text(tmp_path / "run", 0, "User: mira\nAssistant:", 8, 5).startswith("User:")
    call("export", tmp_path / "run", "--client", 0, "--to", tmp_path / "adapters")
    call("deploy", "init", tmp_path / "project", "--clients", 3, "--data", chats)
    copied = sorted(path.name for path in (tmp_path / "project").rglob("*.jsonl"))
    assert copied == sorted(["test.jsonl", "train.jsonl", "valid.jsonl"] * 3)
