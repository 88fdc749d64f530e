r"""`t2aux serve` under load: is any answer lost or wrong, does memory grow, what is batching worth?

A server in a process of its own serves an LSTM of 128 cells over 784 pixels with random weights.
Clients ask over gRPC and REST in turn, one request after another, and compare every answer with the
version's that gave it. In the middle a second version, with other weights, is put in place. The
same clients then ask two servers, one that batches and one that does not, in turn, in rounds.

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

_CLIENTS = flags.DEFINE_integer("clients", 32, "At once; half over gRPC, half over REST.")
_SECONDS = flags.DEFINE_float("seconds", 60.0, "Of the load with the change of version.")
_ROUND = flags.DEFINE_float("round_seconds", 8.0, "Of each round with and without batching.")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "With and without batching each.", lower_bound=1)
_LENGTH = flags.DEFINE_integer("length", 784, "Steps T of a sequence.", lower_bound=1)
_HIDDEN = flags.DEFINE_integer("hidden", 128, "LSTM cells.", lower_bound=1)
_OUTPUT = flags.DEFINE_string("output", None, "A JSON file for the numbers.")

# Different sequences, some shorter, so that batches are padded.
_SEQUENCES = 16
# Answers travel in float32, and depend on the batch by rounding alone.
_NEAR = 1e-5
_DEADLINE = 60.0


class Question:
    """A sequence in both protocols' form, and each version's right answer to it."""

    def __init__(self, inputs: np.ndarray) -> None:
        """Writes the requests of a sequence [T, 1] once."""
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
    """The same ones each time."""
    rng = np.random.default_rng(0)
    steps = rng.integers(max(1, length // 2), length + 1, _SEQUENCES)
    return [Question(rng.random((n, 1)).astype(np.float32)) for n in steps]


def publish(base: pathlib.Path, version: int, size: Size, asked: list[Question]) -> None:
    """Makes a version with weights of its own, notes its answers, and puts it in place whole."""
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
    """How far apart two right answers are at least, of any sequences and versions.

    An answer that was given to the wrong client, or by the wrong version, is off by as much.
    """
    answers = np.array([answer for question in asked for answer in question.right.values()])
    apart = np.abs(answers[:, np.newaxis] - answers).max(-1)
    return float(apart[~np.eye(len(answers), dtype=bool)].min())


class Load:
    """Clients that ask until they are stopped, and what they saw.

    Attributes:
        versions: Right answers over gRPC by the version that it names.
        wrong: Answers that are no version's.
        lost: Requests without an answer, with the reason.
        seconds: Of each request, by protocol.
    """

    def __init__(self, address: str, url: str, asked: list[Question], clients: int) -> None:
        """Starts them."""
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
        """Lets each client finish its request; returns answers a second."""
        self._stopped.set()
        for thread in self._threads:
            thread.join(2 * _DEADLINE)
            if thread.is_alive():
                self.lost.append("a client never got its answer")
        return self.answers / (time.perf_counter() - self._began)

    @property
    def answers(self) -> int:
        """How many there were, right or wrong."""
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
                except Exception as error:  # Any: it is what is counted.
                    with self._lock:
                        self.lost.append(f"{protocol}: {error}"[:300])
                    continue
                seconds = time.perf_counter() - begin
                # REST does not say which version answered.
                known = question.right if version is None else {version: question.right[version]}
                right = any(np.abs(given - r).max() < _NEAR for r in known.values())
                with self._lock:
                    self.seconds[protocol].append(seconds)
                    if not right:
                        self.wrong += 1
                    elif version is not None:
                        self.versions[version] += 1


def resident(process: subprocess.Popen) -> float:
    """What a process keeps in memory, in MiB. Linux only."""
    for line in pathlib.Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("the server has no VmRSS")


def change_version(
    base: pathlib.Path, size: Size, asked: list[Question], clients: int, seconds: float
) -> dict:
    """Load, with a second version put in place a third of the way."""
    # Made first: making it would take the server's cores.
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
    # What was loaded last stays; what is compared is the same version, later and later.
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
    """Answers a second of a server that batches and of one that does not, in turn."""
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
    """Both parts; see the module."""
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
    """Measures and prints."""
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
