"""What the server tells Prometheus, by TensorFlow Serving's names where it has an equal."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

# They would double the page.
disable_created_metrics()

_PREFIX = ":tensorflow:serving:"
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        """Makes a registry of its own, so that several servers in a process don't mix."""
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            f"{_PREFIX}request_count",
            "Requests by model, API (gRPC or REST), method and status.",
            ["model_name", "API", "entrypoint", "status"],
            registry=self._registry,
        )
        self._latency = Histogram(
            f"{_PREFIX}request_latency",
            "Microseconds from a request's arrival to its answer.",
            ["model_name", "API", "entrypoint"],
            buckets=[10.0 * 1.8**i for i in range(33)],
            registry=self._registry,
        )
        self._batches = Histogram(
            f"{_PREFIX}batching_session:processed_batch_size",
            "Sequences of a batch, without those that fill it up.",
            ["model_name"],
            buckets=_SIZES,
            registry=self._registry,
        )
        self._padding = Counter(
            f"{_PREFIX}batching_session:padding_size",
            "Rows that filled batches up to an allowed size.",
            ["model_name"],
            registry=self._registry,
        )
        self._queue = Gauge(
            f"{_PREFIX}batching_session:queued_batches",
            "Batches that wait for a thread or for more requests.",
            registry=self._registry,
        )
        self._runs = Histogram(
            ":tensorflow:core:graph_run_time",
            "Seconds of a run of the graph.",
            registry=self._registry,
        )
        self._versions = Gauge(
            f"{_PREFIX}loaded_version",
            "1 for a version that is served.",
            ["model_name", "version"],
            registry=self._registry,
        )

    def request(self, model: str, api: str, method: str, status: str, seconds: float) -> None:
        """A request was answered; `status` is "OK" or an error's code."""
        self._requests.labels(model, api, method, status).inc()
        self._latency.labels(model, api, method).observe(1e6 * seconds)

    def batch(self, model: str, rows: int, filled: int) -> None:
        """A batch of `rows` sequences runs, filled up to `filled`."""
        self._batches.labels(model).observe(rows)
        self._padding.labels(model).inc(filled - rows)

    def ran(self, seconds: float) -> None:
        """A graph ran."""
        self._runs.observe(seconds)

    def queued(self, batches: int) -> None:
        """So many batches wait."""
        self._queue.set(batches)

    def loaded(self, model: str, version: int, is_loaded: bool) -> None:
        """A version is served from now on, or no longer."""
        if is_loaded:
            self._versions.labels(model, str(version)).set(1)
        else:
            self._versions.remove(model, str(version))

    def text(self) -> bytes:
        """In Prometheus's text format."""
        return generate_latest(self._registry)
