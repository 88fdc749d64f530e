"""The handling of requests, which is the same for both protocols."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
from absl import logging
from tensorflow_serving.apis import get_model_status_pb2, model_pb2

from t2aux.serving.batching import Batcher
from t2aux.serving.metrics import Metrics
from t2aux.serving.models import Models
from t2aux.serving.servable import Servable
from t2aux.serving.signature import CLASSIFY, Signature
from t2aux.serving.status import ServingError, invalid

# The name for unknown models in metrics, since clients must not be able to add names.
_UNKNOWN = "unknown"
_CODES = {"OK": 0, "INVALID_ARGUMENT": 3, "FAILED_PRECONDITION": 9, "INTERNAL": 13}


class RequestHandler:
    """The server without its protocols."""

    def __init__(self, models: Models, batcher: Batcher, metrics: Metrics) -> None:
        """Combines the models with a batcher."""
        self.models = models
        self.metrics = metrics
        self._batcher = batcher

    def version(self, spec: model_pb2.ModelSpec) -> int | None:
        """The version that a request names by number or label; None for the newest.

        Raises:
            ServingError: The request names no model, or a label that the model does not have.
        """
        if not spec.name:
            raise invalid("Missing ModelSpec: give the model's name.")
        if spec.version_label:
            return self.models.labelled(spec.name, spec.version_label)
        return spec.version.value if spec.HasField("version") else None

    async def predict(
        self,
        spec: model_pb2.ModelSpec,
        inputs: dict[str, np.ndarray],
        wanted: list[str] | None = None,
    ) -> tuple[model_pb2.ModelSpec, dict[str, np.ndarray]]:
        """Runs a signature.

        Args:
            spec: The model, optionally with a version or a label, and optionally with a signature.
            inputs: The inputs by name.
            wanted: The outputs to return; None or empty for all.

        Returns:
            The model's version and signature, and the outputs by name.

        Raises:
            ServingError: The model does not exist, the request is invalid, or too many are waiting.
        """
        async with self.models.using(spec.name, self.version(spec)) as servable:
            # TensorFlow Serving uses this code only here.
            signature = servable.signature(spec.signature_name, missing="FAILED_PRECONDITION")
            outputs = await self.run(servable, signature, inputs, wanted)
            return _answered(servable, signature), outputs

    async def run(
        self,
        servable: Servable,
        signature: Signature,
        inputs: dict[str, np.ndarray],
        wanted: list[str] | None = None,
    ) -> dict[str, np.ndarray]:
        """Like `predict`, but with a servable that the caller keeps loaded.

        This is for callers that need the signature to parse the request: the version might be
        replaced before it is looked up a second time.
        """
        unknown = sorted(set(wanted or ()) - set(signature.outputs))
        if unknown:
            raise invalid(f"output tensor alias not found in signature: {unknown[0]}")
        outputs = await self._checked("Predict", servable, signature, inputs)
        return {name: outputs[name] for name in wanted} if wanted else outputs

    async def classify(
        self, spec: model_pb2.ModelSpec, examples: list[bytes]
    ) -> tuple[model_pb2.ModelSpec, np.ndarray, np.ndarray]:
        """Classifies serialized tf.Examples.

        Returns:
            The model's version and signature, the classes' names [B, K] (bytes), and their
            scores [B, K].

        Raises:
            ServingError: As for `predict`, or if the signature is not for classification.
        """
        async with self.models.using(spec.name, self.version(spec)) as servable:
            signature = servable.signature(spec.signature_name)
            if signature.method_name != CLASSIFY:
                raise invalid(
                    f"Expected classification signature method_name to be {CLASSIFY}. Was: "
                    f"{signature.method_name}"
                )
            if not examples:
                raise invalid("Input is empty.")
            inputs = {"inputs": np.array(examples, object)}
            outputs = await self._checked("Classify", servable, signature, inputs)
            return _answered(servable, signature), outputs["classes"], outputs["scores"]

    async def _checked(
        self, api: str, servable: Servable, signature: Signature, inputs: dict[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        if signature.reads_examples:  # Parsing them takes time.
            await asyncio.to_thread(signature.check, inputs)
        else:
            signature.check(inputs)
        begin = time.perf_counter()
        outputs = await self._batcher.run(servable, signature, inputs)
        self.metrics.answered(servable.name, api, time.perf_counter() - begin)
        signature.check_answer(outputs)
        return outputs

    def status(self, spec: model_pb2.ModelSpec) -> get_model_status_pb2.GetModelStatusResponse:
        """The states of one or all versions of a model, newest first. Raises ServingError."""
        response = get_model_status_pb2.GetModelStatusResponse()
        wanted = self.version(spec)
        for version in self.models.versions(spec.name):
            if wanted in (None, version.number):
                entry = response.model_version_status.add(version=version.number)
                entry.state = entry.State.Value(version.state)
                entry.status.SetInParent()
                if version.error is not None:
                    entry.status.error_code = _CODES.get(version.error.code, 2)
                    entry.status.error_message = version.error.message
        if not response.model_version_status:
            suffix = "" if wanted is None else f" with version {wanted}"
            message = f"Could not find any versions of model {spec.name}{suffix}"
            raise ServingError("NOT_FOUND", message)
        return response

    async def counted(
        self, entrypoint: str, method: str, model: str, answer: Callable[[], Awaitable]
    ) -> Any:
        """Awaits, counts and times `answer()`. Any failure becomes a ServingError.

        Args:
            entrypoint: "GRPC" or "REST".
            method: "Predict", "Classify", "Regress", "GetModelStatus" or "GetModelMetadata".
            model: The model's name in the request.
            answer: Returns the response.

        Raises:
            ServingError: The request failed.
        """
        begin = time.perf_counter()
        status = "OK"
        try:
            return await answer()
        except ServingError as error:
            status = error.code
            raise
        except asyncio.CancelledError:
            status = "CANCELLED"
            raise
        except Exception as error:
            status = "INTERNAL"
            logging.exception("A %s request failed.", method)
            raise ServingError("INTERNAL", "The server failed; its log says why.") from error
        finally:
            seconds = time.perf_counter() - begin
            known = model if model in self.models.names else _UNKNOWN
            self.metrics.request(known, entrypoint, method, status, seconds)


def _answered(servable: Servable, signature: Signature) -> model_pb2.ModelSpec:
    spec = model_pb2.ModelSpec(name=servable.name, signature_name=signature.name)
    spec.version.value = servable.version
    return spec
