"""`comigs plan` and `comigs devices`, and what they say against a real run."""

import json
import re

import pytest
from typer.testing import CliRunner

from comigs.app.run import plan
from comigs.cli.commands import app
from comigs.costs.calibrate import Speed, kind_of
from comigs.costs.work import token_flops
from comigs.federation.run import resolve
from tests.helpers import events

pytest_plugins = ("tests.fixtures",)
pytestmark = pytest.mark.usefixtures("quick_plans")

SMALL = "devices.define.small={like: board, memory: 1000}"


def run_cli(*arguments):
    """The command in this process. Returns (exit code, standard output, standard error)."""
    result = CliRunner(env={"COLUMNS": "80"}).invoke(app, [str(each) for each in arguments])
    return result.exit_code, result.stdout, result.stderr


def planned(tmp_path, *settings):
    path = tmp_path / "plan.json"
    code, out, err = run_cli("plan", *settings, "--json", path)
    assert code == 0, err
    return out, json.loads(path.read_text())


@pytest.mark.slow
def test_a_plan_says_what_the_run_then_measures(yaml_file, finished, tmp_path):
    out, plan = planned(tmp_path, yaml_file)
    assert re.search(r"time here \(inline\): .*just now \(load \d+\.\d on \d+ cores\)", out)
    finals = events(finished, "final")
    for client, final in zip(plan["clients"], finals, strict=True):
        assert client["name"] == final["name"]
        assert client["up_run"] == final["bytes_up"]
        assert client["down_run"] == final["bytes_down"]
        parts = client["parameters"]
        trained = parts["generalist"] + parts["specialists"] + parts["router"]
        assert trained == final["trainable"]
        assert client["memory"]["adapters"] == 4 * trained
    assert plan["seconds"] > 0
    assert "device" not in out and "joules" not in out


def test_a_plan_on_devices(yaml_file, tmp_path):
    out, plan = planned(tmp_path, yaml_file, "devices.profiles=[phone-low,laptop,laptop]")
    phone, laptop, _ = (client["device"] for client in plan["clients"])
    flops = plan["clients"][0]["flops"]
    assert phone["profile"] == "phone-low"
    assert phone["seconds"] == pytest.approx(flops / 15e9)
    assert phone["joules"] == pytest.approx(2 * flops / 15e9)
    bytes_up, bytes_down = plan["clients"][0]["up"], plan["clients"][0]["down"]
    assert phone["transfer"] == pytest.approx(bytes_up / 1.4e6 + bytes_down / 6.9e6 + 0.028)
    assert phone["fits"] and laptop["fits"]
    assert "phone-low" in out and "joules" in out


def test_a_plan_has_the_seconds_and_joules_of_the_simulated_clock(tree, tmp_path):
    devices = {"profiles": ["phone-low", "laptop", "board"]}
    path, folder = tmp_path / "devices.yaml", tmp_path / "run"
    path.write_text(json.dumps(tree | {"devices": devices}))
    _, plan = planned(tmp_path, path)
    assert run_cli("run", path, "--out", folder)[0] == 0
    last = {event["client"]: event for event in events(folder, "client") if event["round"] > 1}
    for number, event in last.items():
        device = plan["clients"][number]["device"]
        assert device["seconds"] == pytest.approx(event["sim_compute"])
        assert device["transfer"] == pytest.approx(event["sim_down"] + event["sim_up"])
        assert device["joules"] == pytest.approx(event["sim_joules"])
    assert last


def test_a_plan_says_what_does_not_fit_and_a_run_refuses_it(yaml_file, tmp_path):
    settings = [yaml_file, "devices.profiles=[laptop,small,small]", SMALL]
    out, plan = planned(tmp_path, *settings)
    assert [client["device"]["fits"] for client in plan["clients"]] == [True, False, False]
    assert "2 of 3 clients do not fit on their device: bo, cy" in out
    code, _, err = run_cli("run", *settings, "--out", tmp_path / "run")
    assert code == 2
    assert err.splitlines()[-1].startswith("comigs: client 1 (bo) on small needs")
    assert not (tmp_path / "run").exists()


def test_a_run_keeps_its_devices(yaml_file, tmp_path):
    folder = tmp_path / "run"
    settings = ["devices.profiles={laptop: 1, board: 2}", "devices.fit=derive", "rounds=1"]
    assert run_cli("run", yaml_file, *settings, "--out", folder)[0] == 0
    code, _, err = run_cli("run", "--resume", folder)
    assert code == 0, err
    config = (folder / "config.yaml").read_text()
    assert config.count("- laptop") == 1 and config.count("- board") == 2


def test_clients_that_are_alike_share_a_row(tree, federation, tmp_path):
    text = (federation / "ana.txt").read_text()
    folder = tmp_path / "many"
    folder.mkdir()
    for i in range(60):
        (folder / f"c{i}.txt").write_text(text)
    path = tmp_path / "many.yaml"
    many = {"data": tree["data"] | {"name": str(folder)}, "experts": {"rank": 2}}
    path.write_text(json.dumps(tree | many))
    devices = "devices.profiles={phone-low: 2, laptop: 1}"
    out, plan = planned(tmp_path, path, devices, "participation=0.3")
    assert len(plan["clients"]) == 60
    assert "40 of them" in out and "20 of them" in out
    assert len(out.splitlines()) < 30


@pytest.mark.parametrize("method", ["pretrained", "centralized", "local"])
def test_a_plan_of_methods_that_send_nothing(method, yaml_file, tmp_path):
    _, plan = planned(tmp_path, yaml_file, f"method={method}")
    assert sum(client["up_run"] + client["down_run"] for client in plan["clients"]) == 0
    assert (plan["clients"][0]["flops"] == 0) == (method == "pretrained")


def test_devices_lists_the_library_and_a_files_own(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("devices:\n  define:\n    mine: {like: board, source: measured at home}\n")
    code, out, _ = run_cli("devices", path)
    assert code == 0
    assert "phone-low" in out and "measured at home" in out


def test_every_kind_of_client_is_timed_by_itself(tree, monkeypatch):
    """On some CPUs a bfloat16 base is many times slower: half a minute where 4 s were foretold."""
    slow, timed = {"float32": 1e9, "bfloat16": 1e7}, []

    def measured(client):
        timed.append(kind_of(client))
        return Speed(*[slow[client.dtype]] * 3)

    monkeypatch.setattr("comigs.costs.calibrate.calibrate", measured)
    seconds = {}
    kinds = {"fast": ["float32"] * 3, "mixed": ["float32", "bfloat16", "float32"]}
    for name, dtypes in kinds.items():
        timed.clear()
        _, planned = plan(tree | {"model": tree["model"] | {"dtype": dtypes}})
        assert sorted(model.dtype for model, _ in timed) == sorted(set(dtypes))
        seconds[name] = planned.seconds
    assert seconds["mixed"] > 10 * seconds["fast"]


def test_the_gradients_that_the_metric_of_peers_takes_are_in_the_time(tree, monkeypatch):
    """One batch of each client in round 2 and in the test; in round 1 nothing arrives."""
    monkeypatch.setattr("comigs.costs.calibrate.calibrate", lambda client: Speed(1e9, 1e9, 1e9))
    two = tree | {"method": "pcl", "rounds": 2, "experts": {"rank": 2}}
    config, less = plan(two)
    _, more = plan(two | {"log": {"metrics": ["peers"]}})
    batch = 2 * 16 * token_flops(resolve(config).client(0), 1).expert
    assert more.seconds - less.seconds == pytest.approx(3 * 2 * batch / 1e9)
