"""The server's metrics for Prometheus: TensorFlow Serving's, with its names and labels.

As there, times are in microseconds. Metrics that TensorFlow Serving does not have begin with
t2aux_.
"""

from __future__ import annotations

import re

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

# They would double the size of the page.
disable_created_metrics()

_SERVING = ":tensorflow:serving:"
_BATCHING = f"{_SERVING}batching_session:"
_CORE = ":tensorflow:core:"
_LOADING = ":tensorflow:cc:saved_model:"
# The limits of TensorFlow Serving's own histograms.
_LATENCIES = [10.0 * 1.8**i for i in range(33)]
_QUEUING = [100.0 * 1.2**i for i in range(52)]
_RUNS = [1000.0 * 2**i for i in range(20)]
_SIZES = [2.0**i for i in range(14)]
# Its names for TensorFlow's session and the threads of batches.
_RUNTIME = "TF1"
_THREAD_POOL = "batch_threads"
# Only requests of these methods are counted.
_INFERENCE = ("Predict", "Classify", "Regress")
# prometheus_client adds it to the name of every counter; TensorFlow Serving does not.
_TOTAL = re.compile(rb"^(# (?:HELP|TYPE) )?(:tensorflow:[\w:]+)_total\b", re.M)


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        """Makes a separate registry, so that servers in one process don't mix."""
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = self._counter(
            f"{_SERVING}request_count", "Requests by model and status.", "model_name", "status"
        )
        name, labels = f"{_SERVING}request_latency", ("model_name", "API", "entrypoint")
        self._latency = self._histogram(name, "Time of a request.", _LATENCIES, *labels)
        name, labels = f"{_SERVING}runtime_latency", ("model_name", "API", "runtime")
        self._runtime = self._histogram(name, "Time of a batch.", _LATENCIES, *labels)
        self._graph_runs = self._counter(f"{_CORE}graph_runs", "Runs of graphs.")
        self._graph_time = self._counter(f"{_CORE}graph_run_time_usecs", "Time of all runs.")
        self._graph_times = self._histogram(
            f"{_CORE}graph_run_time_usecs_histogram", "Time of a run.", _RUNS
        )
        self._queuing = self._histogram(
            f"{_BATCHING}queuing_latency", "Waiting for a batch.", _QUEUING, "thread_pool_name"
        )
        self._batch_runs = self._counter(f"{_BATCHING}wrapped_run_count", "Runs of batches.")
        self._input_sizes = self._histogram(
            f"{_BATCHING}input_batch_size", "Sequences of a request.", _SIZES
        )
        self._batch_sizes = self._histogram(
            f"{_BATCHING}processed_batch_size", "Sequences of a batch, filled up.", _SIZES
        )
        name, sizes = f"{_BATCHING}padding_size", [0.0, *_SIZES]
        self._padding = self._histogram(name, "Rows of padding.", sizes, "execution_batch_size")
        self._loads = self._counter(
            f"{_LOADING}load_attempt_count", "Loads of versions.", "model_path", "status"
        )
        self._load_time = self._counter(
            f"{_LOADING}load_latency", "Time of a version's loads.", "model_path"
        )
        name, labels = f"{_SERVING}model_warmup_latency", ("model_path", "status")
        self._warm_up = self._histogram(name, "Time of a warm-up.", _LATENCIES, *labels)
        self._queue = Gauge(
            "t2aux_serve_queued_batches", "Batches that wait.", registry=self._registry
        )
        name, labels = "t2aux_serve_loaded_version", ["model_name", "version"]
        self._versions = Gauge(name, "Served versions.", labels, registry=self._registry)

    def request(
        self, model: str, entrypoint: str, method: str, status: str, seconds: float
    ) -> None:
        """Records an answered request.

        Args:
            model: The name of the model.
            entrypoint: "GRPC" or "REST".
            method: "Predict" or another method.
            status: "OK" or the code of an error.
            seconds: The time from its arrival to its answer.
        """
        is_inference = method in _INFERENCE
        if is_inference:
            self._requests.labels(model, status).inc()
        if status != "OK" or not (is_inference or entrypoint == "REST"):
            return
        api = method if is_inference else ""
        api = api.lower() if entrypoint == "REST" else api
        self._latency.labels(model, api, entrypoint).observe(1e6 * seconds)

    def answered(self, model: str, api: str, seconds: float) -> None:
        """Records that a model answered a request of "Predict" or "Classify"."""
        self._runtime.labels(model, api, _RUNTIME).observe(1e6 * seconds)

    def queued_for(self, rows: int, seconds: float) -> None:
        """Records how long a request of `rows` sequences waited for its batch."""
        self._input_sizes.observe(rows)
        self._queuing.labels(_THREAD_POOL).observe(1e6 * seconds)

    def batch(self, rows: int, filled: int) -> None:
        """Records a batch of `rows` sequences, padded to `filled`."""
        self._batch_runs.inc()
        self._batch_sizes.observe(filled)
        self._padding.labels(str(filled)).observe(filled - rows)

    def ran(self, seconds: float) -> None:
        """Records a run of a graph."""
        self._graph_runs.inc()
        self._graph_time.inc(round(1e6 * seconds))
        self._graph_times.observe(1e6 * seconds)

    def queued(self, batches: int) -> None:
        """Sets the number of waiting batches."""
        self._queue.set(batches)

    def load(self, path: str, is_loaded: bool, seconds: float) -> None:
        """Records a successful or failed load of a version's folder."""
        self._loads.labels(path, "success" if is_loaded else "fail").inc()
        self._load_time.labels(path).inc(round(1e6 * seconds))

    def warmed_up(self, path: str, status: str, seconds: float) -> None:
        """Records the warm-up of a version. `status` is "OK" or the code of an error."""
        self._warm_up.labels(path, status).observe(1e6 * seconds)

    def loaded(self, model: str, version: int, is_loaded: bool) -> None:
        """Records that a version is now served, or no longer."""
        if is_loaded:
            self._versions.labels(model, str(version)).set(1)
        else:
            self._versions.remove(model, str(version))

    def text(self) -> bytes:
        """The metrics in Prometheus's text format."""
        return _TOTAL.sub(rb"\1\2", generate_latest(self._registry))

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self._registry)

    def _histogram(self, name: str, text: str, limits: list[float], *labels: str) -> Histogram:
        return Histogram(name, text, labels, buckets=limits, registry=self._registry)
