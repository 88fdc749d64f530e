r"""Measures the gradients of the supervised and the auxiliary losses in the main network.

The weight of an auxiliary loss alone says little, since losses have different scales: a squared
error of pixels is 0.01 to 0.1, a cross-entropy of ten classes 2.3. At a checkpoint of a run and
over training batches, this measures the Euclidean norm of each loss's gradient on the recurrent
core's weights, with weight 1 for each loss, and the cosine between the two gradients.
`equal_weight` is the weight that makes the norms equal.

  python -m benchmarks.gradient_norms --model_dir=RUN --data_dir=DATA
  python -m benchmarks.gradient_norms --model_dir=RUN --checkpoint=ckpt-1407 --output=norms.json
"""

from __future__ import annotations

import json
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from absl import app, flags

from t2aux import data, files
from t2aux.data.split import Batch
from t2aux.model import weights
from t2aux.run import load_run
from t2aux.training.trainer import Trainer

_MODEL_DIR = flags.DEFINE_string("model_dir", None, "Folder of the run.", required=True)
_CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "Checkpoint of the run.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "The data, if it has moved since the run.")
_BATCHES = flags.DEFINE_integer("batches", 20, "Training batches.", lower_bound=1)
_BATCH = flags.DEFINE_integer("batch", 32, "Sequences per batch.", lower_bound=1)
_OUTPUT = flags.DEFINE_string("output", None, "A JSON file for the numbers.")


def main(argv: list[str]) -> None:
    """Measures and prints the results."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown argument {argv[1]!r}.")
    moved = [] if _DATA_DIR.value is None else [f"dataset.data_dir = {_DATA_DIR.value!r}"]
    run = load_run(_MODEL_DIR.value, _CHECKPOINT.value, moved, auxiliary=True)
    given = run.classifier.trainer
    for loss in run.losses:
        loss.weight = 1.0
    trainer = Trainer(
        run.classifier,
        run.losses,
        supervised_bptt=given.supervised_bptt,
        auxiliary_bptt=given.auxiliary_bptt,
    )
    core = {v.ref() for v in weights.in_order(run.classifier.core)}

    def of_core(auxiliary: bool, gradients: list[tf.Tensor]) -> tf.Tensor:
        variables = trainer.trained_variables(auxiliary=auxiliary)
        found = [g for v, g in zip(variables, gradients, strict=True) if v.ref() in core]
        return tf.concat([tf.reshape(g, [-1]) for g in found], 0)

    @tf.function
    def gradients(batch: Batch, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        arguments = {"seed": seed, "progress": tf.constant(1.0)}
        supervised = trainer.step(batch, supervised=True, auxiliary=False, **arguments)
        auxiliary = trainer.step(batch, supervised=False, **arguments)
        return of_core(False, supervised.gradients), of_core(True, auxiliary.gradients)

    train = data.load(run.source, "train", run.info)
    found = []
    for number, batch in zip(
        range(_BATCHES.value), train.batches(_BATCH.value, seed=0), strict=False
    ):
        supervised, auxiliary = (g.numpy() for g in gradients(batch, tf.constant([0, number])))
        norms = np.linalg.norm(supervised), np.linalg.norm(auxiliary)
        found.append((*norms, supervised @ auxiliary / np.prod(norms)))
    supervised, auxiliary, cosine = np.median(found, axis=0)
    content = {
        "step": run.step,
        "batch": _BATCH.value,
        "batches": len(found),
        "supervised": float(supervised),
        "auxiliary": float(auxiliary),
        "cosine": float(cosine),
        "equal_weight": float(supervised / auxiliary),
    }
    print(json.dumps(content, indent=2))
    if _OUTPUT.value is not None:
        files.write_json(_OUTPUT.value, content)


if __name__ == "__main__":
    app.run(main)
