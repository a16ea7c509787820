"""The command line: every bad input is one line and exit code 2; a finished run can be used."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertModel
from typer.testing import CliRunner

import comigs
from comigs.cli.commands import app
from comigs.methods import all_methods
from tests.fixtures import made_up_text

pytest_plugins = ("tests.fixtures",)


@pytest.fixture(autouse=True)
def silence(capfd):
    """Whatever is shown is shown by the command: no log or warning of a library beside it."""
    yield
    assert capfd.readouterr() == ("", "")


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(*arguments):
    """The one line with which the command refuses its input."""
    result = call(*arguments)
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    assert line.startswith("comigs: ")
    return line


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def data(federation, tmp_path):
    """A copy of the federation to break."""
    return shutil.copytree(federation, tmp_path / "data")


@pytest.fixture
def model(tiny_model, tmp_path):
    """A copy of the model to break."""
    return shutil.copytree(tiny_model, tmp_path / "model")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("experts.rnak=2", "unknown key experts.rnak; did you mean experts.rank?"),
        ("ruonds=2", "unknown key ruonds; did you mean rounds?"),
        ("rounds=many", "rounds is 'many'; expected a whole number"),
        ("rounds=2.5", "rounds is 2.5; expected a whole number"),
        ("train.lr=fast", "train.lr is 'fast'; expected a number"),
        ("experts.routed=7", "experts.routed is 7; expected true or false"),
        ("rounds=0", "rounds is 0; it must be at least 1"),
        ("experts.rank=0", "experts.rank is 0; it must be at least 1"),
        ("experts.rank=[1,2]", "experts.rank has 2 values"),
        ("experts.top_k=3", "experts.top_k is 3; a client has only 2 experts"),
        ("participation=1.5", "participation is 1.5; it must be in (0, 1]"),
        ("clients=4", "clients"),
        ("server.min_clients=4", "server.min_clients is 4; only 3 clients take part in a round"),
        ("server.round_timeout=0", "server.round_timeout is 0.0; it must be a number above 0"),
        ("engine=turbo", "engine.name is 'turbo'; expected inline or ray"),
        ("method=comgis", "method is 'comgis'; did you mean 'comigs'?"),
        ("method=none", "method is 'none'; known: "),
        ("data.seq_len=4000", "has 64 positions"),
        ("data.name=nowhere", "data.name is 'nowhere'; give a folder of text files"),
        ("model.name=/no/where", "model.name '/no/where': there is no such folder"),
        ("model.name=no/where", "model.name 'no/where': no"),
    ],
)
def test_a_bad_setting_is_one_line(yaml_file, out, setting, words):
    assert words in refused("run", yaml_file, setting, "--out", out)
    assert not out.exists()


def test_a_bad_file_is_named_with_its_line(yaml_file, out, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("rounds: 3\nexperts:\n  rnak: 2\n")
    assert "mine.yaml, line 3: unknown key experts.rnak" in refused("run", path, "--out", out)
    path.write_text("rounds: [3\n")
    assert "not valid YAML" in refused("run", path, "--out", out)
    assert "neither a YAML file nor one of the presets" in refused("run", "quickstrat")
    assert "not of the form key=value" in refused("run", yaml_file, "rounds")


def empty_folder(data):
    for path in data.iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (empty_folder, "holds no text: expected <client>.txt files"),
        (lambda d: (d / "bo.txt").write_text(""), "client 'bo' of"),
        (lambda d: (d / "bo.txt").write_text(" \n\n"), "client 'bo' of"),
        (lambda d: (d / "bo.txt").write_bytes(b"abc \xff def\n" * 90), "is not UTF-8 (byte 4)"),
        (lambda d: (d / "bo.txt").write_text("mira tolu\n" * 9), "client 'bo' has"),
        (lambda d: (d / "bo.txt").rename(d / "bo.txt.xz"), "is not a readable xz file"),
    ],
    ids=["no clients", "empty file", "blank file", "not UTF-8", "too short", "not xz"],
)
def test_unusable_text_is_one_line(yaml_file, data, out, harm, words):
    harm(data)
    line = refused("run", yaml_file, f"data.name={data}", "--out", out)
    assert words in line
    assert not out.exists()


def test_a_client_folder_without_a_split_is_one_line(yaml_file, data, out):
    folder = data / "dee"
    folder.mkdir()
    (folder / "train.txt").write_text(made_up_text(9))
    setting = f"data.name={data}"
    line = refused("run", yaml_file, setting, "experts.specialists=1", "--out", out)
    assert "dee/valid.txt is missing; a client's folder holds train, valid and test" in line


def more_words(model):
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_tokens(["<one-too-many>"])
    tokenizer.save_pretrained(model)


def another_family(model):
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    BertModel(BertConfig(vocab_size=9, intermediate_size=8, **sizes)).save_pretrained(model)


def other_sizes(model):
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"n_embd": 24}))


def cut(name):
    return lambda model: (model / name).write_bytes((model / name).read_bytes()[:1000])


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda m: (m / "config.json").unlink(), "the folder holds no config.json"),
        (lambda m: (m / "config.json").write_text('{"model_type": "nobody"}'), "no model could"),
        (lambda m: (m / "config.json").write_text("{"), "no model could be loaded"),
        (lambda m: (m / "model.safetensors").unlink(), "holds no model.safetensors"),
        (cut("model.safetensors"), "no model could be loaded"),
        (other_sizes, "have another shape"),
        (lambda m: (m / "tokenizer.json").unlink(), "the folder holds no tokenizer; put"),
        (cut("tokenizer.json"), "no tokenizer could be loaded"),
        (another_family, "model family 'bert' is unknown; known: bloom"),
        (more_words, "its tokenizer knows 2049 tokens, the model only 2048"),
    ],
    ids=[
        "no config", "type nobody knows", "half a config", "no weights", "half the weights",
        "other sizes",
        "no tokenizer", "half a tokenizer", "unknown family", "too many tokens",
    ],
)  # fmt: skip
def test_an_unusable_model_is_one_line(yaml_file, model, out, harm, words):
    harm(model)
    line = refused("run", yaml_file, f"model.name={model}", "--out", out)
    assert words in line
    assert not out.exists()


def test_an_output_folder_in_use_is_one_line(yaml_file, tmp_path):
    (tmp_path / "file").write_text("mine")
    assert "is not empty; give another --out" in refused("run", yaml_file, "--out", tmp_path)
    assert "is a file" in refused("run", yaml_file, "--out", tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_what_cannot_be_resumed_is_one_line(yaml_file, finished, tmp_path):
    assert "holds no config.yaml" in refused("run", "--resume", tmp_path)
    assert "holds no config.yaml" in refused("run", "--resume", tmp_path / "nowhere")
    assert "seed differs from the run" in refused("run", "--resume", finished, "seed=9")
    assert "--resume takes its" in refused("run", yaml_file, "--resume", finished)
    assert "--resume takes its" in refused("run", "--resume", finished, "--out", tmp_path)


def test_debug_shows_the_error_itself(yaml_file, out):
    result = call("run", yaml_file, "rounds=0", "--out", out, "--debug")
    assert isinstance(result.exception, comigs.BadInput)


def test_a_run_prints_its_folder_its_rounds_and_its_table(yaml_file, out):
    result = call("run", yaml_file, "--out", out)
    assert result.exit_code == 0, result.output
    assert f"run folder {out}" in result.stderr.replace("\n", "")
    assert [f"round {n}:" in result.stderr for n in (1, 2, 3)] == [True] * 3
    for word in ("client", "pretrained", "ana", "bo", "cy", "mean"):
        assert word in result.stdout
    assert call("run", "--resume", out).exit_code == 0


def test_methods_lists_every_method_with_its_paper():
    result = call("methods")
    assert result.exit_code == 0
    for method in all_methods().values():
        assert f"\n{method.name} " in result.stdout
        assert method.paper.split()[-1] in result.stdout


@pytest.mark.parametrize(
    "command", ["", "run", "compare", "methods", "report", "generate", "export"]
)
def test_every_command_has_help(command):
    result = call(*command.split(), "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.stdout


def test_help_and_methods_do_not_wait_for_torch():
    script = """
        import sys
        from comigs.cli.commands import main
        for arguments in (["--help"], ["run", "--help"], ["methods"], ["deploy", "init", "--help"],
                          ["data", "--help"], ["data", "prepare", "--help"]):
            sys.argv = ["comigs", *arguments]
            try:
                main()
            except SystemExit as end:
                assert not end.code
        heavy = {"torch", "transformers", "peft", "flwr", "ray", "datasets"} & set(sys.modules)
        sys.exit(f"imported {heavy}" if heavy else 0)
    """
    lines = [line[8:] for line in script.splitlines()]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_generate_continues_the_prompt_and_the_seed_decides(finished):
    ask = ("generate", finished, "mira tolu", "--client", 2, "--tokens", 8)
    first = call(*ask)
    assert first.exit_code == 0, first.output
    assert first.stdout.startswith("mira tolu")
    assert call(*ask).stdout == first.stdout
    assert call(*ask, "--seed", 5).stdout != first.stdout


@pytest.mark.parametrize("client", [0, 2])
def test_export_writes_adapters_that_plain_peft_loads(finished, tiny_model, out, client):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    result = call("export", finished, "--client", client, "--to", out)
    assert result.exit_code == 0, result.output
    names = {"generalist_0"} | {f"specialist_{i}" for i in range([0, 1, 3][client])}
    assert {p.name for p in out.iterdir() if p.is_dir()} == names
    for name in names:
        base = AutoModelForCausalLM.from_pretrained(tiny_model)
        before = base(torch.arange(8)[None]).logits
        after = PeftModel.from_pretrained(base, out / name)(torch.arange(8)[None]).logits
        assert not torch.equal(before, after)


def test_export_of_the_generalist_leaves_everything_private_out(finished, out):
    assert (
        call("export", finished, "--client", "cy", "--to", out, "--generalist-only").exit_code == 0
    )
    assert {p.name for p in out.iterdir() if p.is_dir()} == {"generalist_0"}
    assert not list(out.rglob("*router*"))


def test_bad_use_of_a_run_is_one_line(finished, tmp_path):
    for client in (3, -1):
        words = f"there is no client '{client}'; this run has 0 to 2: ana, bo, cy"
        assert words in refused("generate", finished, "mira", "--client", client)
        to = tmp_path / "to"
        assert words in refused("export", finished, "--client", client, "--to", to)
        assert not to.exists()
    assert "it is not a run folder" in refused("generate", tmp_path, "mira")
    assert "it is not a run folder" in refused("export", tmp_path, "--to", tmp_path / "to")
    assert "exists already" in refused("export", finished, "--to", tmp_path)
    assert "the prompt is empty" in refused("generate", finished, "")
    assert "context of 64" in refused("generate", finished, "mira", "--tokens", 64)


def test_a_run_without_a_finished_round_has_nothing_to_use_yet(tree, tmp_path):
    (tmp_path / "config.yaml").write_text(json.dumps(tree))
    assert "is not finished yet" in refused("generate", tmp_path, "mira")


def test_version_is_that_of_the_package():
    assert CliRunner().invoke(app, ["--version"]).output.strip() == comigs.__version__
