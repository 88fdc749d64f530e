r"""Tests `t2aux serve` under load: lost or wrong answers, memory growth, and gain from batching.

A server in a separate process serves an LSTM of 128 cells over 784 pixels with random weights. Half
of the clients use gRPC and half use REST; they send one request after another, and compare every
answer with that of the version that gave it. In the meantime, a second version with other weights
is published. Then the same clients send requests to two servers, one with and one without batching,
in alternating rounds.

  python -m benchmarks.serving
  python -m benchmarks.serving --seconds=10 --rounds=1 --output=results/serving.json
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import collections
import json
import pathlib
import statistics
import subprocess
import tempfile
import threading
import time

import grpc
import numpy as np
import requests
import tensorflow as tf
from absl import app, flags, logging
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from benchmarks.common import Size, classifier
from benchmarks.server import NAME, serving
from t2aux import files
from t2aux.export import saved_model
from t2aux.export.stateless import StatelessClassifier

_CLIENTS = flags.DEFINE_integer("clients", 32, "Number of clients; half use gRPC, half REST.")
_SECONDS = flags.DEFINE_float("seconds", 60.0, "Seconds of load with the change of version.")
_ROUND = flags.DEFINE_float("round_seconds", 8.0, "Seconds per round with and without batching.")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Rounds with and without batching.", lower_bound=1)
_LENGTH = flags.DEFINE_integer("length", 784, "Steps T of a sequence.", lower_bound=1)
_HIDDEN = flags.DEFINE_integer("hidden", 128, "LSTM cells.", lower_bound=1)
_OUTPUT = flags.DEFINE_string("output", None, "A JSON file for the numbers.")

# Different sequences, some shorter, so that batches are padded.
_SEQUENCES = 16
# Answers are sent in float32, and depend on the batch only by rounding.
_NEAR = 1e-5
_DEADLINE = 60.0


class Question:
    """A sequence in the form of both protocols, and the right answer of each version."""

    def __init__(self, inputs: np.ndarray) -> None:
        """Builds the requests for a sequence [T, 1] once."""
        lengths = np.array([len(inputs)], np.int32)
        self.inputs, self.lengths = inputs[np.newaxis], lengths
        self.grpc = predict_pb2.PredictRequest()
        self.grpc.model_spec.name = NAME
        self.grpc.inputs["inputs"].CopyFrom(tf.make_tensor_proto(self.inputs))
        self.grpc.inputs["lengths"].CopyFrom(tf.make_tensor_proto(lengths))
        self.rest = json.dumps(
            {"inputs": {"inputs": self.inputs.tolist(), "lengths": lengths.tolist()}}
        ).encode()
        self.right: dict[int, np.ndarray] = {}


def questions(length: int) -> list[Question]:
    """Makes the questions, which are the same each time."""
    rng = np.random.default_rng(0)
    steps = rng.integers(max(1, length // 2), length + 1, _SEQUENCES)
    return [Question(rng.random((n, 1)).astype(np.float32)) for n in steps]


def publish(base: pathlib.Path, version: int, size: Size, asked: list[Question]) -> None:
    """Makes a version with new weights, records its answers, and publishes it atomically."""
    network = classifier(size, any_length=True)
    rng = np.random.default_rng(version)
    for variable in network.trainable_variables:
        noise = rng.normal(scale=0.1, size=variable.shape)
        variable.assign_add(tf.cast(noise, variable.dtype))
    staging = base / f".export-{version}"
    staging.mkdir(parents=True)
    saved_model.save(StatelessClassifier(network), staging)
    answer = tf.saved_model.load(str(staging)).signatures["serving_default"]
    for question in asked:
        given = answer(inputs=tf.constant(question.inputs), lengths=tf.constant(question.lengths))
        question.right[version] = given["probabilities"].numpy()[0]
    staging.rename(base / str(version))


def closest(asked: list[Question]) -> float:
    """The smallest difference between two right answers, of any sequences and versions.

    An answer to the wrong client, or from the wrong version, differs by at least this much.
    """
    answers = np.array([answer for question in asked for answer in question.right.values()])
    apart = np.abs(answers[:, np.newaxis] - answers).max(-1)
    return float(apart[~np.eye(len(answers), dtype=bool)].min())


class Load:
    """Clients that send requests until they are stopped, and their results.

    Attributes:
        versions: The number of right answers over gRPC, by the version named in the answer.
        wrong: The number of answers that match no version.
        lost: The reasons of requests without an answer.
        seconds: The times of requests, by protocol.
    """

    def __init__(self, address: str, url: str, asked: list[Question], clients: int) -> None:
        """Starts the clients."""
        self.versions: collections.Counter[int] = collections.Counter()
        self.wrong = 0
        self.lost: list[str] = []
        self.seconds: dict[str, list[float]] = {"gRPC": [], "REST": []}
        self._asked = asked
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._began = time.perf_counter()
        self._threads = [
            threading.Thread(target=self._client, args=(number, address, url), daemon=True)
            for number in range(clients)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> float:
        """Lets each client finish its request. Returns the answers per second."""
        self._stopped.set()
        for thread in self._threads:
            thread.join(2 * _DEADLINE)
            if thread.is_alive():
                self.lost.append("a client never got its answer")
        return self.answers / (time.perf_counter() - self._began)

    @property
    def answers(self) -> int:
        """The number of answers, right or wrong."""
        return sum(map(len, self.seconds.values()))

    def _client(self, number: int, address: str, url: str) -> None:
        protocol = ("gRPC", "REST")[number % 2]
        with grpc.insecure_channel(address) as channel, requests.Session() as session:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            turn = number
            while not self._stopped.is_set():
                question = self._asked[turn % len(self._asked)]
                turn += 1
                begin = time.perf_counter()
                try:
                    if protocol == "gRPC":
                        answer = stub.Predict(question.grpc, timeout=_DEADLINE)
                        version = answer.model_spec.version.value
                        given = tf.make_ndarray(answer.outputs["probabilities"])[0]
                    else:
                        reply = session.post(
                            f"{url}/v1/models/{NAME}:predict",
                            data=question.rest,
                            timeout=_DEADLINE,
                        )
                        reply.raise_for_status()
                        version = None
                        given = np.array(reply.json()["outputs"]["probabilities"][0])
                except Exception as error:  # Any error is counted.
                    with self._lock:
                        self.lost.append(f"{protocol}: {error}"[:300])
                    continue
                seconds = time.perf_counter() - begin
                # REST does not report which version answered.
                known = question.right if version is None else {version: question.right[version]}
                right = any(np.abs(given - r).max() < _NEAR for r in known.values())
                with self._lock:
                    self.seconds[protocol].append(seconds)
                    if not right:
                        self.wrong += 1
                    elif version is not None:
                        self.versions[version] += 1


def resident(process: subprocess.Popen) -> float:
    """The resident memory of a process in MiB. Linux only."""
    for line in pathlib.Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("the server has no VmRSS")


def change_version(
    base: pathlib.Path, size: Size, asked: list[Question], clients: int, seconds: float
) -> dict:
    """Runs the load, and publishes a second version after a third of the time."""
    # Made beforehand, because making it would take the server's cores.
    ready = base.parent / "ready"
    publish(ready, 2, size, asked)
    if (apart := closest(asked)) < 10 * _NEAR:
        raise RuntimeError(f"two right answers are {apart:.1e} apart: mistakes would not be seen")
    with serving(base) as (process, address, url):
        load = Load(address, url, asked, clients)
        begin, memory, changed = time.monotonic(), [], False
        while (now := time.monotonic() - begin) < seconds:
            if not changed and now > seconds / 3:
                (ready / "2").rename(base / "2")
                changed = True
            memory.append((round(now, 1), round(resident(process), 1)))
            time.sleep(min(0.5, seconds / 20))
        rate = load.stop()
    # The second version stays loaded, so memory is compared for the same version over time.
    after = [mib for at, mib in memory if at > seconds / 2]
    half = len(after) // 2
    return {
        "seconds": seconds,
        "closest_answers": apart,
        "requests": load.answers + len(load.lost),
        "lost": len(load.lost),
        "reasons": load.lost[:5],
        "wrong": load.wrong,
        "grpc_answers_by_version": dict(sorted(load.versions.items())),
        "answers_a_second": rate,
        "median_ms": {p: 1000 * statistics.median(s) for p, s in load.seconds.items() if s},
        "mib_before_change": statistics.median(m for at, m in memory if at <= seconds / 3),
        "mib_after_change": statistics.median(after[:half]),
        "mib_at_end": statistics.median(after[half:]),
    }


def batching(
    base: pathlib.Path, asked: list[Question], clients: int, seconds: float, rounds: int
) -> dict:
    """The answers per second of a server with and one without batching, in alternating rounds."""
    rates: dict[str, list[float]] = {"batching": [], "one by one": []}
    lost = wrong = 0
    with serving(base) as together, serving(base, "--noenable_batching") as alone:
        for _ in range(rounds):
            for name, (_, address, url) in (("batching", together), ("one by one", alone)):
                load = Load(address, url, asked, clients)
                time.sleep(seconds)
                rates[name].append(load.stop())
                lost, wrong = lost + len(load.lost), wrong + load.wrong
    pairs = zip(rates["batching"], rates["one by one"], strict=True)
    return {
        "answers_a_second": {name: statistics.median(found) for name, found in rates.items()},
        "rounds": rates,
        "ratio": statistics.median(a / b for a, b in pairs),
        "lost": lost,
        "wrong": wrong,
    }


def measure(clients: int, seconds: float, round_seconds: float, rounds: int, size: Size) -> dict:
    """Runs both parts; see the module's docstring."""
    asked = questions(size.length)
    with tempfile.TemporaryDirectory() as folder:
        base = pathlib.Path(folder) / "base"
        publish(base, 1, size, asked)
        load = change_version(base, size, asked, clients, seconds)
        compared = batching(base, asked, clients, round_seconds, rounds)
    return {
        "clients": clients,
        "cores": os.cpu_count(),
        "length": size.length,
        "hidden": size.hidden,
        "load": load,
        "batching": compared,
    }


def main(argv: list[str]) -> None:
    """Measures and prints the results."""
    logging.set_verbosity(logging.WARNING)
    size = Size(1, _LENGTH.value, _HIDDEN.value, 1, 10)
    found = measure(_CLIENTS.value, _SECONDS.value, _ROUND.value, _ROUNDS.value, size)
    load, compared = found["load"], found["batching"]
    print(
        f"{found['clients']} clients for {load['seconds']:g} s: {load['requests']:,} requests, "
        f"{load['lost']} lost, {load['wrong']} wrong, {load['answers_a_second']:.1f} a second"
    )
    for reason in load["reasons"]:
        print(f"  {reason}")
    print(f"answers over gRPC by version: {load['grpc_answers_by_version']}")
    print("median ms: " + ", ".join(f"{p} {ms:.0f}" for p, ms in load["median_ms"].items()))
    print(
        f"MiB: {load['mib_before_change']:.0f} before the change of version, "
        f"{load['mib_after_change']:.0f} after it, {load['mib_at_end']:.0f} at the end"
    )
    rates = compared["answers_a_second"]
    print(
        f"answers a second: {rates['batching']:.1f} batching, {rates['one by one']:.1f} one by "
        f"one: {compared['ratio']:.2f} times ({compared['lost']} lost, {compared['wrong']} wrong)"
    )
    if _OUTPUT.value:
        files.write_json(_OUTPUT.value, found)


if __name__ == "__main__":
    app.run(main)
