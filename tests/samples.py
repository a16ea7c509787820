"""Whole events for tests that care about some of their fields."""

from dataclasses import replace

from comigs.store.events import ClientTrained, Evaluated, RoundDone

TRAINED = ClientTrained(
    round=1, client=0, name="a", loss=5.0, balance=1.0, tokens=64, steps=2, router_steps=1,
    router_tokens=32, num_examples=900, seconds=2.0, train_seconds=1.5, eval_seconds=0.5,
    bytes_up=4096, bytes_down=0, valid_ppl=300.0, norm=0.05,
)  # fmt: skip
ROUND = RoundDone(
    round=1, clients=2, failed=0, loss=4.0, valid_ppl=200.0, seconds=10.0, compute_seconds=8.0,
    tokens_per_second=64.0, bytes_up=2_000_000, bytes_down=0,
)  # fmt: skip
TESTED = Evaluated(
    client=0, name="a", test_tokens=9, pretrained=1234.56, valid=60.0, before=98.76, after=61.728,
    trainable=107_520, bytes_up=786_432, bytes_down=10**9, seconds=75.4, communicated=65_536,
    bits_per_byte=1.375,
)  # fmt: skip


def trained(number, client, name, **more):
    return replace(TRAINED, round=number, client=client, name=name, **more)


def round_done(number, **more):
    return replace(ROUND, round=number, **more)


def final(client, name, **more):
    return replace(TESTED, client=client, name=name, **more)
