"""The gRPC services: TensorFlow Serving's PredictionService and ModelService."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    input_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from t2aux.serving import tensors
from t2aux.serving.connections import Budget
from t2aux.serving.request_handler import RequestHandler
from t2aux.serving.status import ServingError, invalid


def _handled(answer: Callable[[Any, Any], Awaitable]) -> Callable[[Any, Any, Any], Awaitable]:
    """Makes a method of a service that counts, keeps the client's deadline and maps errors."""

    @functools.wraps(answer)
    async def handle(self: Any, request: Any, context: Any) -> Any:
        name, model = answer.__name__, request.model_spec.name
        try:
            counted = self._handler.counted("GRPC", name, model, lambda: answer(self, request))
            return await asyncio.wait_for(counted, context.time_remaining())
        except ServingError as error:
            await context.abort(grpc.StatusCode[error.code], error.message)
        except asyncio.TimeoutError:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "The deadline has passed.")

    return handle


def _refused(message: str) -> Callable[[Any, Any, Any], Awaitable]:
    async def refuse(self: Any, request: Any, context: Any) -> None:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, message)

    return refuse


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Predict, Classify and GetModelMetadata; Regress and MultiInference are not implemented."""

    Regress = MultiInference = _refused(
        "The models are classifiers: only Predict and Classify are supported."
    )

    def __init__(self, handler: RequestHandler, max_tensor_bytes: int) -> None:
        """Rejects tensors larger than `max_tensor_bytes`, even if their messages are small."""
        self._handler = handler
        self._max_tensor_bytes = max_tensor_bytes

    @_handled
    async def Predict(self, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
        """Runs a signature."""
        inputs = {
            n: tensors.to_array(t, n, self._max_tensor_bytes) for n, t in request.inputs.items()
        }
        spec, outputs = await self._handler.predict(
            request.model_spec, inputs, list(request.output_filter)
        )
        response = predict_pb2.PredictResponse(model_spec=spec)
        for name, value in outputs.items():
            response.outputs[name].CopyFrom(tensors.to_proto(value))
        return response

    @_handled
    async def Classify(
        self, request: classification_pb2.ClassificationRequest
    ) -> classification_pb2.ClassificationResponse:
        """Classifies tf.Examples."""
        spec, classes, scores = await self._handler.classify(
            request.model_spec, _examples(request.input)
        )
        response = classification_pb2.ClassificationResponse(model_spec=spec)
        for names, values in zip(classes, scores, strict=True):
            entry = response.result.classifications.add()
            for name, value in zip(names, values, strict=True):
                entry.classes.add(label=name.decode("utf-8", "replace"), score=float(value))
        return response

    @_handled
    async def GetModelMetadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """A model's signatures."""
        return await metadata(self._handler, request)


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """GetModelStatus; the configuration can't be changed while serving."""

    HandleReloadConfigRequest = _refused("The configuration can't be changed while serving.")

    def __init__(self, handler: RequestHandler) -> None:
        """Wraps the handler."""
        self._handler = handler

    @_handled
    async def GetModelStatus(
        self, request: get_model_status_pb2.GetModelStatusRequest
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """The states of a model's versions."""
        return self._handler.status(request.model_spec)


class RefuseMalformed(grpc.aio.ServerInterceptor):
    """Rejects requests that are not valid messages, or that exceed the budget.

    gRPC itself would report and log a malformed request as an error of the server.
    """

    def __init__(self, budget: Budget) -> None:
        """Stores the budget for the bytes of requests."""
        self._budget = budget

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        """Parses requests at a point where a failure can be answered."""
        handler = await continuation(details)
        if handler is None or handler.unary_unary is None:
            return handler

        async def answer(content: bytes, context: Any) -> Any:
            with self._budget.reserved() as reserve:
                try:
                    reserve(len(content))
                    request = handler.request_deserializer(content)
                except ServingError as error:
                    await context.abort(grpc.StatusCode[error.code], error.message)
                except DecodeError:
                    await context.abort(
                        grpc.StatusCode.INVALID_ARGUMENT,
                        f"The request is not a valid protobuf message for {details.method}.",
                    )
                return await handler.unary_unary(request, context)

        return grpc.unary_unary_rpc_method_handler(
            answer, response_serializer=handler.response_serializer
        )


async def metadata(
    handler: RequestHandler, request: get_model_metadata_pb2.GetModelMetadataRequest
) -> get_model_metadata_pb2.GetModelMetadataResponse:
    """The response of GetModelMetadata. Raises ServingError."""
    if not request.metadata_field:
        raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
    for field in request.metadata_field:
        if field != "signature_def":
            raise invalid(f"Metadata field {field} is not supported")
    spec = request.model_spec
    async with handler.models.using(spec.name, handler.version(spec)) as servable:
        definitions = get_model_metadata_pb2.SignatureDefMap()
        for name, definition in servable.signature_defs.items():
            definitions.signature_def[name].CopyFrom(definition)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = servable.name
        response.model_spec.version.value = servable.version
        packed = any_pb2.Any()
        packed.Pack(definitions)
        response.metadata["signature_def"].CopyFrom(packed)
        return response


def _examples(source: input_pb2.Input) -> list[bytes]:
    """The serialized examples of a request, each merged with the context, if there is one."""
    if source.WhichOneof("kind") != "example_list_with_context":
        return [example.SerializeToString() for example in source.example_list.examples]
    merged = []
    for example in source.example_list_with_context.examples:
        whole = type(example)()
        whole.CopyFrom(source.example_list_with_context.context)
        whole.MergeFrom(example)
        merged.append(whole.SerializeToString())
    return merged
