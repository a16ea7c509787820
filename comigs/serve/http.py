"""The HTTP interface: /v1/models, /v1/completions, /v1/chat/completions, /health, /metrics."""

import asyncio
import hmac
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from comigs.errors import BadInput, ComigsError
from comigs.serve import asked, replies
from comigs.serve.measures import Measures
from comigs.serve.models import Models
from comigs.serve.replies import Choice, Reply, error_body
from comigs.talk import engine as engines
from comigs.talk.batch import Prompt
from comigs.talk.engine import Engine, Full, Said

BEAT = 1.0  # seconds after which it is looked whether whoever asked still listens


@dataclass(frozen=True)
class Limits:
    """What a request may take.

    Attributes:
        body: bytes.
        tokens: written for one text.
        prompts: texts of one request.
        seconds: to send it.
    """

    body: int = 1 << 20
    tokens: int = 1024
    prompts: int = 16
    seconds: float = 30


class Refused(ComigsError):
    """A request that is answered with an error."""

    def __init__(self, status: int, message: str, kind: str, param: str = "", code: str = ""):
        super().__init__(message)
        self.status, self.body = status, error_body(message, kind, param or None, code or None)


def make_app(
    models: Models, engine: Engine, key: str | None = None, limits: Limits | None = None
) -> FastAPI:
    """The interface to models that an engine writes for.

    Args:
        key: what a request must bring as a bearer token; None lets everybody ask.
    """

    async def guard(request: Request) -> None:
        if key is not None and request.url.path != "/health" and not _knows(request, key):
            raise Refused(401, "the API key is missing or wrong", "authentication_error")

    app = FastAPI(openapi_url=None, dependencies=[Depends(guard)])
    if key is None:  # so that no page in a browser gets here under a name of its own
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["localhost", "127.0.0.1", "["])
    measures = Measures(engine)
    desk = Desk(models, engine, measures, limits or Limits())

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> Response:
        return JSONResponse(error.body, error.status)

    @app.exception_handler(HTTPException)
    async def nowhere(request: Request, error: HTTPException) -> Response:
        what = f"{request.method} {request.url.path[:100]}"
        there = "/v1/models, /v1/completions and /v1/chat/completions"
        message = f"there is no {what} here; there are {there}"
        body = error_body(message, "invalid_request_error", None, None)
        return JSONResponse(body, error.status_code, error.headers)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/metrics")
    async def metrics() -> Response:
        return PlainTextResponse(measures.text())

    @app.get("/v1/models")
    async def list_models() -> dict[str, Any]:
        return {"object": "list", "data": [_about(name) for name in models.names]}

    @app.get("/v1/models/{name:path}")
    async def one_model(name: str) -> dict[str, Any]:
        desk.check(name)
        return _about(name)

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        return await desk.answer(request, asked.Completion)

    @app.post("/v1/chat/completions")
    async def chat_completions(request: Request) -> Response:
        return await desk.answer(request, asked.ChatCompletion)

    return app


def _knows(request: Request, key: str) -> bool:
    kind, _, given = request.headers.get("authorization", "").partition(" ")
    return kind.lower() == "bearer" and hmac.compare_digest(given.encode("latin-1"), key.encode())


def _about(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "comigs"}


class Desk:
    """Takes requests, and hands out what the engine writes for them."""

    def __init__(self, models: Models, engine: Engine, measures: Measures, limits: Limits) -> None:
        self._models, self._engine = models, engine
        self._measures, self._limits = measures, limits

    def check(self, name: str) -> None:
        """Raises: Refused, there is no such model."""
        if name not in self._models.names:
            there = ", ".join(self._models.names[:20])
            message = f"there is no model {name[:100]!r}; there are: {there}"
            raise Refused(404, message, "invalid_request_error", "model", "model_not_found")

    async def answer(self, http: Request, kind: type[asked.Asked]) -> Response:
        """The reply to a request, at once or as a stream.

        Raises:
            Refused: it cannot be answered.
        """
        begin = time.monotonic()
        model = ""
        try:
            what = await self._read(http, kind)
            self.check(what.model)
            model = what.model
            prompts = self._prompts(what)
            heard: asyncio.Queue[tuple[int, Said]] = asyncio.Queue()
            requests = [
                engines.Request(self._models.batch(model), prompt, _teller(heard, index))
                for index, prompt in enumerate(prompts)
            ]
            try:
                self._engine.submit(requests)
            except Full as error:
                raise Refused(429, str(error), "rate_limit_error", code="queue_full") from None
            choices = [Choice(index, len(prompt.ids)) for index, prompt in enumerate(prompts)]
        except Refused as error:
            self._measures.requests.labels(model, str(error.status)).inc()
            raise
        chat = kind is asked.ChatCompletion
        name = f"{'chatcmpl' if chat else 'cmpl'}-{secrets.token_hex(12)}"
        reply = Reply(chat, name, int(time.time()), model)
        pieces = self._pieces(http, model, requests, choices, heard, begin)
        if what.stream:
            counts = bool(what.stream_options and what.stream_options.include_usage)
            events = _events(reply, choices, pieces, counts)
            return StreamingResponse(events, media_type="text/event-stream")
        async for _ in pieces:
            pass
        return JSONResponse(reply.whole(choices))

    async def _read(self, http: Request, kind: type[asked.Asked]) -> asked.Asked:
        limits, body = self._limits, bytearray()
        kind_of_body = http.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind_of_body != "application/json":
            raise _invalid("the body must be application/json")
        try:
            async with asyncio.timeout(limits.seconds):
                async for part in http.stream():
                    body += part
                    if len(body) > limits.body:
                        raise _invalid(f"the body has more than {limits.body} bytes")
        except TimeoutError:
            raise _invalid(f"the body took longer than {limits.seconds:g} seconds") from None
        except ClientDisconnect:
            raise _invalid("the body did not come whole") from None
        try:
            return asked.parse(kind, bytes(body))
        except BadInput as error:
            raise _invalid(str(error), error.key) from None

    def _prompts(self, what: asked.Asked) -> list[Prompt]:
        most = self._limits.tokens
        if what.wanted and what.wanted > most:
            raise _invalid(f"{what.wanted} tokens are asked for; at most {most}", "max_tokens")
        try:
            texts = what.texts()
            if not 1 <= len(texts) <= self._limits.prompts:
                raise _invalid(f"give 1 to {self._limits.prompts} prompts", "prompt")
            sampling = what.sampling(what.wanted or min(what.usual or most, most))
            return [self._models.prompt(what.model, t, sampling, not what.wanted) for t in texts]
        except BadInput as error:
            raise _invalid(str(error), error.key) from None

    async def _pieces(
        self,
        http: Request,
        model: str,
        requests: list[engines.Request],
        choices: list[Choice],
        heard: "asyncio.Queue[tuple[int, Said]]",
        begin: float,
    ) -> AsyncGenerator[tuple[Choice, Said], None]:
        """What is written, as it comes.

        Raises:
            Refused: the time is over, or the engine failed.
        """
        status = "499"  # nobody listens any more
        try:
            looked = time.monotonic()
            while not all(choice.ending for choice in choices):
                if time.monotonic() - looked > BEAT:
                    if await http.is_disconnected():
                        return
                    looked = time.monotonic()
                try:
                    async with asyncio.timeout(BEAT):
                        index, said = await heard.get()
                except TimeoutError:
                    continue
                choices[index].take(said)
                if said.ending == "timeout":
                    status = "504"
                    raise Refused(504, "it took too long", "server_error", code="timeout")
                if said.ending == "error":
                    status = "500"
                    raise Refused(500, "the server failed to write it", "server_error")
                yield choices[index], said
            status = "200"
        finally:
            for request in requests:
                request.gone = True
            counts = replies.usage(choices)
            for kind in ("prompt", "completion"):
                self._measures.tokens.labels(model, kind).inc(counts[f"{kind}_tokens"])
            self._measures.requests.labels(model, status).inc()
            self._measures.seconds.labels(model).observe(time.monotonic() - begin)


async def _events(
    reply: Reply,
    choices: list[Choice],
    pieces: AsyncGenerator[tuple[Choice, Said], None],
    counts: bool,
) -> AsyncIterator[str]:
    try:
        for choice in choices:
            for text in reply.begin(choice):
                yield text
        async for choice, said in pieces:
            yield reply.piece(choice, said)
        for text in reply.end(choices, counts):
            yield text
    except Refused as error:
        yield replies.event(error.body)
    finally:
        await pieces.aclose()


def _invalid(message: str, param: str = "") -> Refused:
    return Refused(400, message, "invalid_request_error", param)


def _teller(heard: "asyncio.Queue[tuple[int, Said]]", index: int) -> Callable[[Said], None]:
    """What hands pieces from the engine's thread to this one."""
    loop = asyncio.get_running_loop()

    def tell(said: Said) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(heard.put_nowait, (index, said))

    return tell
