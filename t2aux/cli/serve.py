r"""Serves exported classifiers over TensorFlow Serving's gRPC and REST protocols.

For development, tests and small deployments. The configuration files, most flags and the clients
are those of TensorFlow Serving, so you can keep them when you move there. Only this server has
--host, --max_request_mb, --max_pending_mb, --max_connections, --grace_seconds and the flags from
--max_batch_size to --num_batch_threads. It batches requests unless --noenable_batching is given.
Some of TensorFlow Serving's flags are missing, among them --tensorflow_inter_op_parallelism,
--enable_model_warmup (warm-up is always on) and --grpc_channel_arguments. New versions in a model's
base path are loaded while serving, once all of their files exist. After SIGTERM, the server
completes the requests in flight and exits. It needs the extra `serving`.

Examples:
  t2aux serve --model_base_path=exports/digits
  t2aux serve --model_base_path=exports/digits --model_name=digits --rest_api_port=8080
  t2aux serve --model_config_file=models.config --batching_parameters_file=batching.config
  curl localhost:8501/v1/models/digits
"""

from __future__ import annotations

import pathlib
import re
import urllib.parse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags

from t2aux import logs
from t2aux.addresses import with_port
from t2aux.cli import common
from t2aux.errors import DependencyError, SettingError

if TYPE_CHECKING:
    from t2aux.serving.batching import BatchingOptions
    from t2aux.serving.models import ModelConfig

_BASE_PATH = common.define_path("model_base_path", None, "Folder with a subfolder per version.")
_NAME = flags.DEFINE_string(
    "model_name", None, "The model's name for clients; by default the folder's name."
)
_MODELS = common.define_path("model_config_file", None, "ModelServerConfig of several models.")
_HOST = flags.DEFINE_string(
    "host", "127.0.0.1", "The address to listen on; by default reachable only from this machine."
)
_PORT = flags.DEFINE_integer("port", 8500, "gRPC port; 0: any.", lower_bound=0, upper_bound=65535)
_REST_PORT = flags.DEFINE_integer(
    "rest_api_port", 8501, "REST port; 0: any.", lower_bound=0, upper_bound=65535
)
_BATCHING = flags.DEFINE_bool("enable_batching", True, "Batch requests.")
_BATCHING_FILE = common.define_path(
    "batching_parameters_file", None, "A BatchingParameters file, instead of the batching flags."
)
_BATCH_SIZE = flags.DEFINE_integer(
    "max_batch_size", 128, "Sequences per batch; batches are padded to powers of 2.", lower_bound=1
)
_BATCH_TIMEOUT = flags.DEFINE_integer(
    "batch_timeout_micros", 2000, "Longest wait for others, in microseconds.", lower_bound=0
)
_ENQUEUED = flags.DEFINE_integer(
    "max_enqueued_batches", 100, "Batches that may wait; more are rejected.", lower_bound=1
)
_THREADS = flags.DEFINE_integer("num_batch_threads", 2, "Batches to run at once.", lower_bound=1)
_INTRA = flags.DEFINE_integer(
    "tensorflow_intra_op_parallelism", 0, "Threads per operation; 0: all cores.", lower_bound=0
)
_POLL = flags.DEFINE_float(
    "file_system_poll_wait_seconds", 1.0, "Seconds between version checks.", lower_bound=0.01
)
_RETRY_INTERVAL = flags.DEFINE_integer(
    "load_retry_interval_micros",
    60_000_000,
    "Longest pause before loading a failed version is retried; the first pause is 1 s.",
    lower_bound=0,
)
_RETRIES = flags.DEFINE_integer(
    "max_num_load_retries",
    None,
    "How many times to retry a failed version whose files do not change; by default, no limit.",
    lower_bound=0,
)
_REST_TIMEOUT = flags.DEFINE_integer(
    "rest_api_timeout_in_ms", 30_000, "Time to receive and answer a REST request.", lower_bound=1
)
_REQUEST_MB = flags.DEFINE_integer(
    "max_request_mb", 64, "Maximum size of a request, in MB.", lower_bound=1, upper_bound=2047
)
_SSL = common.define_path(
    "ssl_config_file",
    None,
    "An SSLConfig file like TensorFlow Serving's: TLS on both ports, with its certificate.",
)
_PENDING_MB = flags.DEFINE_integer(
    "max_pending_mb", 256, "Limit for all pending requests, in MB.", lower_bound=1
)
_CONNECTIONS = flags.DEFINE_integer(
    "max_connections", 1000, "Limit for REST connections, and for gRPC requests.", lower_bound=1
)
_GRACE = flags.DEFINE_float(
    "grace_seconds", 10.0, "Time to finish the requests in flight after SIGTERM.", lower_bound=0.0
)
_MONITORING = common.define_path(
    "monitoring_config_file", None, "A MonitoringConfig file; by default Prometheus metrics are on."
)


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    common.no_arguments(argv)
    if (_BASE_PATH.value is None) == (_MODELS.value is None):
        raise SettingError("Give either --model_base_path or --model_config_file.")
    logs.quiet_tensorflow()
    try:
        from t2aux.serving import configuration, server
        from t2aux.serving.models import LoadRetries
    except ImportError as error:
        if (error.name or "").startswith("t2aux"):
            raise
        raise DependencyError(
            f"Serving needs more packages ({error}): install them with "
            "`pip install 't2aux[serving]'`."
        ) from error
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(_INTRA.value)
    monitoring = server.ServerOptions.monitoring_path
    if _MONITORING.value is not None:
        monitoring = configuration.read_monitoring_path(_MONITORING.value)
    tls = None
    if _SSL.value is not None:
        from t2aux.serving.ssl_config import read_ssl_config

        tls = read_ssl_config(_SSL.value)
    options = server.ServerOptions(
        host=_HOST.value,
        port=_PORT.value,
        rest_api_port=_REST_PORT.value,
        batching=_batching(),
        poll_seconds=_POLL.value,
        retries=LoadRetries(max_pause=_RETRY_INTERVAL.value / 1e6, max_retries=_RETRIES.value),
        rest_timeout=_REST_TIMEOUT.value / 1000,
        max_request_bytes=_REQUEST_MB.value * 1_000_000,
        max_pending_bytes=max(_PENDING_MB.value, _REQUEST_MB.value) * 1_000_000,
        max_connections=_CONNECTIONS.value,
        tls=tls,
        grace_seconds=_GRACE.value,
        monitoring_path=monitoring,
    )
    server.serve(_models(), options, _started)


def _models() -> list[ModelConfig]:
    from t2aux.serving import configuration
    from t2aux.serving.models import ModelConfig

    if _MODELS.value is not None:
        return configuration.read_models(_MODELS.value)
    path = pathlib.Path(_BASE_PATH.value)
    name = path.resolve().name if _NAME.value is None else _NAME.value
    # The name is part of URLs and protocol buffers.
    if not re.fullmatch(r"[^/:\ud800-\udfff]+", name):
        raise SettingError(
            f"A model can't be called {name!r}: give a --model_name in UTF-8, without / and :."
        )
    return [ModelConfig(name, path)]


def _batching() -> BatchingOptions:
    from t2aux.serving import configuration
    from t2aux.serving.batching import BatchingOptions

    if not _BATCHING.value:
        return BatchingOptions(enabled=False, num_batch_threads=_THREADS.value)
    if _BATCHING_FILE.value is not None:
        return configuration.read_batching(_BATCHING_FILE.value, BatchingOptions())
    largest = _BATCH_SIZE.value
    sizes = [2**i for i in range(largest.bit_length()) if 2**i < largest]
    return configuration.batching_options(
        max_batch_size=largest,
        batch_timeout_micros=_BATCH_TIMEOUT.value,
        max_enqueued_batches=_ENQUEUED.value,
        num_batch_threads=_THREADS.value,
        allowed_batch_sizes=(*sizes, largest),
        source="The flags",
    )


def _started(server: object) -> None:
    models = server.models  # type: ignore[attr-defined]
    for name in models.names:
        print(f"Serving {name}, version {', '.join(map(str, models.available(name)))}.")
    scheme = "http" if _SSL.value is None else "https"
    grpc = with_port(_HOST.value, server.port)  # type: ignore[attr-defined]
    rest = with_port(_HOST.value, server.rest_api_port)  # type: ignore[attr-defined]
    urls = [f"{scheme}://{rest}/v1/models/{urllib.parse.quote(n, safe='')}" for n in models.names]
    print(f"gRPC at {grpc}, REST at {', '.join(urls)}", flush=True)
