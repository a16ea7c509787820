"""lm-evaluation-harness on a client's mixture: its scores are those of the model's own losses."""

import json

import pytest
import torch
from typer.testing import CliRunner

import comigs
from comigs.backbone.base import load_base, load_tokenizer
from comigs.cli.commands import app
from comigs.errors import BadInput
from comigs.mixture.experts import using_expert
from comigs.use.generate import open_client
from comigs.use.harness import evaluate_tasks

pytest_plugins = ("tests.fixtures",)

QUESTIONS = [
    {"question": "one two", "choices": ["three", "the", "of a"], "answer": 0},
    {"question": "the", "choices": ["cat", "and the"], "answer": 1},
    {"question": "of", "choices": ["a", "an old man"], "answer": 0},
]
YAML = """
task: from-yaml
dataset_path: json
dataset_kwargs: {{data_files: {{test: {path}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: choices
doc_to_target: answer
metric_list: [{{metric: acc}}]
"""


@pytest.fixture
def tasks(tmp_path):
    """A folder with one task of each kind, which ask the same."""
    lines = "\n".join(map(json.dumps, QUESTIONS))
    (tmp_path / "own.jsonl").write_text(lines)
    (tmp_path / "data.json").write_text(lines)
    (tmp_path / "task.yaml").write_text(YAML.format(path=tmp_path / "data.json"))
    return tmp_path


@torch.no_grad()
def chosen(model, tokenizer, question):
    """The choice whose tokens are likeliest behind the question."""
    sums = []
    for choice in question["choices"]:
        start = tokenizer(question["question"])["input_ids"]
        ids = torch.tensor(tokenizer(question["question"] + " " + choice)["input_ids"])
        logs = model(input_ids=ids[None, :-1]).logits[0].log_softmax(-1)
        each = logs.gather(1, ids[1:, None])[len(start) - 1 :]
        sums.append(float(each.sum()))
    return max(range(len(sums)), key=sums.__getitem__)


def test_accuracies_are_those_of_the_models(finished, tasks):
    every = evaluate_tasks(finished, None, [str(tasks)], batch_size=2)
    assert list(dict.fromkeys(s.client for s in every)) == ["ana", "bo", "cy"]
    assert (
        len({s.value for s in every if (s.model, s.task, s.metric) == ("base", "own", "acc")}) == 1
    )
    scores = [s for s in every if s.client == "bo"]
    client, mixture = open_client(finished, 1)
    tokenizer = load_tokenizer(client.config.model.name)
    right = {
        name: sum(chosen(model, tokenizer, q) == q["answer"] for q in QUESTIONS) / len(QUESTIONS)
        for name, model in (
            ("mixture", mixture),
            ("base", load_base(client.config.model.name, client.dtype, client.compute)),
        )
    }
    with using_expert(mixture, "generalist_0"):
        right["generalist"] = sum(
            chosen(mixture, tokenizer, q) == q["answer"] for q in QUESTIONS
        ) / len(QUESTIONS)
    found = {(s.task, s.model): s.value for s in scores if s.metric == "acc"}
    assert found == pytest.approx(
        {(task, name): acc for task in ("own", "from-yaml") for name, acc in right.items()}
    )


def test_free_answers_are_scored_and_kept(finished, tmp_path):
    (tmp_path / "free.jsonl").write_text(json.dumps({"question": "one", "answer": ["two", "3"]}))
    out = tmp_path / "scores.json"
    command = ["eval", str(finished), "--client", "1", "--tasks", str(tmp_path / "free.jsonl")]
    result = CliRunner().invoke(app, [*command, "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "exact_match" in result.stdout and "mixture" in result.stdout
    kept = json.loads(out.read_text())
    assert {row["metric"] for row in kept} == {"exact_match", "f1"}


def test_a_client_of_chats_is_asked_in_a_chat(tmp_path, monkeypatch):
    from lm_eval.models.huggingface import HFLM

    small = ["rounds=1", "local_steps=1", "batch_size=2", "clients=2", "threads=1"]
    limits = [f"data.{split}_tokens=300" for split in ("train", "valid", "test")]
    run = comigs.run("skills", [*small, *limits], out=tmp_path / "run").folder
    seen = []

    def answer(self, requests, disable_tqdm=False):
        seen.extend(request.args[0] for request in requests)
        return ["yes"] * len(requests)

    monkeypatch.setattr(HFLM, "generate_until", answer)
    (tmp_path / "q.jsonl").write_text(json.dumps({"question": "Is it?", "answer": "Yes."}))
    scores = evaluate_tasks(run, [1], [str(tmp_path / "q.jsonl")])
    assert set(seen) == {"User: Is it?\nAssistant:"}
    assert {score.value for score in scores} == {1.0}


def test_two_files_of_one_name_and_a_bare_yaml_file_are_refused(finished, tasks):
    (tasks / "more").mkdir()
    (tasks / "more" / "own.jsonl").write_text((tasks / "own.jsonl").read_text())
    with pytest.raises(BadInput, match=r"two of --tasks are files of questions called own"):
        evaluate_tasks(finished, [0], [str(tasks), str(tasks / "more")])
    with pytest.raises(BadInput, match=r"task\.yaml: give the folder it is in"):
        evaluate_tasks(finished, [0], [str(tasks / "task.yaml")])


@pytest.mark.parametrize(
    ("task", "why"),
    [("no-such.jsonl", "no-such.jsonl"), ("empty", "there are no .jsonl or .yaml files of tasks")],
)
def test_what_is_no_task_is_told(task, why, finished, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match=why):
        evaluate_tasks(finished, [0], [str(tmp_path / task)])
