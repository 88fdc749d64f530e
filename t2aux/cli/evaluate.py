"""Evaluates a trained run: accuracy, loss, confusion matrix and a table by class.

Prints the table, and writes evaluation.json and confusion.png into the run's evaluation/SPLIT
folder. A run with a validation set (train.validation) is evaluated at its best checkpoint, another
one at the newest, and the result says so. The data set is the one that the run was trained on, read
as its configuration says, unless --data_dir or --gin_param name other data: the result then says
which, and goes to a folder of its own, evaluation/SPLIT-NAME. Beside the accuracy stand those of
baselines: of always giving the most frequent class and, on the run's own data, of a logistic
regression on simple features.

Examples:
  t2aux evaluate --model_dir=runs/quick
  t2aux evaluate --model_dir=runs/mnist --split=train --output_dir=report
  t2aux evaluate --model_dir=runs/news --data_dir=other_news
  t2aux evaluate --model_dir=runs/reviews --data_dir=newer.csv --label_column=rating
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags, logging

from t2aux import files, logs
from t2aux.cli import common, next_steps
from t2aux.errors import UserError

if TYPE_CHECKING:
    from t2aux.data import Split
    from t2aux.data.baselines import Regression
    from t2aux.run import Run

common.define_model_dir("Folder of the run.")
common.define_data_dir()
common.define_columns()
_GIN_PARAM = flags.DEFINE_multi_string(
    "gin_param", [], "One setting that overrides the run's configuration. Repeatable."
)
_CHECKPOINT = common.define_checkpoint()
_SPLIT = flags.DEFINE_enum(
    "split",
    "test",
    ["test", "train", "validation"],
    "What to evaluate on. Training examples that were held out for validation are not in train.",
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "Sequences a batch.", lower_bound=1)
_BASELINE = flags.DEFINE_bool(
    "baseline",
    True,
    "Compare with a logistic regression, too, which takes some seconds and reads training data.",
)
_OUTPUT_DIR = common.define_path(
    "output_dir",
    None,
    "Where to write; the run's evaluation/SPLIT folder if not set, or one beside it for other "
    "data.",
)


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    common.no_arguments(argv)
    logs.quiet_tensorflow()
    import tensorflow as tf

    from t2aux import data
    from t2aux.data import baselines
    from t2aux.evaluation import classification_report, other_data
    from t2aux.run import load_run
    from t2aux.training import evaluation, validation
    from t2aux.training.rate import of_sequences

    run = load_run(flags.FLAGS.model_dir, _CHECKPOINT.value, common.gin_params())
    common.check_columns(run.source)
    name, whole, other = other_data.read(run, common.gin_params(), _SPLIT.value)
    split = validation.part_of(_SPLIT.value, whole, is_own=other is None, directory=run.model_dir)
    # Before the work: a folder that can't be written is refused at once.
    output = other_data.folder(_OUTPUT_DIR.value, run, "evaluation", _SPLIT.value, other)
    data.log_summary({_SPLIT.value: split})
    predict = tf.function(
        lambda batch: run.classifier.logits_of(batch.inputs, batch.lengths),
        reduce_retracing=True,
        autograph=False,
    )
    result = evaluation.evaluate(predict, split, _BATCH_SIZE.value, of_sequences(len(split)))
    counts = result.confusion.sum(axis=1)
    regression = None
    if _BASELINE.value and other is None:
        regression = _regression(run, name, whole, split)
    about = {
        **other_data.about(run, other),
        "split": _SPLIT.value,
        "checkpoint": pathlib.Path(run.checkpoint).name,
        "step": run.step,
        "choice": run.choice,
    }
    simple = baselines.to_json(result.classes, counts, regression)
    files.write_json(output / "evaluation.json", {**about, **result.to_json(), "baselines": simple})
    title = other_data.title(run, _SPLIT.value, other)
    classification_report.draw_confusion(result, output / "confusion.png", title)
    print(f"{title}\n\n{classification_report.table(result)}")
    print(f"\n{baselines.table(_SPLIT.value, result.classes, counts, regression)}")
    if better := baselines.better(result.accuracy, counts, regression):
        print(f"Note: The {better} is better than this model.")
    print(f"\n{output / 'evaluation.json'}\n{output / 'confusion.png'}")
    next_steps.show(*next_steps.of_evaluation(flags.FLAGS.model_dir))


def _regression(run: Run, name: str, whole: Split, split: Split) -> Regression | None:
    """Measures a logistic regression on the split that was evaluated.

    Args:
        run: The run.
        name: What was read, "train" or another.
        whole: What was read.
        split: What of it was evaluated.
    """
    import gin

    from t2aux import data
    from t2aux.data import baselines
    from t2aux.training import validation

    if name == "train":
        train = validation.part_of("train", whole, is_own=True, directory=run.model_dir)
    else:
        most = gin.get_bindings("dataset").get("max_examples") or baselines.MOST_EXAMPLES
        try:
            train = data.load(
                run.source, "train", run.info, max_examples=min(most, baselines.MOST_EXAMPLES)
            )
        except UserError as error:
            # The test data alone is enough to evaluate.
            logging.warning("No logistic regression for comparison: %s", error)
            return None
    return baselines.logistic_regression(train, split)


if __name__ == "__main__":
    common.run(main)
