"""Shared code of the benchmarks: training steps as in the training loop, on random images."""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

# Imported first: torch's Triton would end the process if it were loaded after TensorFlow.
with contextlib.suppress(ImportError):
    import torch._dynamo

import keras
import numpy as np
import tensorflow as tf

from t2aux import tf32
from t2aux.data import Batch
from t2aux.kernels import ops
from t2aux.losses.prediction import Prediction
from t2aux.losses.reconstruction import Reconstruction
from t2aux.losses.whole_sequence import LanguageModel, SequenceAutoencoder
from t2aux.model.transformer import Transformer
from t2aux.training.classifier import make_classifier
from t2aux.training.model import SequenceClassifier
from t2aux.training.trainer import Trainer
from t2aux.training.transformer_trainer import TransformerTrainer
from t2aux_ondevice.preprocessing import DatasetInfo

LOSSES = {
    "LSTM": [],
    "r-LSTM 1x600": [(Reconstruction, {"anchors": 1, "length": 600})],
    "r-LSTM 20x30": [(Reconstruction, {"anchors": 20, "length": 30})],
    "p-LSTM 1x600": [(Prediction, {"anchors": 1, "length": 600})],
}
# The other two of Table 4, here combined with the supervised loss.
WHOLE = {
    "LM-LSTM": [(LanguageModel, {})],
    "SA-LSTM": [(SequenceAutoencoder, {})],
}


@dataclasses.dataclass(frozen=True)
class Size:
    """The size of a step."""

    batch: int
    length: int
    hidden: int = 128
    channels: int = 1
    classes: int = 10


class Steps(NamedTuple):
    """The functions of a network to time.

    Attributes:
        training: A training step on a batch: gradients, clipping and RMSProp.
        forward: The network without a gradient, as in evaluation.
    """

    training: Callable[[Batch], object]
    forward: Callable[[Batch], object]


def use_device(device: str | None, *, tensor_float_32: bool = False) -> None:
    """Selects the device. Must be called before TensorFlow is used.

    Args:
        device: "cpu" or "gpu"; None for a GPU if there is one.
        tensor_float_32: Whether a GPU may multiply in TensorFloat-32, see `train.tf32`.
    """
    tf32.enable(tensor_float_32)
    if device == "cpu":
        tf.config.set_visible_devices([], "GPU")
    if device == "gpu" and not on_gpu():
        raise SystemExit("--device=gpu needs a GPU, but TensorFlow finds none.")


def on_gpu() -> bool:
    """Whether TensorFlow computes on a GPU."""
    return bool(tf.config.get_visible_devices("GPU"))


def random_batch(size: Size) -> Batch:
    """A batch of noise in [0, 1]."""
    rng = np.random.default_rng(0)
    inputs = rng.random((size.batch, size.length, size.channels), np.float32)
    labels = rng.integers(0, size.classes, size.batch).astype(np.int32)
    lengths = np.full(size.batch, size.length, np.int32)
    return Batch(tf.constant(inputs), tf.constant(lengths), tf.constant(labels))


def _info(size: Size) -> DatasetInfo:
    return DatasetInfo(
        name="noise",
        kind="vectors",
        classes=tuple(map(str, range(size.classes))),
        channels=size.channels,
        length=size.length,
        max_length=None,
        side=None,
        permutation_seed=None,
        tokens=None,
        vocabulary=None,
    )


def classifier(
    size: Size, *, any_length: bool = False, projection_size: int | None = 128
) -> SequenceClassifier:
    """An untrained classifier for sequences of `size.length` steps or of any length."""
    info = dataclasses.replace(_info(size), length=None) if any_length else _info(size)
    return make_classifier(info, projection_size=projection_size, hidden_size=size.hidden, seed=0)


def ours(
    name: str,
    size: Size,
    bptt: int | str,
    *,
    projection_size: int | None = 128,
    rows: float = 1.0,
    precision: ops.Precision = "float32",
) -> Callable[[Batch], None]:
    """Our compiled training step: gradients, clipping and RMSProp.

    Args:
        name: A name in LOSSES or WHOLE, or "Transformer", which ignores `bptt` and `size.hidden`.
        size: The size of the batch and the network.
        bptt: The truncation of each loss in steps, or "full".
        projection_size: The size of the input layer, which is folded into the LSTM's kernel; None
            if the LSTM reads the values directly.
        rows: The fraction of the batch's rows on which an auxiliary loss is computed.
        precision: The precision of the LSTMs' matrix products.
    """
    if name == "Transformer":
        trainer = TransformerTrainer(Transformer(_info(size), seed=0))
    else:
        network = classifier(size, projection_size=projection_size)
        losses = [make(rows=rows, **given) for make, given in {**LOSSES, **WHOLE}[name]]
        trainer = Trainer(
            network, losses, supervised_bptt=bptt, auxiliary_bptt=bptt, precision=precision
        )
    optimizer = keras.optimizers.RMSprop(1e-3)
    optimizer.build(trainer.variables_in_order)
    count = tf.Variable(0)

    @tf.function(reduce_retracing=True)
    def step(batch: Batch) -> None:
        seed = tf.stack([0, count.assign_add(1)])
        result = trainer.step(batch, seed=seed, progress=tf.constant(0.5), supervised=True)
        gradients, _ = tf.clip_by_global_norm(result.gradients, 1.0)
        optimizer.apply(gradients, trainer.variables_in_order)

    return step


def ours_forward(size: Size, *, projection_size: int | None = 128) -> Callable[[Batch], tf.Tensor]:
    """Our classifier without gradients, as in evaluation."""
    network = classifier(size, projection_size=projection_size)

    @tf.function
    def forward(batch: Batch) -> tf.Tensor:
        return network.logits_of(batch.inputs)

    return forward


def _keras_model(size: Size, projection_size: int | None) -> keras.Model:
    before = [keras.layers.Dense(projection_size)] if projection_size else []
    return keras.Sequential(
        [
            keras.layers.Input((None, size.channels)),
            *before,
            keras.layers.LSTM(size.hidden),
            keras.layers.Dense(256, activation="relu"),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(size.classes),
        ]
    )


def keras_steps(size: Size, projection_size: int | None = None) -> Steps:
    """Keras's LSTM with the same head and full BPTT, for comparison. On a GPU, it is cuDNN's.

    Args:
        size: The size of the batch and the network.
        projection_size: The size of a Dense layer before the LSTM; None if the LSTM reads the
            values directly.
    """
    model = _keras_model(size, projection_size)
    optimizer = keras.optimizers.RMSprop(1e-3)
    variables = [v.value for v in model.trainable_variables]
    optimizer.build(variables)

    @tf.function
    def step(batch: Batch) -> None:
        with tf.GradientTape() as tape:
            logits = model(batch.inputs, training=True)
            loss = tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(batch.labels, logits)
            )
        gradients, _ = tf.clip_by_global_norm(tape.gradient(loss, variables), 1.0)
        optimizer.apply(gradients, variables)

    @tf.function
    def forward(batch: Batch) -> tf.Tensor:
        return model(batch.inputs, training=False)

    return Steps(step, forward)


def torch_steps(
    size: Size, data: Batch, projection_size: int | None = None, *, bfloat16: bool = False
) -> Steps | None:
    """The same network in torch, for comparison, on the device that TensorFlow uses.

    Args:
        size: See `keras_steps`.
        data: The batch for the steps.
        projection_size: See `keras_steps`.
        bfloat16: Whether to use torch's autocast to bfloat16.

    Returns:
        The steps; None if torch is not installed or does not support this device.
    """
    try:
        import torch
    except ImportError:
        return None
    device = "cuda" if on_gpu() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        return None

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            width = projection_size or size.channels
            self.projection = torch.nn.Identity()
            if projection_size:
                self.projection = torch.nn.Linear(size.channels, projection_size)
            self.lstm = torch.nn.LSTM(width, size.hidden)
            self.head = torch.nn.Sequential(
                torch.nn.Linear(size.hidden, 256),
                torch.nn.ReLU(),
                torch.nn.Dropout(0.5),
                torch.nn.Linear(256, size.classes),
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            _, (h, _) = self.lstm(self.projection(x.transpose(0, 1).contiguous()))
            return self.head(h[0])

    model = Model().to(device)
    optimizer = torch.optim.RMSprop(model.parameters(), 1e-3)
    inputs = torch.from_numpy(data.inputs.numpy()).to(device)
    labels = torch.from_numpy(data.labels.numpy()).long().to(device)
    # There are two switches: for matrix products, and for cuDNN's LSTM.
    on = tf.config.experimental.tensor_float_32_execution_enabled()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = on
    autocast = torch.autocast(device, torch.bfloat16, enabled=bfloat16)

    def finish() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    def step(batch: Batch) -> None:
        del batch
        model.train()
        optimizer.zero_grad()
        with autocast:
            loss = torch.nn.functional.cross_entropy(model(inputs), labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        finish()

    def forward(batch: Batch) -> None:
        del batch
        model.eval()
        with torch.no_grad(), autocast:
            model(inputs)
        finish()

    return Steps(step, forward)


def floor(size: Size) -> tuple[Callable[[Batch], None], Callable[[Batch], None]]:
    """Only the recurrent matrix products of a training step and of a forward pass.

    They are computed for thousands of steps at once, which an LSTM can't do, so this is a library's
    best case. With AVX-512, TensorFlow's products (oneDNN) are the fastest of those installed.
    """
    rows = size.batch * size.length
    count = -(-rows // 8192)
    part = -(-rows // count)
    h = tf.random.normal([part, size.hidden])
    dz = tf.random.normal([part, 4 * size.hidden])
    kernel = tf.random.normal([size.hidden, 4 * size.hidden])

    def forward(batch: Batch) -> None:
        del batch
        for _ in range(count):
            tf.matmul(h, kernel)

    def training(batch: Batch) -> None:
        forward(batch)
        for _ in range(count):
            tf.matmul(dz, kernel, transpose_b=True)
            tf.matmul(h, dz, transpose_a=True)

    return training, forward


def seconds_of(
    steps: dict[str, Callable[[Batch], object]], batch: Batch, repeat: int, *, best: bool = False
) -> dict[str, float]:
    """Seconds of each step on a batch: the median or the minimum of the repetitions.

    The repetitions are interleaved, so that noise on the machine affects all steps equally. Every
    step is run once beforehand to compile it. Timing ends when the device has finished.
    """
    for name, step in steps.items():
        print(f"compiling {name}", file=sys.stderr)
        step(batch)
        tf.test.experimental.sync_devices()
    times = {name: [] for name in steps}
    for i in range(repeat):
        print(f"repetition {i + 1}/{repeat}", file=sys.stderr)
        for name, step in steps.items():
            # The threads of the previous library may still be busy-waiting for more work.
            time.sleep(0.05)
            begin = time.perf_counter()
            step(batch)
            tf.test.experimental.sync_devices()
            times[name].append(time.perf_counter() - begin)
    pick = min if best else statistics.median
    return {name: pick(values) for name, values in times.items()}
