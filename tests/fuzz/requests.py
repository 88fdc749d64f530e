"""Requests to a server in this process: the handlers of REST and of gRPC, on a real export."""

import asyncio
import base64
import concurrent.futures
import json
import pathlib

import grpc
import numpy as np
import tensorflow as tf
from aiohttp import streams
from aiohttp.test_utils import make_mocked_request
from google.protobuf.message import DecodeError
from hypothesis import strategies as st
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    predict_pb2,
)

from t2aux.serving.batching import Batcher, BatchingOptions
from t2aux.serving.grpc_services import ModelService, PredictionService
from t2aux.serving.metrics import Metrics
from t2aux.serving.models import ModelConfig, Models
from t2aux.serving.request_handler import RequestHandler
from t2aux.serving.rest import RestHandlers
from tests import networks, small_exports
from tests.fuzz import bodies, mutations, versions
from tests.fuzz.readers import Reader

MOST = 1_000_000
KINDS = {"images": small_exports.IMAGES, "texts": networks.text_info()}


class Served:
    """The server's handler without sockets, in an event loop of its own."""

    def __init__(self, folder: pathlib.Path):
        self.loop = asyncio.new_event_loop()
        self._folder = folder
        self._threads = concurrent.futures.ThreadPoolExecutor(2)
        for name, info in KINDS.items():
            small_exports.write(folder / name / "1", info, ("saved_model",))
        metrics = Metrics()

        async def start():
            models = Models([ModelConfig(n, folder / n) for n in KINDS], self._threads, metrics)
            await models.poll()
            models.check()
            options = BatchingOptions(batch_timeout_micros=0)
            return RequestHandler(models, Batcher(options, self._threads, metrics), metrics)

        self.handler = self.loop.run_until_complete(start())
        self._handlers = RestHandlers(self.handler, 30.0, MOST, "/metrics")

    def readers(self) -> dict[str, Reader]:
        """By name."""
        arrivals = versions.make(self._folder / "versions", self.loop)
        return {
            "rest": self._rest(),
            "grpc": self._grpc(),
            "rest-types": self._rest_types(),
            "versions": arrivals,
        }

    def close(self):
        self._threads.shutdown()
        self.loop.close()

    def _rest(self):
        row = {"inputs": [[0.5]] * 16, "lengths": 16}
        text = base64.b64encode(b"abc").decode()
        images, texts = "/v1/models/images", "/v1/models/texts"
        classify = {"signature_name": "serving_classify"}
        requests = [
            (f"{images}:predict", {"instances": [row, row]}),
            (
                f"{images}/versions/1:predict",
                {"inputs": {"inputs": [row["inputs"]], "lengths": [16]}},
            ),
            (f"{images}:predict", {"signature_name": "initial_state", "inputs": [0]}),
            (
                f"{texts}:predict",
                {"signature_name": "serving_text", "instances": ["abc", {"b64": text}]},
            ),
            (f"{images}:classify", {**classify, "examples": [{"inputs": [0.5] * 16}]}),
            (
                f"{texts}:classify",
                {**classify, "context": {"x": "y"}, "examples": [{"inputs": [1, 2, 3]}]},
            ),
        ]
        bodies = [body for _, body in requests]
        others = [f"{images}:classify", f"{images}/metadata", "/v1/%00", f"{images}/versions/x"]

        right = [st.tuples(st.just(path), mutations.documents([body])) for path, body in requests]
        wrong = st.tuples(st.sampled_from(others), mutations.documents(bodies))
        return Reader(st.one_of(*right, wrong), self._read_rest, requests)

    def _rest_types(self):
        inputs = []
        for name in KINDS:
            answers = bodies.bodies(self.loop.run_until_complete(self._signatures(name)))
            inputs.append(
                answers.map(lambda drawn, name=name: (f"/v1/models/{name}{drawn[0]}", drawn[1]))
            )
        right = {"signature_name": "initial_state", "inputs": [0]}
        return Reader(st.one_of(inputs), self._read_rest, [("/v1/models/images:predict", right)])

    async def _signatures(self, name):
        async with self.handler.models.using(name, None) as servable:
            return servable.signatures

    def _read_rest(self, request):
        path, content = request
        status, answer = self.loop.run_until_complete(self._ask(path, content))
        assert status < 500 or status in (501, 503, 504), (status, answer)
        if status != 200:
            assert answer["error"].strip()
            assert "\n" not in answer["error"]
            for internal in ("Traceback", "stack trace", "node ", "Op:"):
                assert internal not in answer["error"], answer
        return status == 200

    async def _ask(self, path, content):
        stream = streams.StreamReader(_Protocol(), 1 << 20, loop=self.loop)
        stream.feed_data(content)
        stream.feed_eof()
        request = make_mocked_request("POST", path, payload=stream, client_max_size=MOST)
        response = await self._handlers.handle(request)
        return response.status, json.loads(response.body, parse_constant=_no_json)

    def _grpc(self):
        predictions, models = PredictionService(self.handler, MOST), ModelService(self.handler)
        calls = {
            predict_pb2.PredictRequest: predictions.Predict,
            classification_pb2.ClassificationRequest: predictions.Classify,
            get_model_metadata_pb2.GetModelMetadataRequest: predictions.GetModelMetadata,
            get_model_status_pb2.GetModelStatusRequest: models.GetModelStatus,
        }
        seeds = [(type(message), message.SerializeToString()) for message in _messages()]

        def read(request):
            kind, content = request
            try:
                message = kind.FromString(content)
            except DecodeError:  # `RefuseMalformed` informs the client.
                return False
            try:
                self.loop.run_until_complete(calls[kind](message, _Context()))
            except _Aborted as aborted:
                refusal = aborted
            else:
                return True
            assert refusal.code not in ("INTERNAL", "UNKNOWN"), refusal
            assert str(refusal).strip()
            return False

        by_kind = [
            st.tuples(st.just(kind), mutations.files([s for k, s in seeds if k is kind]))
            for kind in calls
        ]
        return Reader(st.one_of(by_kind[0], *by_kind), read, seeds)


def _no_json(name):
    raise AssertionError(f"{name} is not JSON")


class _Aborted(Exception):
    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


class _Context:
    def time_remaining(self):
        return None

    async def abort(self, code: grpc.StatusCode, message: str):
        raise _Aborted(code.name, message)


class _Protocol:
    """What a stream asks of its connection."""

    _reading_paused = False

    def pause_reading(self):
        pass

    def resume_reading(self, resume_parser=True):
        pass


def _messages():
    tensor = np.full([2, 16, 1], 0.5, np.float32)
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "images"
    request.inputs["inputs"].CopyFrom(tf.make_tensor_proto(tensor))
    request.inputs["lengths"].CopyFrom(tf.make_tensor_proto(np.array([16, 16], np.int32)))
    yield request
    texts = predict_pb2.PredictRequest()
    texts.model_spec.name, texts.model_spec.signature_name = "texts", "serving_text"
    name = small_text_input()
    texts.inputs[name].CopyFrom(tf.make_tensor_proto([b"abc", b"\xff"], tf.string))
    texts.output_filter.append("probabilities")
    yield texts
    example = tf.train.Example()
    example.features.feature["inputs"].float_list.value.extend([0.5] * 16)
    raw = predict_pb2.PredictRequest()
    raw.model_spec.name, raw.model_spec.signature_name = "images", "serving_classify"
    raw.inputs["inputs"].CopyFrom(tf.make_tensor_proto([example.SerializeToString()], tf.string))
    yield raw
    classify = classification_pb2.ClassificationRequest()
    classify.model_spec.CopyFrom(raw.model_spec)
    classify.input.example_list.examples.append(example)
    yield classify
    context = classification_pb2.ClassificationRequest()
    context.model_spec.CopyFrom(raw.model_spec)
    context.input.example_list_with_context.context.CopyFrom(example)
    context.input.example_list_with_context.examples.add()
    yield context
    described = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    described.model_spec.name = "images"
    yield described
    status = get_model_status_pb2.GetModelStatusRequest()
    status.model_spec.name = "images"
    status.model_spec.version.value = 1
    yield status


def small_text_input():
    """What the signature `serving_text` calls its input."""
    return "text"
