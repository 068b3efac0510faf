"""What the service counts, in the text form of Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)
BYTES = tuple(10**power for power in range(2, 9))


class Metrics:
    """Counters of one service, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter("dlf_requests", "Requests answered.", ("route", "status"), registry=registry)
        self.seconds = Histogram(
            "dlf_request_seconds", "From the head of a request to the end of its answer.", ("route",),
            buckets=SECONDS, registry=registry,
        )  # fmt: skip
        self.work_seconds = Histogram(
            "dlf_work_seconds", "What a worker took.", ("task",), buckets=SECONDS, registry=registry
        )
        self.body_bytes = Histogram(
            "dlf_body_bytes", "Bodies of requests that were read whole.", ("route",), buckets=BYTES,
            registry=registry,
        )  # fmt: skip
        self.replaced = Counter(
            "dlf_workers_replaced", "Workers replaced, by reason.", ("reason",), registry=registry
        )

    def watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Show a number that is asked for when it is read."""
        Gauge(name, text, registry=self._registry).set_function(value)

    def text(self) -> bytes:
        """Return all numbers."""
        return generate_latest(self._registry)
