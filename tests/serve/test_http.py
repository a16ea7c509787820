"""The public openai client against a server in this process: what it gets is what clients write."""

import asyncio
import json
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import openai
import pytest
import uvicorn

from comigs.cli.results.serve import _listen
from comigs.data.chats import Turn
from comigs.serve import http
from comigs.serve.http import Limits, make_app
from comigs.serve.models import Models
from comigs.talk.batch import write
from comigs.talk.engine import Engine, Full
from comigs.use.generate import generate_text, open_stages

pytest_plugins = ("tests.fixtures",)

PROMPTS = ("mira tolu", "sanke brifo zelt ando", "no")


@contextmanager
def serving(models, **how):
    """Yield an address and the engine behind it."""
    engine = Engine(models.batches())
    app = make_app(models, engine, **how)
    config = uvicorn.Config(
        app, log_config=None, log_level="error", ws="none", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    with _listen("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", engine
        finally:
            server.should_exit = True
            thread.join()
            engine.close()


@pytest.fixture(scope="module")
def models(finished):
    return Models(open_stages(finished, None, beside=True))


@pytest.fixture(scope="module")
def served(models):
    with serving(models, limits=Limits(body=4000, tokens=40, prompts=3)) as (address, engine):
        yield address, engine


def caller(address, key="none"):
    return openai.OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0)


@pytest.fixture(scope="module")
def client(served):
    return caller(served[0])


def alone(folder, number, asked, tokens, **sampling):
    """What one client writes by itself, without prompt."""
    [stage] = open_stages(folder, [number])
    how = replace(stage.sampling, tokens=tokens, temperature=0, top_k=0, **sampling)
    return "".join(text for _, text in write(stage.batch(), [stage.prompt(0, asked, how)]))


@pytest.mark.slow
def test_every_client_is_a_model_and_so_are_base_and_generalist(client):
    names = [model.id for model in client.models.list()]
    assert names == ["ana", "bo", "cy", "base", "generalist"]
    assert client.models.retrieve("bo").owned_by == "comigs"


@pytest.mark.slow
def test_all_clients_at_once_write_what_each_writes_alone(client, finished, served):
    asked = [(n, text) for n in range(3) for text in PROMPTS]
    engine = served[1]
    before = engine.steps, engine.tokens

    def ask(pair):
        name, text = ("ana", "bo", "cy")[pair[0]], pair[1]
        return client.completions.create(model=name, prompt=text, max_tokens=12, temperature=0)

    with ThreadPoolExecutor(len(asked)) as pool:
        replies = list(pool.map(ask, asked))
    for (number, text), reply in zip(asked, replies, strict=True):
        assert reply.choices[0].text == alone(finished, number, text, 12)
        assert reply.choices[0].finish_reason == "length"
        assert reply.usage.completion_tokens == 12
    assert engine.steps - before[0] < (engine.tokens - before[1]) / 2  # in passes of several


def test_a_chat_is_streamed_as_it_is_written(client, finished):
    messages = [{"role": "user", "content": "mira"}]
    how = {"model": "cy", "messages": messages, "max_tokens": 10, "temperature": 0}
    usual = {"response_format": {"type": "text"}, "store": False}  # what is so anyway
    whole = client.chat.completions.create(**how, **usual)
    assert whole.choices[0].message.role == "assistant"
    assert whole.choices[0].message.content == alone(finished, 2, (Turn("user", "mira"),), 10)
    usage = {"include_usage": True}
    chunks = list(client.chat.completions.create(stream=True, stream_options=usage, **how))
    deltas = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert "".join(d.delta.content or "" for d in deltas) == whole.choices[0].message.content
    assert [d.finish_reason for d in deltas if d.finish_reason] == [whole.choices[0].finish_reason]
    assert chunks[-1].usage == whole.usage
    assert len(deltas) > 3


def test_the_seed_decides_and_a_stop_ends(client, finished):
    def ask(**more):
        how = {"model": "bo", "prompt": "mira tolu", "max_tokens": 20, "top_p": 0.9} | more
        return client.completions.create(temperature=0.8, **how).choices[0]

    first = ask(seed=5, extra_body={"top_k": 50})
    assert f"mira tolu{first.text}" == generate_text(finished, 1, "mira tolu", 20, 5)
    assert ask(seed=6).text != first.text
    word = first.text.split()[2]
    cut = ask(seed=5, extra_body={"top_k": 50}, stop=[word])
    assert cut.text == first.text[: first.text.index(word)] and cut.finish_reason == "stop"


def test_several_prompts_are_several_choices(client, finished):
    reply = client.completions.create(
        model="ana", prompt=list(PROMPTS), max_tokens=5, temperature=0
    )
    assert [choice.index for choice in reply.choices] == [0, 1, 2]
    assert [c.text for c in reply.choices] == [alone(finished, 0, p, 5) for p in PROMPTS]


@pytest.mark.parametrize(
    ("more", "param", "words"),
    [
        ({"n": 2}, "n", "Input should be 1"),
        ({"max_tokens": 41}, "max_tokens", "41 tokens are asked for; at most 40"),
        ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
        ({"prompt": "mira " * 60}, "prompt", "exceed the model's context of 64"),
        ({"prompt": ""}, None, "the prompt is empty"),
        ({"prompt": ["a"] * 4}, "prompt", "give 1 to 3 prompts"),
        ({"prompt": "a" * 5000}, None, "the body has more than 4000 bytes"),
        ({"logprobs": 1}, "logprobs", "logprobs"),
        ({"frequency_penalty": 0.5}, "frequency_penalty", "less than or equal to 0"),
        ({"temperature": 1e-40}, "temperature", "it must be 0 or at least 1e-06"),
        ({"temperature": 3}, "temperature", "less than or equal to 2"),
        ({"stop": [""]}, "stop", "stop is an empty text"),
        ({"extra_body": {"tols": []}}, "tols", "it is not known here"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_refused_in_openais_shape(client, more, param, words):
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(**({"model": "ana", "prompt": "mira"} | more))
    assert words in caught.value.body["message"]
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"


def test_a_model_that_is_not_there_is_told(client):
    with pytest.raises(openai.NotFoundError, match="there are: ana, bo, cy, base, generalist"):
        client.completions.create(model="dee", prompt="mira")


def test_a_place_or_a_way_that_is_not_there_is_told_in_openais_shape(client, served):
    with pytest.raises(openai.NotFoundError) as caught:
        client.embeddings.create(model="ana", input="mira")
    assert "no POST /v1/embeddings here; there are /v1/models" in caught.value.body["message"]
    status, text = fetch(f"{served[0]}/v1/completions")
    assert status == 405 and json.loads(text)["error"]["type"] == "invalid_request_error"


def test_too_many_requests_are_put_off(client, served, monkeypatch):
    def full(requests):
        raise Full("64 requests wait already; ask again later")

    monkeypatch.setattr(served[1], "submit", full)
    with pytest.raises(openai.RateLimitError, match="ask again later"):
        client.completions.create(model="ana", prompt="mira")


def fetch(address, body=None, **headers):
    """Status and text of a plain request."""
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(address, data, headers)) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_health_and_metrics(served, client):
    address, _ = served
    client.completions.create(model="ana", prompt="mira", max_tokens=3)
    assert fetch(f"{address}/health") == (200, '{"status":"ok"}')
    status, text = fetch(f"{address}/metrics")
    assert status == 200
    assert 'comigs_requests_total{model="ana",status="200"}' in text
    assert 'comigs_tokens_total{kind="completion",model="ana"}' in text


def test_a_page_of_elsewhere_gets_nothing(served):
    """Browsers send its own name as host, or a body of another type without asking first."""
    address, _ = served
    assert fetch(f"{address}/v1/models", Host="evil.example")[0] == 400
    status, text = fetch(f"{address}/v1/completions", {"model": "ana", "prompt": "mira"})
    assert status == 400 and "must be application/json" in text


def test_with_a_key_only_who_knows_it_is_answered(models):
    with serving(models, key="schlüssel") as (address, _):
        raw = "schlüssel".encode().decode("latin-1")  # as a header carries it
        assert fetch(f"{address}/v1/models", Authorization=f"Bearer {raw}")[0] == 200
    with serving(models, key="secret") as (address, _):
        assert "ana" in [model.id for model in caller(address, "secret").models.list()]
        for wrong in ("secre", "secrets", "ä"):
            assert fetch(f"{address}/v1/models", Authorization=f"Bearer {wrong}")[0] == 401
        with pytest.raises(openai.AuthenticationError, match="missing or wrong"):
            caller(address, "other").completions.create(model="ana", prompt="mira")
        assert fetch(f"{address}/metrics")[0] == 401
        assert fetch(f"{address}/health")[0] == 200


def test_what_is_not_said_of_tokens_fits_the_bounds(models):
    with serving(models, limits=Limits(tokens=5)) as (address, _):
        reply = caller(address).completions.create(model="ana", prompt="mira", temperature=0)
        assert reply.usage.completion_tokens <= 5


@pytest.mark.parametrize("whole", [False, True], ids=["in its body", "before the answer"])
def test_who_breaks_off_is_let_go_without_a_trace(models, monkeypatch, whole):
    monkeypatch.setattr(http, "BEAT", 0.02)
    engine = Engine(models.batches())
    app = make_app(models, engine, limits=Limits(tokens=60))
    body = json.dumps({"model": "ana", "prompt": "m", "max_tokens": 60}).encode()
    part = {"type": "http.request", "body": body, "more_body": not whole}
    coming, sent = [part, *[{"type": "http.disconnect"}] * 5], []

    async def receive():
        return coming.pop(0)

    async def send(message):
        sent.append(message)

    headers = [(b"host", b"localhost"), (b"content-type", b"application/json; charset=utf-8")]
    scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": headers}
    asyncio.run(app(scope | {"query_string": b"", "root_path": ""}, receive, send))
    engine.close()
    assert engine.tokens < 60
