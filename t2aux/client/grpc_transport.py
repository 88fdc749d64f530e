"""TF Serving's gRPC services, without TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc

from t2aux.addresses import with_port
from t2aux.client.client_tls import ClientTls
from t2aux.client.client_tls import failure as tls_failure
from t2aux.client.retries import BAD_ANSWER, RESOURCE_EXHAUSTED, UNAVAILABLE, Failure
from t2aux.client.transport import Arrays, Spec, Status
from t2aux.tf_serving import protos

_OPTIONS = (
    # Large batches of long sequences exceed gRPC's default limit of 4 MB.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # The client retries itself. gRPC's own retries would be added to that, and wait up to minutes.
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # As with REST, http_proxy is not used, since the server is given by host and port.
    ("grpc.enable_http_proxy", 0),
)
# Parts of gRPC's messages about a server that does not speak gRPC.
_OTHER_PROTOCOL = ("http1", "http/1", "http2 frame", "http/2", "settings frame", "wrong version")


class GrpcTransport:
    """A gRPC channel to a server.

    Attributes:
        address: grpc://HOST:PORT, or grpcs:.
    """

    def __init__(self, host: str, port: int, tls: ClientTls | None = None) -> None:
        """Makes the channel, which connects on the first request."""
        target = with_port(host, port)
        self.address = f"{'grpcs' if tls else 'grpc'}://{target}"
        self._with_tls = tls is not None
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
        self, spec: Spec, signature: str, inputs: Arrays, outputs: Sequence[str], timeout: float
    ) -> Arrays:
        """See `Transport`."""
        request = _of(spec, protos.PredictRequest(output_filter=outputs))
        request.model_spec.signature_name = signature
        for name, array in inputs.items():
            request.inputs[name].CopyFrom(protos.to_tensor(array))
        response = self._call(self._predict, request, timeout)
        try:
            return {name: protos.to_array(response.outputs[name]) for name in outputs}
        except ValueError as error:
            reason = f"its outputs are not those of the signature {signature} ({error})"
            raise Failure(BAD_ANSWER, reason) from error

    def status(self, spec: Spec, timeout: float) -> list[Status]:
        """See `Transport`."""
        request = _of(spec, protos.GetModelStatusRequest())
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
        if self._with_tls and code == UNAVAILABLE and (failure := tls_failure(details)):
            return failure
        is_other = any(sign in details.lower() for sign in _OTHER_PROTOCOL)
        if is_other and code in (UNAVAILABLE, "UNKNOWN", "INTERNAL"):
            reason = "it does not speak gRPC; for its REST port, write http://HOST:PORT"
            return Failure(BAD_ANSWER, reason)
        if code == "INTERNAL" and "deserializing" in details:
            return Failure(BAD_ANSWER, "its response is not a message of TF Serving")
        too_large = "larger than max" in details
        may_pass = code in (UNAVAILABLE, RESOURCE_EXHAUSTED) and not too_large
        return Failure(code, details, may_pass=may_pass)


def _of(spec: Spec, request: Any) -> Any:
    request.model_spec.name = spec.model
    if spec.version is not None:
        request.model_spec.version.value = spec.version
    return request
