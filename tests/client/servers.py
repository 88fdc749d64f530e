"""Small servers that answer as TF Serving does, from a real SavedModel; and fail on demand."""

import base64
import collections
import contextlib
import http.server
import json
import threading
import time
from concurrent import futures

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

HTTP_STATUS = {
    "INVALID_ARGUMENT": 400,
    "NOT_FOUND": 404,
    "FAILED_PRECONDITION": 412,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}


class Refused(Exception):
    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


class Model:
    """A model, `name`, whose versions all have the same weights.

    `states` are its versions; `plan` says what becomes of the next Predict requests, one after the
    other: a code of gRPC's that they fail with, a number of seconds that they take longer, or a
    function that changes the outputs. `seen` are the requests: version, signature, batch size.
    """

    name = "made_up"

    def __init__(self, directory, signatures=None):
        """Loads an export, unless its `signatures` are given."""
        self._loaded = None if signatures else tf.saved_model.load(str(directory))
        self._signatures = signatures or self._loaded.signatures
        self.reset()

    def reset(self):
        self.states = {1: "AVAILABLE"}
        self.plan = collections.deque()
        self.statuses = collections.deque()
        self.seen = []
        self.headers = {}
        self.hide = set()

    def status(self, name, version):
        if self.statuses:
            self.states = self.statuses.popleft()
        chosen = {v: s for v, s in self.states.items() if version in (None, v)}
        if name != self.name or not chosen:
            raise Refused("NOT_FOUND", f"Could not find any versions of model {name}")
        return chosen

    def types(self, signature):
        return self._signature(signature).structured_input_signature[1]

    def predict(self, name, version, signature, inputs):
        step = self.plan.popleft() if self.plan else None
        self.seen.append((version, signature, len(next(iter(inputs.values())))))
        if isinstance(step, str):
            raise Refused(step, "as it was planned")
        if isinstance(step, (int, float)):
            time.sleep(step)
        if name != self.name or self.states.get(version) != "AVAILABLE":
            raise Refused(
                "NOT_FOUND", f"Servable not found for request: Specific({name}, {version})"
            )
        function = self._signature(signature)
        try:
            outputs = function(**{n: tf.constant(v) for n, v in inputs.items()})
        except tf.errors.InvalidArgumentError as error:
            raise Refused("INVALID_ARGUMENT", error.message) from error
        outputs = {n: v.numpy() for n, v in outputs.items()}
        return step(outputs) if callable(step) else outputs

    def _signature(self, signature):
        if signature in self.hide or signature not in self._signatures:
            raise Refused("FAILED_PRECONDITION", f'Serving signature key "{signature}" not found.')
        return self._signatures[signature]


class Grpc(
    prediction_service_pb2_grpc.PredictionServiceServicer,
    model_service_pb2_grpc.ModelServiceServicer,
):
    def __init__(self, model):
        self.model = model

    def Predict(self, request, context):
        spec = request.model_spec
        inputs = {n: tf.make_ndarray(t) for n, t in request.inputs.items()}
        try:
            version = spec.version.value or None
            outputs = self.model.predict(spec.name, version, spec.signature_name, inputs)
        except Refused as error:
            context.abort(grpc.StatusCode[error.code], str(error))
        response = predict_pb2.PredictResponse()
        for name, value in outputs.items():
            if not request.output_filter or name in request.output_filter:
                response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
        return response

    def GetModelStatus(self, request, context):
        spec = request.model_spec
        version = spec.version.value if spec.HasField("version") else None
        response = get_model_status_pb2.GetModelStatusResponse()
        try:
            for number, state in self.model.status(spec.name, version).items():
                added = response.model_version_status.add(version=number, state=state)
                if state == "END":
                    added.status.error_message = "it could not be loaded"
        except Refused as error:
            context.abort(grpc.StatusCode[error.code], str(error))
        return response


def rest_handler(model):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_GET(self):
            name, version = self.target(self.path)
            self.answer(lambda: {"model_version_status": self.statuses(name, version)})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            path, method = self.path.rsplit(":", 1)
            assert method == "predict"
            self.answer(lambda: self.predict(*self.target(path), body))

        def target(self, path):
            parts = path.split("/")
            assert parts[:3] == ["", "v1", "models"]
            return parts[3], int(parts[5]) if len(parts) > 4 else None

        def statuses(self, name, version):
            error = {"END": "it could not be loaded"}
            return [
                {
                    "version": str(number),
                    "state": state,
                    "status": {"error_code": "OK", "error_message": error.get(state, "")},
                }
                for number, state in model.status(name, version).items()
            ]

        def predict(self, name, version, body):
            signature = body["signature_name"]
            types = model.types(signature)
            inputs = {
                n: np.array(v, types[n].dtype.as_numpy_dtype) for n, v in body["inputs"].items()
            }
            outputs = model.predict(name, version, signature, inputs)
            if isinstance(outputs, bytes):
                return outputs
            lists = {n: jsonable(np.asarray(v).tolist()) for n, v in outputs.items()}
            return {"outputs": next(iter(lists.values())) if len(lists) == 1 else lists}

        def answer(self, make):
            status = 200
            try:
                made = make()
            except Refused as error:
                status, made = HTTP_STATUS[error.code], {"error": str(error)}
            content = made if isinstance(made, bytes) else json.dumps(made).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            for header, value in model.headers.items():
                self.send_header(header, value)
            self.end_headers()
            self.wfile.write(content)

    return Handler


def jsonable(value):
    if isinstance(value, list):
        return [jsonable(v) for v in value]
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return {"b64": base64.b64encode(value).decode()}
    return value


@contextlib.contextmanager
def serving(model):
    """Serves a model over both protocols; yields their addresses by scheme."""
    server = grpc.server(futures.ThreadPoolExecutor(8))
    servicer = Grpc(model)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(servicer, server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with http_server(rest_handler(model)) as rest_port:
        yield {"grpc": f"grpc://127.0.0.1:{port}", "http": f"http://127.0.0.1:{rest_port}"}
    server.stop(0).wait()


@contextlib.contextmanager
def http_server(handler):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=[0.05])
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
