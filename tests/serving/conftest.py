"""A server in a separate thread, over small untrained exports."""

import asyncio
import contextlib
import threading
import types

import grpc
import pytest
import requests
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from t2aux.serving.batching import BatchingOptions
from t2aux.serving.models import ModelConfig
from t2aux.serving.server import Server, ServerOptions
from tests import small_exports

INFOS = {
    "images": small_exports.IMAGES,
    "texts": small_exports.TEXT,
    "vectors": small_exports.VECTORS,
}


@pytest.fixture(scope="session")
def base_paths(tmp_path_factory):
    """An export's base path of each kind, with a version 1, and its classifier."""
    root = tmp_path_factory.mktemp("served")
    made = {}
    for name, info in INFOS.items():
        classifier = small_exports.write(root / name / "1", info, formats=("saved_model",))
        made[name] = (root / name, classifier)
    return made


class Running:
    """A started server, and clients of it."""

    def __init__(self, server, loop):
        self.server = server
        self.loop = loop
        self.url = f"http://127.0.0.1:{server.rest_api_port}"
        self.address = f"127.0.0.1:{server.port}"
        self.channel = grpc.insecure_channel(self.address)
        self.predictions = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.models = model_service_pb2_grpc.ModelServiceStub(self.channel)

    def post(self, path, body):
        """A REST request; returns its status and its JSON."""
        send = {"data": body} if isinstance(body, bytes) else {"json": body}
        answer = requests.post(f"{self.url}/v1/models/{path}", timeout=60, **send)
        return answer.status_code, answer.json()

    def get(self, path):
        answer = requests.get(f"{self.url}{path}", timeout=60)
        return answer.status_code, answer.json()

    def metric(self, name, **labels):
        """A number that Prometheus would read; 0 if it is missing."""
        page = requests.get(f"{self.url}/monitoring/prometheus/metrics", timeout=60).text
        for line in page.splitlines():
            if line.startswith(name) and all(f'{k}="{v}"' in line for k, v in labels.items()):
                return float(line.rsplit(" ", 1)[1])
        return 0.0


@contextlib.contextmanager
def running(configs, **options):
    """Runs a server on free ports in a thread, and stops it well."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def run(coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(120)

    async def make():
        return Server(configs, ServerOptions(port=0, rest_api_port=0, **options))

    server = run(make())
    try:
        run(server.start())
        found = Running(server, loop)
        try:
            yield found
        finally:
            found.channel.close()
            run(server.stop())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(60)
        loop.close()


@pytest.fixture(scope="session")
def server(base_paths):
    """A server of all kinds, which most tests share."""
    configs = [ModelConfig(name, path) for name, (path, _) in base_paths.items()]
    batching = BatchingOptions(max_batch_size=32, allowed_batch_sizes=(1, 2, 4, 8, 16, 32))
    with running(configs, batching=batching, max_request_bytes=1_000_000) as found:
        yield found


@pytest.fixture(scope="session")
def classifiers(base_paths):
    """The classifiers in memory, with what checks them."""
    return types.SimpleNamespace(**{name: made for name, (_, made) in base_paths.items()})
