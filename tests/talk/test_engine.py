"""The engine: bounded, and one request's trouble is not the others'."""

import queue
import threading

import pytest
import torch

from comigs.backbone.base import load_tokenizer
from comigs.errors import ComigsError
from comigs.mixture.adapters import adapter_parameters
from comigs.talk.batch import Batch, Prompt, write
from comigs.talk.engine import Engine, Full, Request
from comigs.talk.sampling import Sampling
from comigs.talk.voices import Voice, Voices
from tests.talk.voices_of import clients_of


class Gated(Batch):
    """Waits at every step until it is let."""

    def __init__(self, *args):
        super().__init__(*args)
        self.gate = threading.Semaphore(0)
        self.breaks = False

    def step(self):
        self.gate.acquire()
        if self.breaks:
            raise RuntimeError("broken")
        return super().step()


@pytest.fixture
def batch():
    _, models = clients_of("gpt2")
    return Gated(Voices([*map(Voice, models)]), load_tokenizer("comigs-tiny"))


@pytest.fixture
def started(batch):
    engines = []

    def start(**how):
        engines.append(Engine([batch], **how))
        return engines[0]

    yield start
    batch.gate.release(1000)
    for engine in engines:
        engine.close()


def request(voice=0, tokens=4):
    heard = queue.Queue()
    asked = Prompt(voice, (5, 9, 11), Sampling(temperature=0, tokens=tokens))
    return Request(0, asked, heard.put), heard


def ending(heard):
    while True:
        if said := heard.get(timeout=60).ending:
            return said


def begun(engine, *requests):
    """Submit, and wait until the engine reads them."""
    engine.submit([each for each, _ in requests])
    while engine.waiting:
        pass


def test_no_more_wait_than_are_let(started, batch):
    engine = started(rows=1, waiting=2)
    first, second, third = request(0), request(1), request(2)
    begun(engine, first)
    engine.submit([second[0], third[0]])
    with pytest.raises(Full, match="2 requests wait already"):
        engine.submit([request()[0]])
    batch.gate.release(100)
    assert [ending(heard) for _, heard in (first, second, third)] == ["length"] * 3


def test_who_no_longer_listens_makes_room(started, batch):
    engine = started(rows=1)
    lost, next_one = request(0, 50), request(1)
    begun(engine, lost)
    lost[0].gone = True
    engine.submit([next_one[0]])
    batch.gate.release(7)
    assert ending(next_one[1]) == "length"
    assert lost[0].row.written < 50 and not batch.rows


def test_a_request_has_its_time(started, batch):
    engine = started(rows=2, seconds=0)
    late = request()
    engine.submit([late[0]])
    assert ending(late[1]) == "timeout"


def test_a_step_that_fails_ends_its_rows_and_not_the_engine(started, batch, caplog):
    engine = started()
    one = request()
    begun(engine, one)
    batch.breaks = True
    batch.gate.release(1)
    assert ending(one[1]) == "error"
    assert "RuntimeError: broken" in caplog.text
    batch.breaks = False
    two = request()
    engine.submit([two[0]])
    batch.gate.release(10)
    assert ending(two[1]) == "length"


def test_a_model_that_diverged_fails_alone():
    _, models = clients_of("gpt2")
    with torch.no_grad():
        for parameter in adapter_parameters(models[1]).values():
            parameter.fill_(torch.nan)
    voices = Voices([*map(Voice, models)])
    tokenizer = load_tokenizer("comigs-tiny")
    engine = Engine([Batch(voices, tokenizer)])
    asked = [request(0), request(1), request(2)]
    engine.submit([each for each, _ in asked])
    assert [ending(heard) for _, heard in asked] == ["length", "error", "length"]
    engine.close()
    with pytest.raises(ComigsError, match="its training diverged"):
        list(write(Batch(voices, tokenizer), [request(1)[0].prompt]))


def test_what_is_under_way_ends_when_it_is_closed(started, batch):
    engine = started(rows=1)
    one, waits = request(), request()
    begun(engine, one)
    engine.submit([waits[0]])
    threading.Timer(0.05, batch.gate.release, [100]).start()
    engine.close()
    assert {ending(one[1]), ending(waits[1])} <= {"error", "length"}
    with pytest.raises(Full):
        engine.submit([request()[0]])
