"""The server: its models and protocols, and how they start and stop."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import grpc
from absl import logging
from aiohttp import web
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from t2aux.addresses import with_port
from t2aux.errors import ServerError, UserError
from t2aux.serving.batching import Batcher, BatchingOptions
from t2aux.serving.connections import Budget, HttpServer
from t2aux.serving.grpc_services import ModelService, PredictionService, RefuseMalformed
from t2aux.serving.metrics import Metrics
from t2aux.serving.models import LoadRetries, ModelConfig, Models
from t2aux.serving.request_handler import RequestHandler
from t2aux.serving.rest import RestHandlers
from t2aux.serving.ssl_config import ServerTls


@dataclasses.dataclass(frozen=True)
class ServerOptions:
    """The options of a server.

    Attributes:
        host: The address to listen on; the default is only reachable from this machine.
        port: The port of gRPC; 0 for any free one.
        rest_api_port: The port of REST; 0 for any free one.
        batching: See `BatchingOptions`.
        poll_seconds: The time in seconds between checks for new versions.
        retries: When to retry loading a failed version.
        rest_timeout: The time in seconds to receive and answer a REST request.
        max_request_bytes: The maximum size of a gRPC message, of a tensor in it, or of a REST body.
        max_pending_bytes: The maximum size of all requests that are being received and answered;
            others are rejected.
        max_connections: The maximum number of REST connections, and of gRPC requests, at once;
            others are rejected.
        grpc_connection_seconds: After this time, a gRPC connection can't begin more requests, and
            is closed when those in flight are answered, or after `rest_timeout`; clients then make
            a new connection. So a client that begins requests but never sends them can't block
            others forever.
        tls: The TLS settings of both ports; None for no TLS.
        grace_seconds: The time in seconds for requests in flight when the server stops.
        monitoring_path: The path of the metrics for Prometheus on the REST port, or None.
    """

    host: str = "127.0.0.1"
    port: int = 8500
    rest_api_port: int = 8501
    batching: BatchingOptions = dataclasses.field(default_factory=BatchingOptions)
    poll_seconds: float = 1.0
    retries: LoadRetries = dataclasses.field(default_factory=LoadRetries)
    rest_timeout: float = 30.0
    max_request_bytes: int = 64 << 20
    max_pending_bytes: int = 256 << 20
    max_connections: int = 1000
    grpc_connection_seconds: float = 3600.0
    tls: ServerTls | None = None
    grace_seconds: float = 10.0
    monitoring_path: str | None = "/monitoring/prometheus/metrics"


class Server:
    """A server in the running event loop.

    Attributes:
        port: The port of gRPC, once started.
        rest_api_port: The port of REST, once started.
        models: The served models.
    """

    def __init__(self, configs: Sequence[ModelConfig], options: ServerOptions) -> None:
        """Prepares the server; see `start`.

        Args:
            configs: The models.
            options: See `ServerOptions`.
        """
        self.port = options.port
        self.rest_api_port = options.rest_api_port
        self._options = options
        self._loader = ThreadPoolExecutor(1, "t2aux-load")
        # Two more threads, for requests that can't be batched.
        self._threads = ThreadPoolExecutor(options.batching.num_batch_threads + 2, "t2aux-run")
        metrics = Metrics()
        self.models = Models(configs, self._loader, metrics, options.retries)
        self._handler = RequestHandler(
            self.models, Batcher(options.batching, self._threads, metrics), metrics
        )
        self._grpc: grpc.aio.Server | None = None
        self._rest: web.ServerRunner | None = None
        self._rest_listener: asyncio.Server | None = None
        self._budget = Budget(options.max_pending_bytes)
        self._poller: asyncio.Task | None = None

    async def start(self) -> None:
        """Loads the models and starts listening.

        Raises:
            UserError: A model can't be loaded, or a port is taken.
        """
        try:
            await self.models.start(self._options.poll_seconds)
            self.models.check()
            await self._start_grpc()
            await self._start_rest()
        except BaseException:
            await self.stop()
            raise
        self._poller = asyncio.ensure_future(self._poll())

    async def stop(self) -> None:
        """Stops accepting requests, answers those in flight, and unloads the models."""
        if self._poller is not None:
            self._poller.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._poller
        if self._grpc is not None:
            await self._grpc.stop(self._options.grace_seconds)
        if self._rest_listener is not None:
            self._rest_listener.close()
        if self._rest is not None:
            await self._rest.cleanup()
        await self.models.close()
        self._threads.shutdown()
        self._loader.shutdown()

    async def _start_grpc(self) -> None:
        options = self._options
        self._grpc = grpc.aio.server(
            maximum_concurrent_rpcs=options.max_connections,
            interceptors=[RefuseMalformed(self._budget)],
            options=[
                ("grpc.max_receive_message_length", options.max_request_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_connection_age_ms", int(options.grpc_connection_seconds * 1000)),
                ("grpc.max_connection_age_grace_ms", int(options.rest_timeout * 1000)),
                # Otherwise two servers could share a port, and each would get some of the requests.
                ("grpc.so_reuseport", 0),
            ],
        )
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            PredictionService(self._handler, options.max_request_bytes), self._grpc
        )
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(
            ModelService(self._handler), self._grpc
        )
        try:
            address = with_port(options.host, options.port)
            if options.tls is None:
                self.port = self._grpc.add_insecure_port(address)
            else:
                self.port = self._grpc.add_secure_port(address, options.tls.credentials())
        except RuntimeError as error:
            raise _taken(options.host, options.port, "port") from error
        await self._grpc.start()

    async def _start_rest(self) -> None:
        options = self._options
        handlers = RestHandlers(
            self._handler,
            options.rest_timeout,
            options.max_request_bytes,
            options.monitoring_path,
            self._budget,
        )
        server = HttpServer(
            handlers.handle,
            options.max_connections,
            access_log=None,
            keepalive_timeout=options.rest_timeout,
            handler_cancellation=True,
        )
        self._rest = web.ServerRunner(server, shutdown_timeout=options.grace_seconds)
        await self._rest.setup()
        try:
            self._rest_listener = await asyncio.get_running_loop().create_server(
                server,
                options.host,
                options.rest_api_port,
                ssl=None if options.tls is None else options.tls.context(),
                ssl_handshake_timeout=None if options.tls is None else options.rest_timeout,
            )
        except OSError as error:
            raise _taken(options.host, options.rest_api_port, "rest_api_port") from error
        self.rest_api_port = self._rest_listener.sockets[0].getsockname()[1]

    async def _poll(self) -> None:
        logged = ""
        while True:
            await asyncio.sleep(self._options.poll_seconds)
            try:
                await self.models.poll()
                logged = ""
            except Exception as error:  # The server continues whatever the files of a version are.
                if repr(error) != logged:
                    logging.exception("Looking for new versions failed.")
                logged = repr(error)


def serve(
    configs: Sequence[ModelConfig],
    options: ServerOptions,
    started: Callable[[Server], None],
) -> None:
    """Serves until SIGTERM or SIGINT.

    Args:
        configs: The models.
        options: See `ServerOptions`.
        started: Called when the server is listening.

    Raises:
        UserError: See `Server.start`.
    """

    async def run() -> None:
        server = Server(configs, options)
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopped.set)
        starting, stopping = (asyncio.ensure_future(c) for c in (server.start(), stopped.wait()))
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await starting
            return
        starting.result()
        started(server)
        await stopping
        logging.info("Stopping: the requests in flight are answered first.")
        await server.stop()

    asyncio.run(run())


def _taken(host: str, port: int, flag: str) -> UserError:
    return ServerError(
        f"Can't listen on {with_port(host, port)}: give another --{flag} (0 for any) or --host."
    )
