"""Warm-up requests: TF Serving replays them before a new version gets its first request.

Each signature has a request for every batch size that the server forms (the same as in
`export/deploy/batching.config`), with the lengths of the data. So the slow first runs of each size
are over before the version accepts requests. The requests contain no real data: all values are the
same, and are stored once if the format allows it.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from t2aux import files
from t2aux.errors import SettingError
from t2aux.export import examples, saved_model
from t2aux.tf_serving import BATCH_SIZES, MAX_WARM_UP_REQUESTS, WARM_UP, protos
from t2aux_ondevice.preprocessing import DatasetInfo

# tf.Examples store all their values. A few steps are enough to warm up.
_EXAMPLE_STEPS = 16
_PIXEL = 0.5
# For sequences of unknown length.
_UNKNOWN_STEPS = 128


def check_batch_sizes(sizes: Sequence[int]) -> None:
    """Raises UserError if sizes don't increase from 1 on, or if they are too many to warm up."""
    rising = all(a < b for a, b in zip((0, *sizes), sizes, strict=False))
    if not sizes or not rising:
        raise SettingError(
            f"The batch sizes for serving are {', '.join(map(str, sizes)) or 'none'}: give "
            "increasing sizes from 1 on, such as 1,2,4,8."
        )
    max_sizes = MAX_WARM_UP_REQUESTS // 5
    if len(sizes) > max_sizes:
        raise SettingError(f"{len(sizes)} batch sizes for serving are too many: give {max_sizes}.")


def lengths_of(info: DatasetInfo) -> np.ndarray:
    """Lengths [N] to warm up for without data."""
    return np.array([info.length or info.max_length or _UNKNOWN_STEPS], np.int32)


def write(
    directory: pathlib.Path,
    info: DatasetInfo,
    state: Mapping[str, Sequence[int]],
    lengths: np.ndarray,
    segment: int,
    batch_sizes: Sequence[int] = BATCH_SIZES,
) -> int:
    """Writes the requests beside a SavedModel.

    Args:
        directory: The directory of the SavedModel.
        info: The description of its data.
        state: The shapes of its state's tensors, by name; see `StatelessClassifier.state`.
        lengths: [N], the expected lengths of sequences.
        segment: Steps per segment.
        batch_sizes: See `check_batch_sizes`.

    Returns:
        The number of requests.

    Raises:
        UserError: The batch sizes are wrong.
    """
    check_batch_sizes(batch_sizes)
    path = directory / WARM_UP
    path.parent.mkdir()
    count = 0
    with (
        files.for_tensorflow(path.parent) as folder,
        tf.io.TFRecordWriter(os.path.join(folder, path.name)) as writer,
    ):
        for request in requests(info, state, lengths, segment, batch_sizes):
            writer.write(request.SerializeToString(deterministic=True))
            count += 1
    return count


def requests(
    info: DatasetInfo,
    state: Mapping[str, Sequence[int]],
    lengths: np.ndarray,
    segment: int,
    batch_sizes: Sequence[int] = BATCH_SIZES,
) -> Iterator[Any]:
    """Yields the requests as `PredictionLog` messages. See `write`."""
    for batch in batch_sizes:
        # Evenly spread over the lengths; a single sequence has the median length.
        spread = (np.arange(batch) + 0.5) / batch
        taken = np.quantile(lengths, spread, method="nearest").astype(np.int32)
        yield _predict(
            "serving_default",
            inputs=_tokens(info, batch, int(taken.max())),
            lengths=protos.to_tensor(taken),
        )
        if info.is_text:
            texts = np.array([b"x" * int(n) for n in taken], object)
            yield _predict("serving_text", text=protos.to_tensor(texts))
        if info.kind == "image":
            yield _predict(saved_model.IMAGE, image_bytes=protos.to_tensor(_images(info, batch)))
        yield _classify(info, np.minimum(taken, _EXAMPLE_STEPS))
        yield _predict("initial_state", batch=protos.filled_tensor((batch,), 0, np.int32))
        yield _predict(
            "step_segment",
            segment=_tokens(info, batch, segment),
            lengths=protos.filled_tensor((batch,), segment, np.int32),
            **{n: protos.filled_tensor((batch, *s), 0.0, np.float32) for n, s in state.items()},
        )


def _tokens(info: DatasetInfo, batch: int, steps: int) -> Any:
    if info.reads_ids:
        return protos.filled_tensor((batch, steps), 0, np.int32)
    return protos.filled_tensor((batch, steps, info.channels), _PIXEL, np.float32)


def _images(info: DatasetInfo, batch: int) -> np.ndarray:
    """PNG files, of which one, if there are several, is a larger JPEG file: [batch] objects."""
    pixels = np.zeros([info.side, info.side, info.channels], np.uint8)
    files = [tf.io.encode_png(pixels).numpy()] * batch
    if batch > 1:
        files[-1] = tf.io.encode_jpeg(pixels).numpy()
    return np.array(files, object)


def _predict(signature: str, /, **inputs: Any) -> Any:
    log = protos.PredictionLog()
    request = log.predict_log.request
    request.model_spec.signature_name = signature
    for name, tensor in inputs.items():
        request.inputs[name].CopyFrom(tensor)
    return log


def _classify(info: DatasetInfo, lengths: np.ndarray) -> Any:
    log = protos.PredictionLog()
    request = log.classify_log.request
    request.model_spec.signature_name = saved_model.CLASSIFY
    step = np.int32(0) if info.reads_ids else np.full([info.channels], _PIXEL, np.float32)
    for length in lengths.tolist():
        sequence = np.stack([step] * length)
        request.input.example_list.examples.append(examples.serialized(sequence))
    return log
