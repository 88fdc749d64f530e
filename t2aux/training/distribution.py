"""Training with several replicas, which share every batch, with `tf.distribute`.

`train.batch_size` is the size of the whole batch. Every replica computes the same order of the
data, takes its rows of every batch, and draws the same random numbers (see `t2aux.model.share`).
Losses and gradients are summed over the replicas in a single reduction per step, and every replica
applies the same update. So the weights equal those of training with one replica, up to rounding,
and a run may be resumed with a different number of replicas.

Only the first worker, the chief, writes the run directory and reads the checkpoint that the run is
resumed from. The others receive its values and write nothing.
"""

from __future__ import annotations

import contextlib
import inspect
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import gin
import keras
import numpy as np
import tensorflow as tf
from absl import logging
from tensorflow.python.distribute import collective_all_reduce_strategy
from tensorflow.python.eager import context

from t2aux import data
from t2aux.errors import ServerError, SettingError, StartAgainError
from t2aux.model.share import Share
from t2aux.training import cluster, optimizers
from t2aux.training.trainer import Step, Trainer
from t2aux.training.transformer_trainer import TransformerTrainer

AnyTrainer = Trainer | TransformerTrainer

# The errors that TensorFlow raises if another worker is lost or can't be reached.
_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
)
# The number of attempts to reach a peer that does not answer, and the seconds per attempt.
_ATTEMPTS, _ATTEMPT_SECONDS = 3, 10


class Shares(NamedTuple):
    """The part of a batch that a process works on.

    Attributes:
        batches: The rows of each of its replicas, padded to the batch's longest sequence. A replica
            without rows has the batch's first row, which must not count.
        lengths: [G] int32, the lengths of all sequences of the batch.
    """

    batches: tuple[data.Batch, ...]
    lengths: tf.Tensor


class Replicas:
    """The replicas of a `tf.distribute` strategy, or a single replica in this process.

    Attributes:
        count: The number of replicas that share a batch.
        workers: The number of processes.
        worker: The number of this process.
    """

    count = 1
    workers = 1
    worker = 0

    def __init__(
        self,
        strategy: tf.distribute.Strategy | None = None,
        nodes: cluster.Cluster | None = None,
    ) -> None:
        """Stores the strategy.

        Args:
            strategy: The strategy; None: there is one replica.
            nodes: The workers that it was made for; None: this process is the only one.
        """
        self._strategy = strategy
        self._cluster = nodes
        if strategy is not None:
            self.count = strategy.num_replicas_in_sync
        if nodes is not None:
            self.workers, self.worker = len(nodes.workers), nodes.number
        self._local = self.count // self.workers
        self._may_be_without = False

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the run directory."""
        return self.worker == 0

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """The context in which networks and the optimizer must be created."""
        return contextlib.nullcontext() if self._strategy is None else self._strategy.scope()

    def prepare(self, optimizer: keras.optimizers.Optimizer) -> None:
        """Prepares an optimizer for `apply`."""
        if self._strategy is not None:
            # `step` sums over replicas instead of Keras's optimizer, so that sums can be clipped.
            optimizer._all_reduce_sum_gradients = list

    def batches(
        self, split: data.Split, batch_size: int, *, seed: int, epoch: int, first_batch: int
    ) -> tf.data.Dataset:
        """The batches of an epoch for `step`; with a strategy, `Shares` of them.

        See `Split.batches` for the arguments.

        Raises:
            UserError: There are more replicas than sequences in a batch.
        """
        order = {"seed": seed, "epoch": epoch, "first_batch": first_batch}
        if self._strategy is None:
            return split.batches(batch_size, **order)
        if batch_size < self.count:
            raise SettingError(
                f"train.batch_size is the whole batch's, which {self.count} replicas share, but is "
                f"{batch_size}: give at least {self.count}."
            )
        self._may_be_without = 0 < len(split) % batch_size < self.count
        first = self.worker * self._local
        shares = [(first + i, self.count) for i in range(self._local)]
        return split.shares(batch_size, shares, **order).map(Shares)

    def examples(self, batch: data.Batch | Shares) -> tf.Tensor:
        """The number of sequences of the whole batch, a scalar float32."""
        return tf.cast(tf.shape(batch.lengths)[0], tf.float32)

    def step(
        self, trainer: AnyTrainer, batch: data.Batch | Shares, *, stop: tf.Tensor, **arguments: Any
    ) -> tuple[Step, tf.Tensor]:
        """Computes a training step over all replicas; to be called in a `tf.function`.

        Args:
            trainer: Computes the step of a replica.
            batch: An element of `batches`.
            stop: Whether this process was asked to stop, a scalar bool.
            **arguments: Arguments of `trainer.step`.

        Returns:
            The step of the whole batch, the same on every replica, and whether any process was
            asked to stop.
        """
        if self._strategy is None:
            return trainer.step(batch, **arguments), stop
        names: list[str] = []

        def compute() -> list[tf.Tensor]:
            replica = tf.distribute.get_replica_context()
            number = int(tf.get_static_value(replica.replica_id_in_sync_group))
            share = Share(number, self.count, batch.lengths)
            rows = batch.batches[number - self.worker * self._local]
            step = trainer.step(rows, share=share, **arguments)
            names[:] = step.metrics
            values = [*step.gradients, tf.stack([step.metrics[name] for name in names])]
            if self._may_be_without:
                values = [tf.where(share.has_rows, v, tf.zeros_like(v)) for v in values]
            values.append(tf.cast(stop, tf.float32))
            return replica.all_reduce(tf.distribute.ReduceOp.SUM, values)

        # The sums are the same on every replica.
        sums = tf.nest.map_structure(
            lambda value: self._strategy.experimental_local_results(value)[0],
            self._strategy.run(compute),
        )
        *gradients, metrics, stop = sums
        metrics = dict(zip(names, tf.unstack(metrics), strict=True))
        return Step(gradients, metrics), stop > 0

    def apply(
        self,
        optimizer: keras.optimizers.Optimizer,
        gradients: Sequence[tf.Tensor],
        variables: Sequence[tf.Variable],
    ) -> None:
        """Applies a step's gradients on every replica; to be called in a `tf.function`."""
        if self._strategy is None:
            optimizers.apply(optimizer, gradients, variables)
        else:
            self._strategy.run(lambda: optimizers.apply(optimizer, gradients, variables))

    def total(self, values: np.ndarray) -> np.ndarray:
        """Sums [N] float64 over the processes, all of which must call it."""
        return values if self.workers == 1 else self._sum(tf.constant(values, tf.float64)).numpy()

    def _sum(self, values: tf.Tensor) -> tf.Tensor:
        return self._strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None)

    def share_state(self, variables: Sequence[tf.Variable]) -> None:
        """Copies the chief's values to all processes, all of which must call it."""
        if self.workers == 1:
            return
        # As bits, because a sum of floats would lose the sign of a zero.
        bits = [tf.bitcast(tf.convert_to_tensor(v), tf.int32) for v in variables]
        packed = tf.cast(tf.concat([tf.reshape(b, [-1]) for b in bits], 0), tf.int64)
        packed = self._sum(packed if self.is_chief else tf.zeros_like(packed))
        parts = tf.split(tf.cast(packed, tf.int32), [tf.size(b) for b in bits])
        for variable, own, part in zip(variables, bits, parts, strict=True):
            variable.assign(tf.bitcast(tf.reshape(part, tf.shape(own)), variable.dtype))

    def share_rows(self, rows: np.ndarray) -> np.ndarray:
        """Returns the chief's rows, [N, K] float64, whose number N only the chief knows.

        All processes must call it.
        """
        rows = rows if self.is_chief else rows[:0]
        count = int(self.total(np.array([float(len(rows))]))[0])
        given = np.zeros((count, rows.shape[1]))
        given[: len(rows)] = rows
        return self.total(given) if count else given

    def check_same(self, configuration: str, split: data.Split) -> None:
        """Raises UserError, in all processes, if the workers have different configurations."""
        if self.workers == 1:
            return
        # The folder of the data may differ.
        lines = [line for line in configuration.splitlines() if "data_dir" not in line]
        for what, content in (
            ("configuration", "\n".join(lines).encode()),
            ("training data", split.labels.tobytes() + split.lengths.tobytes()),
        ):
            every = np.zeros(self.workers)
            every[self.worker] = zlib.crc32(content)
            every = self.total(every)
            others = np.flatnonzero(every != every[0])
            if len(others):
                raise SettingError(
                    f"Worker {others[0]} has a different {what} from the chief, worker 0: give the "
                    "same command, with the same files, on every worker."
                )

    def wait(self) -> None:
        """Waits until all processes have called this method."""
        self.total(np.zeros(1))

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Turns TensorFlow's errors for a lost worker into a StartAgainError."""
        try:
            yield
        except tf.errors.OpError as error:
            aborted = isinstance(error, _LOST) or "Collective ops is aborted" in error.message
            if self.workers == 1 or not aborted:
                raise
            match = re.search(r"/job:(\w+)/replica:\d+/task:(\d+)", error.message)
            name = self._cluster.describe(match[1], int(match[2])) if match else "another worker"
            raise StartAgainError(
                f"Lost {name}, so worker {self.worker} stops, too: start the same command again "
                "on every worker, and the run continues from its last checkpoint."
            ) from error


def replicas_of(strategy: Callable[[], Replicas] | None) -> Replicas:
    """Creates the replicas of `RunConfig.strategy`.

    Args:
        strategy: `mirrored` or `multi_worker`, as configured by gin; None: no strategy.

    Returns:
        The replicas.

    Raises:
        UserError: `strategy` is neither, or is not compatible with TF_CONFIG.
    """
    if strategy is None:
        _check_alone("RunConfig.strategy is None")
        return Replicas()
    known = [inspect.unwrap(function) for function in (mirrored, multi_worker)]
    if not callable(strategy) or inspect.unwrap(strategy) not in known:
        raise SettingError(
            "RunConfig.strategy must be @MirroredStrategy or @MultiWorkerMirroredStrategy, without "
            "parentheses, or None: --gin_file=training/mirrored and training/multi_worker set it."
        )
    return strategy()


def _check_alone(what: str) -> None:
    """Raises UserError if TF_CONFIG describes several workers, which `what` ignores."""
    nodes = cluster.read()
    if nodes is not None and len(nodes.workers) > 1:
        raise SettingError(
            f"TF_CONFIG describes {len(nodes.workers)} workers, but {what}, so that each would "
            "train by itself in the same directory: give --gin_file=training/multi_worker, or "
            "unset TF_CONFIG."
        )


@gin.configurable("MirroredStrategy")
def mirrored(cpus: int = 1) -> Replicas:
    """Creates a replica for each GPU of this machine; they share every batch.

    Args:
        cpus: The number of replicas on the CPU if no GPU is found, for trying it out. They share
            the CPU's cores, so more than 1 is not faster.

    Returns:
        The replicas.

    Raises:
        UserError: `cpus` is out of range or is set after TensorFlow was used, or TF_CONFIG
            describes several workers.
    """
    if cpus < 1:
        raise SettingError(f"MirroredStrategy.cpus must be at least 1, but is {cpus}.")
    _check_alone("RunConfig.strategy is @MirroredStrategy, which is for one machine")
    if tf.config.list_physical_devices("GPU"):
        return Replicas(tf.distribute.MirroredStrategy(), None)
    logging.warning(
        "No GPU was found: MirroredStrategy has %d replica%s on the CPU.",
        cpus,
        "s" * (cpus > 1),
    )
    (cpu,) = tf.config.list_physical_devices("CPU")
    if cpus > 1:
        try:
            tf.config.set_logical_device_configuration(
                cpu, [tf.config.LogicalDeviceConfiguration()] * cpus
            )
        except RuntimeError as error:
            if len(tf.config.list_logical_devices("CPU")) < cpus:
                raise SettingError(
                    f"MirroredStrategy.cpus = {cpus} must be set before TensorFlow is used in this "
                    "process: start another."
                ) from error
    return Replicas(tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(cpus)]), None)


@gin.configurable("MultiWorkerMirroredStrategy")
def multi_worker(
    communication: Literal["AUTO", "RING", "NCCL"] = "AUTO",
    start_seconds: float = 600.0,
    check_seconds: float = 10.0,
) -> Replicas:
    """Creates replicas on the workers that TF_CONFIG names; their GPUs share every batch.

    Args:
        communication: How values are summed: "RING" over gRPC, "NCCL" between GPUs, or "AUTO".
        start_seconds: How long a worker waits for the others at the start.
        check_seconds: Seconds between checks that the other workers are alive. A process that ends
            is noticed immediately, a machine that does not answer after `check_seconds` and half a
            minute more.

    Returns:
        The replicas. Without TF_CONFIG, or with one worker in it, those of this process only.

    Raises:
        UserError: TF_CONFIG is malformed, or the address is in use.
        StartAgainError: Not all workers have started.
    """
    for name, value in (("start_seconds", start_seconds), ("check_seconds", check_seconds)):
        if value <= 0:
            raise SettingError(f"MultiWorkerMirroredStrategy.{name} must be above 0, not {value}.")
    if communication not in ("AUTO", "RING", "NCCL"):
        raise SettingError(
            "MultiWorkerMirroredStrategy.communication must be 'AUTO', 'RING' or 'NCCL', but is "
            f"{communication!r}."
        )
    nodes = cluster.read()
    options = tf.distribute.experimental.CommunicationOptions(
        implementation=getattr(
            tf.distribute.experimental.CommunicationImplementation, communication
        )
    )
    jobs = nodes.jobs if nodes is not None and len(nodes.workers) > 1 else {}
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec(jobs),
        task_type=nodes.task if jobs else None,
        task_id=nodes.index if jobs else None,
        num_accelerators={"GPU": len(tf.config.list_physical_devices("GPU"))},
        rpc_layer="grpc",
    )
    if jobs:
        logging.info("Worker %d waits for all %d workers.", nodes.number, len(nodes.workers))
        _watch_workers(start_seconds, check_seconds)
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy(
            cluster_resolver=resolver, communication_options=options
        )
    except (RuntimeError, tf.errors.OpError) as error:
        if "Timeout waiting for the cluster" in str(error):
            raise StartAgainError(
                f"Not all of the {len(nodes.workers)} workers ({', '.join(nodes.workers)}) started "
                f"within {start_seconds:g} seconds (MultiWorkerMirroredStrategy.start_seconds): "
                "check that each runs and can be reached, and start the same command again."
            ) from error
        if isinstance(error, _LOST):
            raise StartAgainError(
                "A worker ended while the others waited for it: start the same command again on "
                "every worker."
            ) from error
        if "start gRPC server" in str(error):
            address = nodes.workers[nodes.number]
            raise ServerError(
                f"Worker {nodes.number} can't listen on the port of {address}: another process "
                "uses it, or TF_CONFIG gives two workers of one machine the same port."
            ) from error
        raise
    return Replicas(strategy, nodes if jobs else None)


def _watch_workers(start_seconds: float, check_seconds: float) -> None:
    # With the coordination service, which is the default, TensorFlow aborts this process if another
    # one is lost. With its older check, it raises an error, which can be reported.
    context.context().configure_coordination_service(service_type="")
    extended = collective_all_reduce_strategy.CollectiveAllReduceExtended
    extended._enable_check_health = True
    extended._check_health_initial_timeout = start_seconds
    extended._check_health_interval = check_seconds
    extended._check_health_retry_limit = _ATTEMPTS
    extended._check_health_timeout = _ATTEMPT_SECONDS
