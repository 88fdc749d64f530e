"""TensorFlow Serving's own configuration files, in protobuf's text format."""

from __future__ import annotations

import pathlib
from typing import Any

from absl import logging
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,  # noqa: F401  Puts wrappers.proto into the pool.
)
from tensorflow_serving.config import model_server_config_pb2

from t2aux.errors import UserError
from t2aux.serving.batching import BatchingOptions
from t2aux.serving.models import ModelConfig
from t2aux_ondevice import paths
from t2aux_ondevice.files import read_text

# Messages that tensorflow-serving-api lacks: their fields, as session_bundle_config.proto and
# monitoring_config.proto have them.
_BATCHING_FIELDS = {
    "max_batch_size": "Int64Value",
    "batch_timeout_micros": "Int64Value",
    "max_enqueued_batches": "Int64Value",
    "num_batch_threads": "Int64Value",
    "thread_pool_name": "StringValue",
    "allowed_batch_sizes": "repeated int64",
    "pad_variable_length_inputs": "bool",
    "enable_large_batch_splitting": "BoolValue",
    "max_execution_batch_size": "Int64Value",
}
# Of these, what changes nothing here: a file is for both servers.
_WITHOUT_EFFECT = ("thread_pool_name", "enable_large_batch_splitting", "max_execution_batch_size")
_PROMETHEUS_FIELDS = {"enable": "bool", "path": "string"}


def read_models(path: str) -> list[ModelConfig]:
    """Reads --model_config_file, a ModelServerConfig. Raises UserError."""
    message = model_server_config_pb2.ModelServerConfig()
    parse(path, message, "ModelServerConfig")
    entries = message.model_config_list.config
    names = {entry.name for entry in entries}
    if not names or len(names) < len(entries) or not all(e.name and e.base_path for e in entries):
        raise UserError(
            f"{path} must have a model_config_list with a name of its own and a base_path for each "
            "config."
        )
    configs = []
    for entry in entries:
        policy = entry.model_version_policy
        kind = policy.WhichOneof("policy_choice")
        latest = policy.latest.num_versions or 1
        specific: tuple[int, ...] | None = ()
        if kind == "all":
            specific = None
        elif kind == "specific":
            specific = tuple(policy.specific.versions)
        configs.append(
            ModelConfig(
                entry.name,
                pathlib.Path(paths.local(entry.base_path, f"The base_path of {entry.name}")),
                latest,
                specific,
                dict(entry.version_labels),
            )
        )
    return configs


def read_batching(path: str, default: BatchingOptions) -> BatchingOptions:
    """Reads --batching_parameters_file, BatchingParameters. Raises UserError."""
    message = _message("BatchingParameters", _BATCHING_FIELDS)
    parse(path, message, "BatchingParameters")
    ignored = [name for name in _WITHOUT_EFFECT if message.HasField(name)]
    if ignored:
        logging.warning("%s sets what has no effect in t2aux serve: %s.", path, ", ".join(ignored))

    def value(name: str) -> int:
        if not message.HasField(name):
            return getattr(default, name)
        return getattr(message, name).value

    sizes = tuple(message.allowed_batch_sizes)
    return batching_options(
        max_batch_size=value("max_batch_size"),
        batch_timeout_micros=value("batch_timeout_micros"),
        max_enqueued_batches=value("max_enqueued_batches"),
        num_batch_threads=value("num_batch_threads"),
        allowed_batch_sizes=sizes,
        source=path,
    )


def batching_options(
    *, allowed_batch_sizes: tuple[int, ...], max_batch_size: int, source: str, **values: int
) -> BatchingOptions:
    """Checks the options of batching.

    Args:
        allowed_batch_sizes: See `BatchingOptions`.
        max_batch_size: See `BatchingOptions`.
        source: Where they come from, for the message.
        **values: The others.

    Raises:
        UserError: One is out of range, or they contradict one another.
    """
    for name, value in {"max_batch_size": max_batch_size, **values}.items():
        if value < (0 if name == "batch_timeout_micros" else 1):
            raise UserError(f"{source}: {name} is {value}: give a positive number.")
    sizes = allowed_batch_sizes
    if sizes and (sorted(set(sizes)) != list(sizes) or sizes[0] < 1 or sizes[-1] != max_batch_size):
        raise UserError(
            f"{source}: allowed_batch_sizes are {list(sizes)}: they must rise, and the last must "
            f"be max_batch_size, {max_batch_size}."
        )
    return BatchingOptions(max_batch_size=max_batch_size, allowed_batch_sizes=sizes, **values)


def read_monitoring_path(path: str) -> str | None:
    """Reads --monitoring_config_file: where Prometheus reads, or None. Raises UserError."""
    inner = _message("PrometheusConfig", _PROMETHEUS_FIELDS)
    file = descriptor_pb2.FileDescriptorProto(
        name="t2aux/monitoring_config.proto",
        package="t2aux.serving",
        dependency=["t2aux/PrometheusConfig.proto"],
        syntax="proto3",
    )
    outer = file.message_type.add(name="MonitoringConfig")
    outer.field.add(
        name="prometheus_config",
        number=1,
        label=1,
        type=11,
        type_name=f".{inner.DESCRIPTOR.full_name}",
    )
    message = made(file, "MonitoringConfig")
    parse(path, message, "MonitoringConfig")
    config = message.prometheus_config
    if not config.enable:
        return None
    return config.path or "/monitoring/prometheus/metrics"


def _message(name: str, fields: dict[str, str]) -> Any:
    """An empty message of these fields."""
    file = descriptor_pb2.FileDescriptorProto(
        name=f"t2aux/{name}.proto",
        package="t2aux.serving",
        dependency=["google/protobuf/wrappers.proto"],
        syntax="proto3",
    )
    described = file.message_type.add(name=name)
    plain = {"int64": 3, "bool": 8, "string": 9}
    for number, (field, kind) in enumerate(fields.items(), 1):
        repeated, _, kind = kind.rpartition(" ")
        label = 3 if repeated else 1
        if kind in plain:
            described.field.add(name=field, number=number, label=label, type=plain[kind])
        else:
            type_name = f".google.protobuf.{kind}"
            described.field.add(
                name=field, number=number, label=label, type=11, type_name=type_name
            )
    return made(file, name)


def made(file: descriptor_pb2.FileDescriptorProto, name: str) -> Any:
    """An empty message of a described file."""
    pool = descriptor_pool.Default()
    try:
        described = pool.FindMessageTypeByName(f"{file.package}.{name}")
    except KeyError:
        pool.Add(file)
        described = pool.FindMessageTypeByName(f"{file.package}.{name}")
    return message_factory.GetMessageClass(described)()


def parse(path: str, message: Any, what: str) -> None:
    """Reads a file in protobuf's text format into a message. Raises UserError."""
    text = read_text(path)
    try:
        text_format.Parse(text, message)
    except text_format.ParseError as error:
        # What it quotes of the file may be a part of a key.
        why = f"look at line {error.GetLine()}" if what == "SSLConfig" else error
        raise UserError(f"{path} is not a valid {what} in protobuf's text format: {why}.") from None
