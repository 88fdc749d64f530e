"""TensorFlow Serving's REST API, and the page with metrics for Prometheus."""

from __future__ import annotations

import asyncio
import re
import urllib.parse
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import HttpVersion11, http_exceptions, web
from google.protobuf import json_format
from tensorflow_serving.apis import get_model_metadata_pb2, model_pb2

from t2aux.serving import grpc_services, json_tensors
from t2aux.serving.connections import Budget, error_response, json_response
from t2aux.serving.request_handler import RequestHandler
from t2aux.serving.status import ServingError, invalid

_MODEL = re.compile(
    r"/v1/models(?:/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?(?::(\w+)|(/metadata))?)?", re.I
)
# Larger bodies are parsed in a thread, so that other requests need not wait.
_LARGE = 1 << 16


class RestHandlers:
    """The handlers of an aiohttp application."""

    def __init__(
        self,
        handler: RequestHandler,
        timeout: float,
        max_bytes: int,
        monitoring_path: str | None,
        budget: Budget | None = None,
    ) -> None:
        """Wraps the handler.

        Args:
            handler: The handler, which is independent of the protocol.
            timeout: The time in seconds to receive and answer a request.
            max_bytes: The maximum size of a request's body; larger ones are rejected.
            monitoring_path: The path of the metrics for Prometheus, or None.
            budget: The budget for the bytes of all requests; None for one request of maximum size.
        """
        self._budget = budget or Budget(max_bytes)
        self._handler = handler
        self._max_bytes = max_bytes
        self._timeout = timeout
        self._monitoring_path = monitoring_path

    async def handle(self, request: web.BaseRequest) -> web.Response:
        """Answers a request. Errors are JSON, too."""
        if request.method == "GET" and request.path == self._monitoring_path:
            headers = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
            return web.Response(body=self._handler.metrics.text(), headers=headers)
        try:
            await _continue(request)
            return json_response(await self._answer(request))
        except ServingError as error:
            response = error_response(error.message, error.http_status)
            if error.http_status in (413, 417, 503, 504):
                # The unread rest of a body would be read as the next request.
                response.force_close()
            return response

    async def _answer(self, request: web.BaseRequest) -> Any:
        # Not decoded yet, since a model's name may contain any character.
        path = request.rel_url.raw_path
        found = _MODEL.fullmatch(path)
        method = request.method
        malformed = invalid(f"Malformed request: {method} {_decoded(path)}")
        if found is None:
            if not path.lower().startswith("/v1/"):
                raise ServingError("NOT_FOUND", malformed.message)
            raise malformed
        name, version, version_label, verb, wants_metadata = found.groups()
        name, version_label = _decoded(name), _decoded(version_label)
        if name is None:
            raise invalid("Missing model name in request.") if method == "GET" else malformed
        spec = model_pb2.ModelSpec(name=name)
        if version:
            if len(version) > 18:
                raise invalid(f"Failed to convert version: {version} to numeric.")
            spec.version.value = int(version)
        if version_label:
            spec.version_label = version_label
        answer: Callable[[], Awaitable[Any]]
        if method == "POST" and (verb or "").lower() in ("predict", "classify"):
            label = verb.lower().capitalize()
            run = self._predict if label == "Predict" else self._classify

            async def answer() -> Any:
                with self._budget.reserved() as reserve:
                    return await run(spec, await self._body(request, reserve))

        elif method == "POST" and (verb or "").lower() == "regress":
            raise ServingError("UNIMPLEMENTED", "Regress is not supported.")
        elif method == "GET" and not verb:
            label = "GetModelMetadata" if wants_metadata else "GetModelStatus"

            async def answer() -> Any:
                if wants_metadata:
                    return await self._metadata(spec)
                return _of_message(self._handler.status(spec))

        else:
            raise malformed
        try:
            counted = self._handler.counted("REST", label, name, answer)
            return await asyncio.wait_for(counted, self._timeout)
        except asyncio.TimeoutError:
            message = f"The request was not received and answered within {self._timeout:g} s."
            raise ServingError("DEADLINE_EXCEEDED", message) from None

    async def _body(
        self, request: web.BaseRequest, reserve: Callable[[int], None]
    ) -> dict[str, Any]:
        body = bytearray()
        try:
            # Already decompressed.
            async for part in request.content.iter_any():
                reserve(len(part))
                body += part
                if len(body) > self._max_bytes:
                    reason = f"The body is larger than the {self._max_bytes} bytes allowed."
                    raise ServingError("RESOURCE_EXHAUSTED", reason, 413)
        except ConnectionError as error:
            raise ServingError("CANCELLED", "The client closed the connection.") from error
        except (web.RequestPayloadError, http_exceptions.HttpProcessingError) as error:
            raise invalid("The body can't be read: it contradicts its headers.") from error
        if len(body) < _LARGE:
            return json_tensors.parse(bytes(body))
        return await asyncio.to_thread(json_tensors.parse, bytes(body))

    async def _predict(self, spec: model_pb2.ModelSpec, body: dict[str, Any]) -> Any:
        async with self._handler.models.using(spec.name, self._handler.version(spec)) as servable:
            signature = servable.signature(body.get("signature_name", ""))
            inputs, form = await asyncio.to_thread(json_tensors.predict_inputs, body, signature)
            outputs = await self._handler.run(servable, signature, inputs)
        return await asyncio.to_thread(json_tensors.predict_answer, outputs, form)

    async def _classify(self, spec: model_pb2.ModelSpec, body: dict[str, Any]) -> Any:
        spec.signature_name = body.get("signature_name", "")
        examples = await asyncio.to_thread(json_tensors.examples, body)
        _, classes, scores = await self._handler.classify(spec, examples)
        return json_tensors.classify_answer(classes, scores)

    async def _metadata(self, spec: model_pb2.ModelSpec) -> Any:
        request = get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec=spec, metadata_field=["signature_def"]
        )
        answer = _of_message(await grpc_services.metadata(self._handler, request))
        # TensorFlow Serving's JSON is that of the map, not of the Any that contains it in gRPC.
        del answer["metadata"]["signature_def"]["@type"]
        return answer


def _of_message(message: Any) -> Any:
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


async def _continue(request: web.BaseRequest) -> None:
    """Answers a client that waits before it sends its body. Raises ServingError."""
    expected = request.headers.get("Expect")
    if expected is None or request.version < HttpVersion11:
        return
    if expected.strip().lower() != "100-continue":
        message = "The only Expect header supported is 100-continue."
        raise ServingError("INVALID_ARGUMENT", message, 417)
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0  # The answer itself has not begun.


def _decoded(part: str | None) -> str | None:
    """A part of a path in readable form."""
    if part is None:
        return None
    raw = urllib.parse.unquote_to_bytes(part.encode("utf-8", "surrogateescape"))
    return raw.decode("utf-8", "replace")
