r"""Writes predictions for all rows of a table, a folder or a file, and measures the accuracy.

Usage: t2aux predict --model=MODEL --data=DATA --output=predictions.csv|.jsonl|.parquet

MODEL is the model_dir of a run, a directory written by `t2aux export`, a .tflite or .keras file, or
a model on a server: grpc://HOST:PORT/NAME or http://HOST:PORT/NAME (grpcs:, https: with TLS).

DATA is
  a table of texts: CSV, TSV, separated by semicolons or bars, JSON lines or Parquet, also
  compressed (.gz);
  a .txt file with one text per line (with --data_format=text, the whole file is one text);
  a folder of .txt files, one text each;
  a folder of images, an archive of images (.zip, .tar, .tar.gz, ...), or one image;
  an .npz file with `inputs` [N, T, C] and, optionally, `lengths` and `labels`;
  a .ts file of series, as in the UCR and UEA archives, with or without classes;
  an IDX file of images, such as t10k-images-idx3-ubyte.gz, with its labels beside it;
  a folder of shards (--split); or - for standard input, a table by default.
Instead of --data, --gin_file=datasets/NAME (and --data_dir) can name a data set; its --split is
read.

The output has one row per example, in the order of the data: `input` (the file, the value of an
index column, or the row number, counted from 0), `label` if there are labels, `class` and
`probability`. The labels come from a table's --label_column, the names of folders that are classes,
or the file of arrays. If there are labels, the accuracy and a table by class are shown.

A row that can't be classified (an empty text, a damaged image, NaN) is an error, and nothing is
written. With --on_error=skip, such a row gets an empty class, and the column `error` gives the
reason; the exit status is then 0, unless no row can be classified.

With --runner, the command runs as an Apache Beam pipeline on many machines: --data, --model and
--output may then be on any of Beam's file systems (gs://, s3://, hdfs://), and --data may be a
pattern that matches many files. With a `*` in --output, each of them gets its own output file.
Beam's own options follow --.

Examples:
  t2aux predict --model=runs/reviews --data=new_reviews.csv --output=predictions.csv
  t2aux predict --model=exports/pets --data=photos --output=pets.parquet --top=3 --report=report
  t2aux predict --model=exports/pets/1/classifier.tflite --data=photos.zip --output=pets.csv
  t2aux predict --model=grpc://localhost:8500/news --data=texts.jsonl --output=news.jsonl
  t2aux predict --model=exports/news --data=news.csv --output=news.parquet --runner=DirectRunner \
      -- --direct_num_workers=8 --direct_running_mode=multi_processing
  zcat log.csv.gz | t2aux predict --model=runs/log --data=- --output=- > predictions.csv
"""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags

from t2aux import logs
from t2aux.cli import common, connecting, next_steps
from t2aux.errors import SettingError

if TYPE_CHECKING:
    from t2aux.prediction.api import Writing
    from t2aux.prediction.model import Model
    from t2aux.prediction.report import Summary
    from t2aux.prediction.source import Reading

_MODEL = flags.DEFINE_string(
    "model",
    None,
    "A run, an export, a .tflite or .keras file, or grpc://HOST:PORT/NAME.",
    required=True,
)
_CHECKPOINT = common.define_checkpoint()
_DATA = common.define_path(
    "data", None, "What to classify: a file, a folder, or - (see above).", urls=True
)
_DATA_FORMAT = flags.DEFINE_enum(
    "data_format",
    None,
    ["table", "lines", "text", "npz"],
    "The format of a file or standard input; by default according to its name.",
)
_LABEL_COLUMN = flags.DEFINE_string(
    "label_column", None, "For a table: the column of the true classes, by name or position."
)
_TEXT_COLUMNS = flags.DEFINE_multi_string(
    "text_column", [], "For a table: a column of the text, by name or position. Repeatable."
)
_ENCODING = flags.DEFINE_string("encoding", None, "Of a table or .txt file, such as cp1252.")
_KEEP_COLUMNS = flags.DEFINE_bool(
    "keep_columns", False, "Write the table's columns instead of `input` and `label`."
)
common.define_gin_flags()
common.define_data_dir()
_SPLIT = flags.DEFINE_string("split", "test", "The split of shards or of a --gin_file data set.")
_OUTPUT = common.define_path(
    "output",
    None,
    "The output: a .csv, .jsonl or .parquet file, or - for standard output.",
    required=True,
    urls=True,
)
_OUTPUT_FORMAT = flags.DEFINE_enum(
    "output_format", None, ["csv", "jsonl", "parquet"], "Its format, if the name doesn't imply it."
)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace an existing output.")
_TOP = flags.DEFINE_integer("top", 1, "Most probable classes to write.", lower_bound=1)
_PROBABILITIES = flags.DEFINE_bool(
    "probabilities", False, "Write the probabilities of all classes, one column each."
)
_ON_ERROR = flags.DEFINE_enum(
    "on_error", "stop", ["stop", "skip"], "What to do with a row that can't be classified."
)
_REPORT = common.define_path(
    "report", None, "A folder for evaluation.json and confusion.png; needs labels."
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size",
    None,
    "Rows to classify at once (by default 128) or to send to a server at once (by default 64).",
    lower_bound=1,
)
_RUNNER = common.define_runner()
_READ_WITH = {
    ".csv": "pandas.read_csv({!r})",
    ".jsonl": "pandas.read_json({!r}, lines=True)",
    ".parquet": "pandas.read_parquet({!r})",
}


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    runner_options = common.runner_options(argv)
    common.exit_on_sigterm()
    from t2aux.prediction.api import Writing
    from t2aux.prediction.model import Model
    from t2aux.prediction.source import Reading

    common.here(_DATA)
    common.here(_OUTPUT)
    writes = Writing(
        _OUTPUT.value,
        _OUTPUT_FORMAT.value,
        _OVERWRITE.value,
        _TOP.value,
        _PROBABILITIES.value,
        _REPORT.value,
    )
    if not _RUNNER.value:
        writes.check()
    model = Model(
        _MODEL.value,
        _CHECKPOINT.value,
        connecting.connection(),
    )
    reads = Reading(
        _DATA_FORMAT.value,
        _LABEL_COLUMN.value,
        tuple(_TEXT_COLUMNS.value),
        _ENCODING.value,
        _KEEP_COLUMNS.value,
        _SPLIT.value,
    )
    if _RUNNER.value:
        summary = _by_pipeline(runner_options, model, reads, writes)
    else:
        summary = _here(model, reads, writes)
    to_terminal = sys.stderr if _OUTPUT.value == "-" else sys.stdout
    print(summary.text(), file=to_terminal)
    if _REPORT.value is not None:
        folder = pathlib.Path(_REPORT.value)
        print(f"\n{folder / 'evaluation.json'}\n{folder / 'confusion.png'}", file=to_terminal)
    if _OUTPUT.value != "-":
        _show_next(summary.evaluation is not None)


def _here(model: Model, reads: Reading, writes: Writing) -> Summary:
    """Predicts in this process."""
    from t2aux.prediction.api import predict_with
    from t2aux.prediction.predictor import Predictor
    from t2aux_ondevice.answers import without_notes

    is_remote, needs_tensorflow = model.is_remote, model.needs_tensorflow
    data = _data()
    predictor = Predictor(model, on_error=_ON_ERROR.value, batch_size=_BATCH_SIZE.value)
    try:
        if needs_tensorflow:
            logs.quiet_tensorflow()
        if is_remote or needs_tensorflow:
            predictor.info  # noqa: B018  Loads the model.
        else:
            with without_notes():
                predictor.info  # noqa: B018
        return predict_with(predictor, data, reads, writes)
    finally:
        predictor.close()


def _by_pipeline(options: Sequence[str], model: Model, reads: Reading, writes: Writing) -> Summary:
    """Predicts in a Beam pipeline."""
    common.check_beam()
    from t2aux.pipelines import predict, runners

    if any((flags.FLAGS.gin_file, flags.FLAGS.gin_param, flags.FLAGS.data_dir)):
        raise SettingError(
            "With --runner, give --data: workers can't read a data set named by gin flags. `t2aux "
            "data convert` writes it as shards."
        )
    if _DATA.value is None:
        raise SettingError("--data must be given; --help describes it.")
    spec = predict.Spec(model, _ON_ERROR.value, _BATCH_SIZE.value)
    runner = runners.Runner(_RUNNER.value, tuple(options))
    return predict.predict(runner, spec, _DATA.value, reads, writes)


def _data() -> object:
    """The data to classify: what --data names, or a data set that gin flags configure."""
    given = (flags.FLAGS.gin_file, flags.FLAGS.gin_param, flags.FLAGS.data_dir)
    if not any(given):
        if _DATA.value is None:
            raise SettingError("--data must be given; --help describes it.")
        return _DATA.value
    if _DATA.value is not None:
        raise SettingError(
            "Give --data, or a data set by --gin_file, --gin_param and --data_dir, not both."
        )
    from t2aux import data

    common.parse_gin()
    return data.configured()


def _show_next(is_evaluated: bool) -> None:
    """Prints where the predictions are, how to read them, and how to draw the confusion matrix."""
    output = _OUTPUT.value
    how = None if "*" in output else _READ_WITH.get(pathlib.PurePath(output).suffix.lower())
    read = f" Read it with {how.format(output)}." if how else ""
    print(f"\nThe predictions are in {output}.{read}")
    if not is_evaluated or _REPORT.value is not None:
        return
    if _RUNNER.value:
        print("--report=FOLDER also draws the confusion matrix.")
        return
    given = {flag.name: flag.value for flag in common.own_flags() if flag.present}
    report = os.path.splitext(output)[0] + "_report"
    next_steps.show(next_steps.command("predict", **{**given, "overwrite": True, "report": report}))
