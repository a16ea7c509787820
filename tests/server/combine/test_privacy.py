"""Client-level differential privacy: sensitivity, noise, epsilon, and what is refused."""

import math
import stat
import struct
from statistics import NormalDist

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from hypothesis import given
from hypothesis import strategies as st

import comigs
import comigs_server.resume
from comigs.config.load import load_config, read_config
from comigs.errors import BadInput
from comigs.federation.run import resolve
from comigs.federation.selection import participants
from comigs.local.reference import reference
from comigs.messages.update import clipped, minus, norm_of
from comigs.store.state import read_state, write_state
from comigs_server.combine.accountant import epsilon
from comigs_server.combine.privacy import gaussian, private_mean
from comigs_server.secret import server_secret
from tests.helpers import assert_same_numbers, events, run_and_resumed

pytest_plugins = ("tests.fixtures",)

SECRET = "a" * 64
SHAPES = {"l.lora_A.generalist_0.weight": (2, 3), "l.lora_B.generalist_0.weight": (4, 2)}


@pytest.fixture
def one_secret(monkeypatch):
    """Runs that can be compared have the same secret."""
    monkeypatch.setattr("secrets.token_hex", lambda size: "5" * (2 * size))


def config_of(**privacy):
    return load_config({"privacy": {"mechanism": "client"} | privacy})


def drawn(seed, scale=1.0):
    rng = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=rng) * scale for name, shape in SHAPES.items()}


@given(st.integers(0, 99), st.floats(0.0, 100.0), st.floats(0.01, 10.0))
def test_a_clipped_update_is_no_longer_than_the_limit_and_points_the_same_way(seed, scale, limit):
    update = drawn(seed, scale)
    short = clipped(update, limit)
    assert norm_of(short) <= limit * (1 + 1e-6)
    if norm_of(update) <= limit:
        assert all(torch.equal(short[name], update[name]) for name in update)
    else:
        ratio = limit / norm_of(update)
        for name in update:
            torch.testing.assert_close(short[name], update[name] * ratio)


@given(st.integers(1, 6), st.floats(0.1, 5.0), st.integers(0, 99))
def test_one_client_moves_the_mean_by_at_most_two_clips_over_n(count, clip, seed):
    run = resolve(config_of(clip=clip, noise=0.0))
    sent = {i: drawn(seed + i, 10.0) for i in range(count)}
    other = sent | {0: drawn(seed + 1000, 1e4)}
    kept = drawn(7)
    one, two = (private_mean(run, 1, each, kept, SECRET) for each in (sent, other))
    assert norm_of(minus(one, two)) <= 2 * clip / count * (1 + 1e-4)


def test_without_noise_and_with_a_wide_clip_it_is_the_mean():
    sent = {i: drawn(i) for i in (2, 5, 9)}
    mean = private_mean(resolve(config_of(clip=1e6, noise=0.0)), 1, sent, {}, SECRET)
    for name in SHAPES:
        torch.testing.assert_close(mean[name], sum(s[name] for s in sent.values()) / 3)


def test_noise_has_the_promised_size_and_its_own_stream_for_each_round():
    shape = {"l.lora_B.generalist_0.weight": (300, 200)}
    zero = {i: {name: torch.zeros(s) for name, s in shape.items()} for i in range(4)}
    run = resolve(config_of(clip=0.5, noise=3.0))
    [one] = private_mean(run, 1, zero, {}, SECRET).values()
    assert float(one.std()) == pytest.approx(3.0 * 0.5 / 4, rel=0.02)
    assert abs(float(one.mean())) < 0.01
    [again] = private_mean(run, 1, zero, {}, SECRET).values()
    [other] = private_mean(run, 2, zero, {}, SECRET).values()
    assert torch.equal(one, again)
    assert abs(float((one * other).mean())) < 0.01


def test_noise_is_another_where_secret_or_updates_are_others():
    """A client knows the seed, and a repeated round may have other clients."""
    zero = {i: {name: torch.zeros(s) for name, s in SHAPES.items()} for i in range(3)}
    run = resolve(config_of())
    one = private_mean(run, 1, zero, {}, SECRET)
    for sent, secret in ((zero, "b" * 64), ({i: zero[i] for i in (0, 1)}, SECRET)):
        other = private_mean(run, 1, sent, {}, secret)
        assert not any(torch.equal(one[name], other[name]) for name in SHAPES)


def test_epsilon_is_that_of_the_gaussian_mechanism_and_grows_with_the_rounds():
    """Against the closed form of RDP: multiplier noise / 2, eps = min over orders."""

    def of(rounds, **privacy):
        return epsilon(config_of(**privacy).privacy, [(10, 10)] * rounds)

    values = [of(number, noise=8.0) for number in range(1, 6)]
    assert values == sorted(values)
    for number, value in enumerate(values, 1):
        rho = number / (2 * 4.0**2)
        simple = rho + 2 * math.sqrt(rho * math.log(1 / 1e-5))  # of zCDP: a looser bound
        assert 0.5 * simple < value < simple
    assert of(5, noise=16.0) < values[-1]
    assert of(5, noise=0.0) is None
    assert of(5, noise=8.0, delta=1e-3) < values[-1]


def exact(mu, delta):
    """Epsilon of two Gaussians of std 1, mu apart (arXiv 1805.06530, theorem 8), by halving."""

    def delta_of(value):
        phi = NormalDist().cdf
        return phi(mu / 2 - value / mu) - math.exp(value) * phi(-mu / 2 - value / mu)

    low, high = 0.0, 100.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if delta_of(middle) > delta else (low, middle)
    return high


@pytest.mark.parametrize(("noise", "rounds"), [(8.0, 1), (8.0, 5), (16.0, 100), (40.0, 1000)])
def test_epsilon_is_little_above_the_exact_one_of_all_rounds_together(noise, rounds):
    """Replaced, a client moves every round's sum by 2 clip."""
    told = epsilon(config_of(noise=noise).privacy, [(10, 10)] * rounds)
    least = exact(2 * math.sqrt(rounds) / noise, 1e-5)
    assert least < told < 1.15 * least


def test_drawing_few_of_many_clients_costs_less_and_never_more():
    privacy = config_of(noise=8.0).privacy
    one, half, most, everybody = (epsilon(privacy, [(1000, n)] * 5) for n in (1, 500, 900, 1000))
    assert one < 0.5 * everybody
    assert half <= most <= everybody


def test_epsilon_never_falls_when_clients_join():
    """A hundred rounds of one of three clients get no cheaper by a thousand that join later."""
    privacy = config_of(noise=2.0).privacy
    before = epsilon(privacy, [(3, 1)] * 100)
    after = epsilon(privacy, [(3, 1)] * 100 + [(1003, 10)])
    assert before == pytest.approx(57.4, abs=0.1)
    assert after >= before


def test_the_noise_is_normal_and_of_a_whole_key():
    """Known from ChaCha20's words, two for each uniform number; no bit of the key is idle."""
    key = bytes(range(32))
    words = Cipher(ChaCha20(key, bytes(16)), None).encryptor().update(bytes(32))
    one, two, three, four = (x >> 11 for x in struct.unpack("<4Q", words))
    known = [
        math.sqrt(-2 * math.log((first + 1) / 2**53)) * turn(2 * math.pi * (second + 1) / 2**53)
        for turn in (math.cos, math.sin)
        for first, second in ((one, two), (three, four))
    ]
    assert gaussian(key, 4).tolist() == pytest.approx(known)
    assert gaussian(key, 3).shape == (3,)
    sample = np.sort(gaussian(key, 20001).numpy())
    share = np.array([NormalDist().cdf(x) for x in sample[::100]])
    assert abs(share - np.arange(0, 20001, 100) / 20001).max() < 0.012
    for place in range(32):
        other = bytearray(key)
        other[place] ^= 128
        assert not torch.equal(gaussian(bytes(other), 4), gaussian(key, 4))


def test_nobody_s_update_decides_over_another_s(tree, tmp_path, one_secret):
    """Beside the other two an update of a thousand times their length would be left out."""
    faults = {"poisoned": [1], "scale": 1000.0}
    settings = tree | {"rounds": 1, "local_steps": 1, "faults": faults}
    private = settings | {"privacy": {"mechanism": "client", "noise": 1.0}}
    for name, one, left_out in (("plain", settings, 1), ("private", private, 0)):
        comigs.run(one, out=tmp_path / name)
        assert len(events(tmp_path / name, "failure")) == left_out


@pytest.mark.parametrize("where", ["server", "client"])
def test_a_private_run_tells_epsilon_and_resumes_bit_identical(tree, tmp_path, where, one_secret):
    privacy = {"mechanism": "client", "clip": 0.05, "noise": 1.0, "where": where}
    tree = tree | {"privacy": privacy, "participation": 0.67}
    whole, resumed = run_and_resumed(tree, tmp_path)
    assert_same_numbers(resumed, whole)
    told = [event["epsilon"] for event in events(whole, "round")]
    privacy = load_config(tree).privacy
    assert told == [epsilon(privacy, [(3, 2)] * number) for number in (1, 2, 3)]
    assert read_state(whole / "server", 3)[1]["draws"] == [[3, 2]] * 3


def test_a_checkpoint_without_record_counts_every_round_as_everybody_s(tree, tmp_path, one_secret):
    tree = tree | {"privacy": {"mechanism": "client", "noise": 1.0}, "participation": 0.34}
    folder = comigs.run(tree | {"rounds": 2}, out=tmp_path).folder
    tensors, meta = read_state(folder / "server", 2)
    del meta["draws"]
    write_state(folder / "server", 2, tensors, meta)
    progress = comigs_server.resume.load_progress(read_config(folder), folder / "server", 2)
    assert progress.draws == [(1, 1), (1, 1)]


def test_the_server_s_secret_is_nobody_else_s(tree, tmp_path):
    """Not in any file but its own, which only its owner reads; two runs have different ones."""
    tree = tree | {"privacy": {"mechanism": "client", "noise": 1.0}, "log": {"tensorboard": True}}
    runs = [comigs.run(tree, out=tmp_path / name).folder for name in ("one", "two")]
    secrets = [(run / "server" / "secret").read_text() for run in runs]
    assert secrets[0] != secrets[1]
    assert stat.S_IMODE((runs[0] / "server" / "secret").stat().st_mode) == 0o600
    for path in (p for p in runs[0].rglob("*") if p.is_file() and p.name != "secret"):
        data = path.read_bytes()
        assert secrets[0].encode() not in data and bytes.fromhex(secrets[0]) not in data
    one, two = (read_state(run / "server", 1)[0]["shared"] for run in runs)
    assert not any(torch.equal(one[name], two[name]) for name in one)


def test_who_takes_part_in_a_private_run_does_not_follow_from_the_seed(tree):
    run = resolve(load_config(tree | {"participation": 0.1}))
    drawn = [[participants(run, n, range(100), s) for n in (1, 2)] for s in ("", SECRET)]
    assert drawn[0] != drawn[1]
    assert drawn[1] == [participants(run, n, range(100), SECRET) for n in (1, 2)]


def test_a_damaged_secret_ends_the_run(tmp_path):
    assert server_secret(tmp_path) == server_secret(tmp_path)
    (tmp_path / "secret").write_text("")
    with pytest.raises(comigs.ComigsError, match="is damaged"):
        server_secret(tmp_path)


def test_a_device_that_clips_sends_no_more_than_the_limit(tree, tmp_path):
    """`server.max_norm` at the clip accepts every update; below it, none."""
    privacy = {"mechanism": "client", "clip": 0.05, "noise": 0.0, "where": "client"}
    tree = tree | {"privacy": privacy, "rounds": 2}
    comigs.run(tree | {"server": {"max_norm": 0.0501}}, out=tmp_path / "all")
    assert not events(tmp_path / "all", "failure")
    assert [e["epsilon"] for e in events(tmp_path / "all", "round")] == [None, None]
    with pytest.raises(comigs.ComigsError, match="0 of 3 clients answered"):
        comigs.run(tree | {"server": {"max_norm": 0.0499}}, out=tmp_path / "none")
    assert "update of norm 0.05" in events(tmp_path / "none", "failure")[0]["reason"]


def test_a_round_moves_the_shared_tensors_by_the_clip_at_most(tree, tmp_path):
    privacy = {"mechanism": "client", "clip": 0.03, "noise": 0.0}
    folder = comigs.run(tree | {"privacy": privacy}, out=tmp_path).folder
    one, two, three = (read_state(folder / "server", n)[0]["shared"] for n in (1, 2, 3))
    start = reference(
        resolve(load_config(tree)), 0, 1, {}, {name: tuple(t.shape) for name, t in one.items()}
    )
    for before, after in ((start, one), (one, two), (two, three)):
        assert 0.003 < norm_of(minus(after, before)) <= 0.0301


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"method": "flora"}, "a method that averages; method 'flora' does not"),
        ({"method": "local"}, "a method that averages; method 'local' does not"),
        ({"method": "pretrained"}, "a method that averages"),
        ({"data": {"target": "mixture"}}, "data.target in_distribution"),
        ({"server": {"strategy": "FedMedian"}}, "server.strategy FedAvg; it is 'FedMedian'"),
        ({"server": {"weighting": "samples"}}, "server.weighting uniform; it is 'samples'"),
        ({"server": {"max_norm": 1.0}}, "server.max_norm null where the server cuts"),
        ({"method": "comigs-2g", "experts": {"specialists": [0, 1, 3]}}, "clients that share"),
        ({"privacy": {"clip": 0}}, "privacy.clip is 0"),
        ({"privacy": {"noise": -1}}, "privacy.noise is -1"),
        ({"privacy": {"delta": 1}}, "privacy.delta is 1"),
        ({"privacy": {"mechanism": "record"}}, "privacy.mechanism is 'record'; expected none or"),
    ],
)
def test_what_makes_no_sense_with_privacy_is_refused(settings, reason, tree, tmp_path):
    data = {"data": tree["data"] | settings.get("data", {})}
    tree = tree | {"experts": {"specialists": 1, "rank": 2}} | settings | data
    tree["privacy"] = {"mechanism": "client"} | settings.get("privacy", {})
    with pytest.raises(BadInput, match=reason):
        comigs.run(tree, out=tmp_path)
    assert not list(tmp_path.iterdir())
