"""What a device's owner allows holds whatever a server asks; what goes wrong is a code for it."""

import pytest

from comigs.errors import ComigsError
from tests.clients.asking import SECRET, Device, refused

pytest_plugins = ("tests.fixtures",)


@pytest.fixture
def device(tmp_path, tree, monkeypatch):
    monkeypatch.setenv("TOKEN", SECRET)
    (tmp_path / "secret.txt").write_text(SECRET)
    return Device(tmp_path, tree)


@pytest.mark.parametrize(
    ("policy", "settings", "key"),
    [
        ({}, {"threads": 1000}, "threads"),
        ({}, {"local_steps": 10**6}, "local_steps"),
        ({}, {"router.steps": 10**6}, "router.steps"),
        ({}, {"router.steps": 5000, "router.inner_steps": 5000}, "router.steps"),
        ({}, {"rounds": 10**6}, "rounds"),
        ({}, {"batch_size": 65_536, "local_steps": 10_000}, "batch_size"),
        ({}, {"data.name": "/etc"}, "data.name"),
        ({}, {"data.name": "~"}, "data.name"),
        ({}, {"data.name": "multilingual/../multilingual/.."}, "data.name"),
        ({}, {"model.name": "/"}, "model.name"),
        ({}, {"model.name": "gpt2"}, "model.name"),
        ({"methods": ["comigs"]}, {"method": "fedavg"}, "method"),
        ({"threads": 2}, {"threads": 3}, "threads"),
        ({"require": "secagg"}, {}, "privacy"),
        ({"require": "either"}, {}, "privacy"),
        ({"require": "dp"}, {"privacy.mechanism": "client"}, "privacy"),
        (
            {"require": "dp", "clip": 1},
            {"privacy.mechanism": "client", "privacy.where": "client", "privacy.clip": 2.0},
            "privacy",
        ),
        (
            {"threshold": 3},
            {"privacy.secure": "secagg", "privacy.threshold": 2},
            "privacy.threshold",
        ),
    ],
)
def test_the_policy_limits_what_a_server_may_ask(device, tree, policy, settings, key):
    device.write_policy(data=[tree["data"]["name"]], models=[tree["model"]["name"]], **policy)
    refused_files = refused(device, f"not-allowed: {key}", "query", settings=settings)
    assert refused_files == set()


def test_a_device_without_a_policy_has_limits(device, tree, tmp_path):
    del device.node["policy"]
    assert refused(device, "not-allowed: data.name", "query") == set()
    bundled = {"data.name": "multilingual", "model.name": "comigs-tiny", "experts.specialists": 1}
    many = bundled | {"threads": 1000}
    assert refused(device, "not-allowed: threads", "query", settings=many) == set()
    device.ask("query", settings=bundled)


def test_a_policy_beside_the_text_holds_and_names_that_text(device, tmp_path, tree):
    del device.node["policy"]
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "bo.txt").write_text("mira tolu sanke\n" * 200)
    (texts / "clients.json").write_text('["ana", "bo", "cy"]')
    (texts / "device.yaml").write_text(f"models: [{tree['model']['name']}]\nrounds: 3")
    device.ask("query", settings={"data.name": str(texts)})
    more = {"data.name": str(texts), "rounds": 4, "flower.run": "b"}
    assert refused(device, "not-allowed: rounds", "query", settings=more) == set()


def test_a_bad_policy_stops_the_device_with_one_line(device, capfd):
    device.write_policy(thread=3)
    assert refused(device, "bad-policy", "query") == set()
    [line] = capfd.readouterr().err.splitlines()
    assert "device.yaml: unknown key thread; did you mean threads?" in line


def test_an_error_of_the_device_is_a_code_and_its_text_stays_there(device, monkeypatch, capfd):
    def breaks(*_):
        raise RuntimeError(f"no power at {SECRET}")

    monkeypatch.setattr("comigs_clients.app.train_round", breaks)
    with pytest.raises(ComigsError) as caught:
        device.train(1)
    assert str(caught.value) == "refused (failed)"
    assert SECRET in capfd.readouterr().err


def test_the_user_s_own_engine_says_what_went_wrong(device, monkeypatch):
    device.node["embedded"] = True
    monkeypatch.setattr("comigs_clients.app.train_round", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError, match="division by zero"):
        device.train(1)
