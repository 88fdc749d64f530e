"""TensorFlow Serving's own configuration files, in protobuf's text format."""

from __future__ import annotations

import pathlib
from typing import Any

from absl import logging
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from t2aux.errors import SettingError
from t2aux.serving.batching import BatchingOptions
from t2aux.serving.models import ModelConfig
from t2aux.tf_serving.protos import message_classes
from t2aux_ondevice import paths
from t2aux_ondevice.files import read_text

# Messages missing in tensorflow-serving-api, from session_bundle_config.proto,
# monitoring_config.proto and ssl_config.proto. The text format does not use the fields' numbers.
_MESSAGES = message_classes(
    {
        "Int64Value": ("int64 value 1",),
        "StringValue": ("string value 1",),
        "BoolValue": ("bool value 1",),
        "BatchingParameters": (
            "Int64Value max_batch_size 1",
            "Int64Value batch_timeout_micros 2",
            "Int64Value max_enqueued_batches 3",
            "Int64Value num_batch_threads 4",
            "StringValue thread_pool_name 5",
            "repeated int64 allowed_batch_sizes 6",
            "bool pad_variable_length_inputs 7",
            "BoolValue enable_large_batch_splitting 8",
            "Int64Value max_execution_batch_size 9",
        ),
        "PrometheusConfig": ("bool enable 1", "string path 2"),
        "MonitoringConfig": ("PrometheusConfig prometheus_config 1",),
        "SSLConfig": (
            "string server_key 1",
            "string server_cert 2",
            "string custom_ca 3",
            "bool client_verify 4",
        ),
    }
)
_BATCHING_VALUES = (
    "max_batch_size",
    "batch_timeout_micros",
    "max_enqueued_batches",
    "num_batch_threads",
)
# Fields that have no effect here but are accepted, so that one file can be used for both servers.
_WITHOUT_EFFECT = ("thread_pool_name", "enable_large_batch_splitting", "max_execution_batch_size")


def read_models(path: str) -> list[ModelConfig]:
    """Reads --model_config_file, a ModelServerConfig. Raises UserError."""
    entries = parse(path, "ModelServerConfig").model_config_list.config
    names = {entry.name for entry in entries}
    if not names or len(names) < len(entries) or not all(e.name and e.base_path for e in entries):
        raise SettingError(
            f"{path} needs a model_config_list, with a unique name and a base_path in each config."
        )
    configs = []
    for entry in entries:
        policy = entry.model_version_policy
        specific = {"all": None, "specific": tuple(policy.specific.versions)}
        configs.append(
            ModelConfig(
                entry.name,
                pathlib.Path(paths.local(entry.base_path, f"The base_path of {entry.name}")),
                policy.latest.num_versions or 1,
                specific.get(policy.WhichOneof("policy_choice"), ()),
                dict(entry.version_labels),
            )
        )
    return configs


def read_batching(path: str, default: BatchingOptions) -> BatchingOptions:
    """Reads --batching_parameters_file, BatchingParameters. Raises UserError."""
    message = parse(path, "BatchingParameters")
    ignored = [name for name in _WITHOUT_EFFECT if message.HasField(name)]
    if ignored:
        logging.warning("%s sets what has no effect in t2aux serve: %s.", path, ", ".join(ignored))
    values = {
        name: getattr(message, name).value if message.HasField(name) else getattr(default, name)
        for name in _BATCHING_VALUES
    }
    sizes = tuple(message.allowed_batch_sizes)
    return batching_options(allowed_batch_sizes=sizes, source=path, **values)


def batching_options(
    *, allowed_batch_sizes: tuple[int, ...], max_batch_size: int, source: str, **values: int
) -> BatchingOptions:
    """Checks the options of batching.

    Args:
        allowed_batch_sizes: See `BatchingOptions`.
        max_batch_size: See `BatchingOptions`.
        source: The origin of the options, for the message.
        **values: The other options.

    Raises:
        UserError: An option is out of range, or options contradict each other.
    """
    for name, value in {"max_batch_size": max_batch_size, **values}.items():
        if value < (0 if name == "batch_timeout_micros" else 1):
            raise SettingError(f"{source}: {name} is {value}: give a positive number.")
    sizes = allowed_batch_sizes
    if sizes and (sorted(set(sizes)) != list(sizes) or sizes[0] < 1 or sizes[-1] != max_batch_size):
        raise SettingError(
            f"{source}: allowed_batch_sizes are {list(sizes)}: they must increase, and the last "
            f"must be max_batch_size, {max_batch_size}."
        )
    return BatchingOptions(max_batch_size=max_batch_size, allowed_batch_sizes=sizes, **values)


def read_monitoring_path(path: str) -> str | None:
    """Reads --monitoring_config_file. Returns Prometheus' path, or None. Raises UserError."""
    config = parse(path, "MonitoringConfig").prometheus_config
    return (config.path or "/monitoring/prometheus/metrics") if config.enable else None


def parse(path: str, name: str) -> Any:
    """Reads a message of `_MESSAGES`, or a ModelServerConfig, in protobuf's text format.

    Raises:
        UserError: The file can't be read, or is not such a message.
    """
    message = _MESSAGES.get(name, model_server_config_pb2.ModelServerConfig)()
    try:
        return text_format.Parse(read_text(path), message)
    except text_format.ParseError as error:
        # The message may quote a part of a key.
        why = f"look at line {error.GetLine()}" if name == "SSLConfig" else error
        raise SettingError(
            f"{path} is not a valid {name} in protobuf's text format: {why}."
        ) from None
