"""What /metrics tells Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from comigs.talk.engine import Engine


class Measures:
    """Counts of one server.

    Attributes:
        requests: by model and status.
        tokens: by model and kind: prompt, completion.
        seconds: of requests, from their arrival to their end, by model.
    """

    def __init__(self, engine: Engine) -> None:
        self._registry = CollectorRegistry()
        registry = self._registry
        self.requests = Counter(
            "comigs_requests", "Requests", ["model", "status"], registry=registry
        )
        self.tokens = Counter("comigs_tokens", "Tokens", ["model", "kind"], registry=registry)
        self.seconds = Histogram(
            "comigs_request_seconds",
            "Seconds of a request",
            ["model"],
            buckets=(0.1, 0.3, 1, 3, 10, 30, 100, 300),
            registry=registry,
        )
        for name, about, read in (
            ("comigs_waiting", "Requests that wait for a row", lambda: engine.waiting),
            ("comigs_active", "Requests that are written for", lambda: engine.active),
            ("comigs_steps", "Passes through the base", lambda: engine.steps),
        ):
            Gauge(name, about, registry=registry).set_function(read)

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self._registry)
