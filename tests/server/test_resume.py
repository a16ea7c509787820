"""A run that was killed, interrupted or damaged ends as if nothing had happened."""

import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

import comigs
from comigs.cli.commands import app
from comigs.errors import BadInput, ComigsError
from comigs.store.state import round_folder
from tests.helpers import assert_same_numbers, damage, events, read_until, start_cli

pytest_plugins = ("tests.fixtures",)
pytestmark = pytest.mark.slow


@pytest.fixture
def copy(finished, tmp_path):
    """A copy of the finished run that may be damaged."""
    return shutil.copytree(finished, tmp_path / "copy")


def assert_each_round_once(folder, rounds, clients=3):
    assert [e["round"] for e in events(folder, "round")] == list(range(1, rounds + 1))
    per_client = sorted((e["round"], e["client"]) for e in events(folder, "client"))
    assert per_client == [(r, c) for r in range(1, rounds + 1) for c in range(clients)]
    assert len(events(folder, "final")) == clients
    assert len(events(folder, "end")) == 1


def test_a_run_killed_again_and_again_ends_bit_identical(yaml_file, finished, tmp_path):
    rounds, whole, out = 8, tmp_path / "whole", tmp_path / "killed"
    started = time.monotonic()
    comigs.run(yaml_file, rounds=rounds, out=whole)
    duration = time.monotonic() - started  # libraries are loaded: `finished` is there

    seed = secrets.randbits(32)
    rng, killed, command = random.Random(seed), 0, ("run", yaml_file, "rounds=8", "--out", out)
    for _ in range(3):
        process = start_cli(*command)
        command = ("run", "--resume", out)
        read_until(process, "comigs on")
        time.sleep(rng.uniform(0, duration / 3))
        process.kill()
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
    last = CliRunner().invoke(app, [str(word) for word in command])
    assert last.exit_code == 0, (seed, last.output)
    assert killed, seed
    assert_same_numbers(out, whole)
    assert_each_round_once(out, rounds)


def test_a_kill_before_the_last_write_has_cleaned_up_leaves_no_old_round(copy, finished):
    server = copy / "server"
    for left in (round_folder(server, 0), server / ".round_00003.1.tmp"):
        shutil.copytree(round_folder(server, 3), left)
    comigs.app.run.resume(copy)
    assert_same_numbers(copy, finished)
    assert not list(server.glob(".*.tmp"))


def test_an_old_round_that_a_kill_left_is_deleted_only_when_it_is_not_needed(copy):
    server = copy / "server"
    for number in (1, 2, 3):
        damage(round_folder(server, number) / "state.json", "truncate")
    kept = shutil.copytree(round_folder(server, 1), round_folder(server, 0))
    with pytest.raises(ComigsError, match="is intact"):
        comigs.app.run.resume(copy)
    assert kept.is_dir()


def test_a_run_interrupted_after_every_few_events_ends_bit_identical(tree, tmp_path):
    """In the middle of rounds, between them and in the final evaluation; half of the clients."""
    tree = tree | {"participation": 0.5, "rounds": 5}
    whole = comigs.run(tree, out=tmp_path / "whole").folder
    out, stops = tmp_path / "stopped", 0

    def start(watch):
        if stops == 0:
            return comigs.run(tree, out=out, watch=watch)
        return comigs.app.run.resume(out, watch=watch)

    for patience in range(1, 100):
        events_left = iter(range(patience))

        def watch(event, left=events_left):
            if next(left, None) is None:
                raise KeyboardInterrupt

        try:
            start(watch)
            break
        except KeyboardInterrupt:
            stops += 1
    assert stops > 5
    assert_same_numbers(out, whole)
    assert [e["round"] for e in events(out, "round")] == [1, 2, 3, 4, 5]
    assert len(events(out, "client")) == 10
    assert len(events(out, "final")) == 3


@pytest.mark.parametrize(
    ("at", "number"), [("comigs on", signal.SIGTERM), ("round 2:", signal.SIGINT)]
)
def test_ctrl_c_loses_nothing_and_says_how_to_go_on(yaml_file, finished, tmp_path, at, number):
    out = tmp_path / "run"
    process = start_cli("run", yaml_file, "--out", out)
    read_until(process, at)
    os.killpg(process.pid, number)
    _, err = process.communicate()
    assert process.returncode == 130
    assert err.splitlines()[-1] == (
        f"interrupted; every finished round is saved; go on with: comigs run --resume {out}"
    )
    assert "Traceback" not in err
    assert comigs.app.run.resume(out).folder == out
    assert_same_numbers(out, finished)
    assert_each_round_once(out, 3)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc to see how far it is")
def test_ctrl_c_while_libraries_load_is_no_traceback(yaml_file, tmp_path):
    process = start_cli("run", yaml_file, "--out", tmp_path / "run")
    maps = Path(f"/proc/{process.pid}/maps")
    while process.poll() is None and "safetensors" not in maps.read_text():
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130, err
    assert err.splitlines()[-1].startswith("interrupted; ")
    assert "Traceback" not in err


def test_an_interrupt_inside_exec_ends_with_the_command_s_own_exit_code(tmp_path):
    (tmp_path / "interrupted.py").write_text(
        "from comigs.app import run as runs\n"
        "from comigs.cli.commands import main\n"
        "def run(*_, **__): exec('raise KeyboardInterrupt')\n"
        "runs.run = run\n"
        "main()\n"
    )
    command = [sys.executable, "-m", "interrupted", "run"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 130, ended.stderr


@pytest.mark.parametrize("how", ["flip", "truncate", "delete"])
@pytest.mark.parametrize(
    "path",
    [
        "server/round_00003/shared.safetensors",
        "server/round_00003/state.json",
        "clients/1/round_00003/tensors.safetensors",
        "clients/2/round_00003/optimizer.safetensors",
        "clients/0/round_00003/state.json",
    ],
)
def test_a_damaged_file_costs_one_round(copy, finished, path, how):
    damage(copy / path, how)
    seen = []
    comigs.app.run.resume(copy, watch=seen.append)
    assert [(e["round"], e["event"]) for e in seen if e["event"] == "damaged"] == [(3, "damaged")]
    assert [e["round"] for e in seen if e["event"] == "start"] == [2]
    assert [e["round"] for e in events(copy, "damaged")] == [3]
    assert_same_numbers(copy, finished)
    assert_each_round_once(copy, 3)


def test_two_damaged_rounds_cost_two(copy, finished):
    damage(copy / "server/round_00003/shared.safetensors", "flip")
    damage(copy / "clients/1/round_00002/tensors.safetensors", "flip")
    comigs.app.run.resume(copy)
    assert [e["round"] for e in events(copy, "damaged")] == [3, 2]
    assert_same_numbers(copy, finished)
    assert_each_round_once(copy, 3)


def test_nothing_intact_is_a_clear_error_and_touches_nothing(copy, finished):
    for number in (1, 2, 3):
        damage(round_folder(copy / "server", number) / "shared.safetensors", "flip")
    before = {p: p.read_bytes() for p in copy.glob("*/**/round_*/*")}
    with pytest.raises(ComigsError, match=r"none of the saved rounds \[1, 2, 3\] in .* is intact"):
        comigs.app.run.resume(copy)
    assert {p: p.read_bytes() for p in copy.glob("*/**/round_*/*")} == before


def test_a_run_whose_server_folder_is_gone_starts_anew(copy, finished):
    shutil.rmtree(copy / "server")
    comigs.app.run.resume(copy)
    assert_same_numbers(copy, finished)
    assert_each_round_once(copy, 3)


def test_a_finished_run_can_be_resumed_and_stays_as_it_is(copy, finished):
    comigs.app.run.resume(copy)
    assert_same_numbers(copy, finished)
    assert_each_round_once(copy, 3)


def test_metrics_cut_off_in_the_middle_of_a_line_are_mended(copy, finished):
    path = copy / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    shutil.rmtree(copy / "server/round_00003")
    comigs.app.run.resume(copy)
    assert_same_numbers(copy, finished)
    assert_each_round_once(copy, 3)


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ("seed=8", "seed"),
        ("train.lr=0.5", "train.lr"),
        ("experts.specialists=[1, 1, 3]", "experts.specialists"),
        ("threads=2", "threads"),
    ],
)
def test_a_changed_setting_is_refused_by_name(copy, setting, key):
    with pytest.raises(BadInput, match=rf"^{key} differs from the run"):
        comigs.app.run.resume(copy, [setting])


def test_a_changed_config_file_is_refused_by_name(copy):
    path = copy / "config.yaml"
    path.write_text(path.read_text().replace("seed: 7", "seed: 8"))
    with pytest.raises(BadInput, match=r"has seed = 8, but the run was started with 7"):
        comigs.app.run.resume(copy)


def test_a_second_process_on_the_same_folder_is_refused(copy):
    holder = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, 2); print(); input()"
    command = [sys.executable, "-c", holder, copy / ".lock"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        with pytest.raises(BadInput, match="is in use by another process"):
            comigs.app.run.resume(copy)
        process.communicate(b"\n")
    comigs.app.run.resume(copy)


def test_a_kill_while_the_configuration_is_written_leaves_no_other_run(tree, tmp_path, monkeypatch):
    """Half of config.yaml is a configuration too: the rest would be the quickstart's."""

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("comigs.config.load.dump_yaml", killed)
    with pytest.raises(KeyboardInterrupt):
        comigs.run(tree, out=tmp_path)
    with pytest.raises(BadInput, match=r"holds no config\.yaml"):
        comigs.app.run.resume(tmp_path)
