"""Evaluates a trained run: accuracy, loss, confusion matrix and a table by class.

Prints the table, and writes evaluation.json and confusion.png into the run's evaluation/SPLIT
folder. A run with a validation set (train.validation) is evaluated at its best checkpoint, other
runs at the newest; the result names the checkpoint. The data set is the one that the run was
trained on, read as configured, unless --data_dir or --gin_param name other data. In this case, the
result names that data and goes to a separate folder, evaluation/SPLIT-NAME. The accuracy is
compared with that of two baselines: always predicting the most frequent class and, on the run's own
data, a logistic regression on simple features.

Examples:
  t2aux evaluate --model_dir=runs/quick
  t2aux evaluate --model_dir=runs/mnist --split=train --output_dir=report
  t2aux evaluate --model_dir=runs/news --data_dir=other_news
  t2aux evaluate --model_dir=runs/reviews --data_dir=newer.csv --label_column=rating
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags, logging

from t2aux import files
from t2aux.cli import common, evaluating, next_steps
from t2aux.errors import UserError

if TYPE_CHECKING:
    from t2aux.cli.evaluating import Opened
    from t2aux.data.baselines import Regression

common.define_columns()
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "Sequences per batch.", lower_bound=1)
_BASELINE = flags.DEFINE_bool(
    "baseline",
    True,
    "Also compare with a logistic regression, which takes a few seconds and reads training data.",
)


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    common.no_arguments(argv)
    opened = evaluating.open_run("evaluation")

    from t2aux import data
    from t2aux.data import baselines
    from t2aux.evaluation import classification_report
    from t2aux.progress import Progress
    from t2aux.training import evaluation

    data.log_summary({opened.split_name: opened.split})
    result = evaluation.evaluate(
        evaluation.logits_function(opened.run.classifier),
        opened.split,
        _BATCH_SIZE.value,
        Progress("Sequences", len(opened.split)).update,
    )
    counts = result.confusion.sum(axis=1)
    regression = _regression(opened) if _BASELINE.value and opened.other is None else None
    simple = baselines.to_json(result.classes, counts, regression)
    paths = opened.output / "evaluation.json", opened.output / "confusion.png"
    files.write_json(paths[0], {**opened.about(), **result.to_json(), "baselines": simple})
    classification_report.draw_confusion(result, paths[1], opened.title)
    print(f"{opened.title}\n\n{classification_report.table(result)}")
    print(f"\n{baselines.table(opened.split_name, result.classes, counts, regression)}")
    if better := baselines.better(result.accuracy, counts, regression):
        print(f"Note: The {better} is better than this model.")
    print(f"\n{paths[0]}\n{paths[1]}")
    next_steps.show(*next_steps.of_evaluation(flags.FLAGS.model_dir))


def _regression(opened: Opened) -> Regression | None:
    """Measures a logistic regression on the evaluated split."""
    import gin

    from t2aux import data
    from t2aux.data import baselines

    if opened.name == "train":
        train = opened.training_part(opened.whole)
    else:
        limit = gin.get_bindings("dataset").get("max_examples") or baselines.MAX_EXAMPLES
        limit = min(limit, baselines.MAX_EXAMPLES)
        try:
            train = data.load(opened.run.source, "train", opened.run.info, max_examples=limit)
        except UserError as error:
            # The evaluation itself needs only the test data.
            logging.warning("No logistic regression for comparison: %s", error)
            return None
    return baselines.logistic_regression(train, opened.split)
