"""TF Serving's gRPC services, without TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc
import numpy as np

from t2aux.client.client_tls import ClientTls
from t2aux.client.client_tls import failure as tls_failure
from t2aux.client.retries import BAD_ANSWER, RESOURCE_EXHAUSTED, UNAVAILABLE, Failure
from t2aux.client.transport import Status, name_with_port
from t2aux.tf_serving import protos

_OPTIONS = (
    # Long sequences in large batches are more than gRPC's 4 MB.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # Retries are ours: gRPC's would come on top, and it waits up to minutes to connect again.
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # As over REST, http_proxy is not for a server that is named by host and port.
    ("grpc.enable_http_proxy", 0),
)
# What gRPC says, among other things, where something else than gRPC listens.
_OTHER_PROTOCOL = ("http1", "http/1", "http2 frame", "http/2", "settings frame", "wrong version")


class GrpcTransport:
    """A gRPC channel to a server.

    Attributes:
        address: grpc://HOST:PORT, or grpcs:.
    """

    def __init__(self, host: str, port: int, tls: ClientTls | None = None) -> None:
        """Makes the channel; it connects with the first request."""
        self.address = name_with_port("grpcs" if tls else "grpc", host, port)
        self._with_tls = tls is not None
        target = self.address.partition("://")[2]
        self._channel = (
            grpc.secure_channel(target, grpc.ssl_channel_credentials(*tls.pem()), options=_OPTIONS)
            if tls
            else grpc.insecure_channel(target, options=_OPTIONS)
        )
        self._predict = self._channel.unary_unary(
            "/tensorflow.serving.PredictionService/Predict",
            request_serializer=protos.PredictRequest.SerializeToString,
            response_deserializer=protos.PredictResponse.FromString,
        )
        self._status = self._channel.unary_unary(
            "/tensorflow.serving.ModelService/GetModelStatus",
            request_serializer=protos.GetModelStatusRequest.SerializeToString,
            response_deserializer=protos.GetModelStatusResponse.FromString,
        )

    def predict(
        self,
        model: str,
        version: int,
        signature: str,
        inputs: dict[str, np.ndarray],
        outputs: Sequence[str],
        timeout: float,
    ) -> dict[str, np.ndarray]:
        """See `Transport`."""
        request = protos.PredictRequest(output_filter=outputs)
        _set_model(request, model, version)
        request.model_spec.signature_name = signature
        for name, array in inputs.items():
            request.inputs[name].CopyFrom(protos.to_tensor(array))
        response = self._call(self._predict, request, timeout)
        try:
            return {name: protos.to_array(response.outputs[name]) for name in outputs}
        except ValueError as error:
            reason = f"its answer is no tensors of the signature {signature} ({error})"
            raise Failure(BAD_ANSWER, reason) from error

    def status(self, model: str, version: int | None, timeout: float) -> list[Status]:
        """See `Transport`."""
        request = protos.GetModelStatusRequest()
        _set_model(request, model, version)
        response = self._call(self._status, request, timeout)
        return [
            Status(s.version, protos.STATES.get(s.state, "UNKNOWN"), s.status.error_message)
            for s in response.model_version_status
        ]

    def close(self) -> None:
        """See `Transport`."""
        self._channel.close()

    def _call(self, method: Any, request: Any, timeout: float) -> Any:
        try:
            return method(request, timeout=timeout)
        except grpc.RpcError as error:
            raise self._failure(error.code().name, error.details() or "no reason given") from error

    def _failure(self, code: str, details: str) -> Failure:
        told = tls_failure(details) if self._with_tls and code == UNAVAILABLE else None
        if told is not None:
            return told
        if code in (UNAVAILABLE, "UNKNOWN", "INTERNAL") and any(
            sign in details.lower() for sign in _OTHER_PROTOCOL
        ):
            return Failure(
                BAD_ANSWER,
                "what listens there does not speak gRPC; for its REST port, write http://HOST:PORT",
            )
        if code == "INTERNAL" and "deserializing" in details:
            return Failure(BAD_ANSWER, "its answer is not a message of TF Serving")
        too_large = "larger than max" in details
        may_pass = code in (UNAVAILABLE, RESOURCE_EXHAUSTED) and not too_large
        return Failure(code, details, may_pass=may_pass)


def _set_model(request: Any, model: str, version: int | None) -> None:
    request.model_spec.name = model
    if version is not None:
        request.model_spec.version.value = version
