r"""Lists the data sets, or prepares, summarizes or converts one.

Usage:
  t2aux data                    lists the names
  t2aux data NAME [flags]       prints a summary, and draws a few sequences to --picture
  t2aux data NAME --prepare     first downloads the data set with tensorflow-datasets
  t2aux data convert [NAME] --output_dir=D [flags]
                                writes a data set as TFRecord shards, which need not fit in memory;
                                train on them with --data_dir=D --gin_file=datasets/shards. With
                                --runner, Apache Beam converts on many machines and file systems

Examples:
  t2aux data digits
  t2aux data digits --gin_param='digits.side = 28' --picture=digits.png
  t2aux data mnist --prepare
  t2aux data idx --data_dir=mnist --gin_param='idx.permutation_seed = 92916' --picture=pmnist.png
  t2aux data csv --data_dir=dbpedia --gin_param='csv.tokens = "bytes"'
  t2aux data csv --data_dir=reviews.csv --label_column=stars --text_column=review
  t2aux data --gin_file=quickstart
  t2aux data convert image_folder --data_dir=photos --gin_param='image_folder.side = 64' \
      --output_dir=shards
  t2aux data shards --data_dir=shards --verify
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from absl import flags, logging

from t2aux import logs
from t2aux.cli import common, next_steps
from t2aux.errors import SettingError, UserError

if TYPE_CHECKING:
    from t2aux.data import DatasetInfo, Source

common.define_gin_flags()
_DATA_DIR = common.define_data_dir(urls=True)
common.define_columns()
_PREPARE = flags.DEFINE_bool(
    "prepare", False, "Download and prepare the data set with tensorflow-datasets first."
)
_PICTURE = common.define_path(
    "picture", None, "Draw a few sequences into this file (.png, .pdf or .svg)."
)
_BASELINE = flags.DEFINE_bool(
    "baseline",
    True,
    "Show the accuracy of a logistic regression on simple features, which takes a few seconds: "
    "your model should do better.",
)
_OUTPUT_DIR = common.define_path(
    "output_dir", None, "convert: the folder of the shards, new or empty.", urls=True
)
_RUNNER = common.define_runner()
_SHARDS = flags.DEFINE_integer(
    "shards", None, "convert: the number of files per split; by default from --shard_mebibytes."
)
_SHARD_MEBIBYTES = flags.DEFINE_integer(
    "shard_mebibytes", 64, "convert: the approximate size of a file, in MiB before compression."
)
_COMPRESSION = flags.DEFINE_string(
    "compression", "none", "convert: none, or zlib, applied to each sequence."
)
_VERIFY = flags.DEFINE_bool(
    "verify", False, "First read all files of the data set shards and compare their SHA-256."
)


def main(argv: Sequence[str]) -> int | None:
    """Runs the command. argv[1], if given, is the name of the data set, or "convert"."""
    # Imported here because `t2aux data --help` does not need it.
    from t2aux.data import catalogue

    # Beam's options follow "--".
    arguments = list(itertools.takewhile(lambda argument: not argument.startswith("-"), argv[1:]))
    runner_options = common.runner_options(argv[len(arguments) :])
    converts = arguments[:1] == ["convert"]
    names = arguments[1:] if converts else arguments
    if len(names) > 1:
        raise SettingError(f"Give one name of a data set, not {len(names)}: {' '.join(names)}.")
    common.here(_DATA_DIR)
    common.here(_OUTPUT_DIR)
    if converts and not _OUTPUT_DIR.value:
        raise SettingError("Give --output_dir, the new folder of the shards.")
    if not converts:
        _check_not_converting()
    if not names and not (flags.FLAGS.gin_file or flags.FLAGS.gin_param):
        if converts or _PREPARE.value or _PICTURE.value or _VERIFY.value:
            command = "t2aux data convert NAME" if converts else "t2aux data NAME"
            raise SettingError(f"Name the data set: {command}; `t2aux data` lists the names.")
        print(catalogue.listing())
        return None

    from t2aux.data import prepare
    from t2aux.data.tfds_sets import TfdsSource

    source, bindings = _configured(names[0] if names else None)
    common.check_columns(source)
    if converts or isinstance(source, TfdsSource):
        logs.quiet_tensorflow()
    if _PREPARE.value and not prepare(source, bindings.get("data_dir")):
        print(f"{source.title} needs no preparation.")
    if _VERIFY.value:
        _verify(source, bindings.get("data_dir"))
    if converts:
        _convert(source, bindings, runner_options)
    else:
        next_steps.show(*next_steps.of_data(names[0] if names else None, _show(source)))
    return None


def _configured(name: str | None) -> tuple[Source, dict[str, Any]]:
    """The data source that the command names, and the settings that apply to any source.

    Args:
        name: The name given by the user; None if the configuration names the source.
    """
    import gin

    from t2aux import config
    from t2aux.data import configured, named
    from t2aux.data.source import sources

    params = common.gin_params()
    if flags.FLAGS.gin_file or name is None or not all(map(_is_of_data, params)):
        # The configuration of a whole run also names the configurables of the training, which are
        # slow to import.
        logs.quiet_tensorflow()
        from t2aux.training import train as train_module  # noqa: F401

        if name is not None and name not in sources():
            # The files may import a module that defines it. Other errors are reported below.
            with contextlib.suppress(UserError):
                config.parse(flags.FLAGS.gin_file, [], flags.FLAGS.gin_search_path)
        # The data needs no model.
        naming = [] if name is None else next_steps.naming(name)
        params = ["train.auxiliary_losses = []", *naming, *params]
    config.parse(flags.FLAGS.gin_file, params, flags.FLAGS.gin_search_path)
    with config.user_errors():
        source = configured() if name is None else named(name)
    return source, gin.get_bindings("dataset")


def _is_of_data(param: str) -> bool:
    """Whether a setting belongs to a data source or to `dataset`."""
    from t2aux.data.source import sources

    return param.lstrip().partition(".")[0] in ("dataset", *sources())


def _check_not_converting() -> None:
    for flag in (_OUTPUT_DIR, _SHARDS, _SHARD_MEBIBYTES, _COMPRESSION, _RUNNER):
        if flag.value != flag.default:
            raise SettingError(
                f"--{flag.name} is for converting: t2aux data convert NAME --output_dir=FOLDER."
            )


def _show(source: Source) -> DatasetInfo:
    """Prints the summary. Returns the description of the data."""
    from t2aux import config
    from t2aux.data import baselines, load
    from t2aux.data.summary import draw_sequences, notes, summarise

    with config.user_errors():
        train = load(source, "train")
        others = {name: load(source, name, train.info) for name in _others(source)}
    splits = {"train": train, **others}
    print(summarise(splits))
    if found := notes(splits):
        print("\n" + "\n".join(f"Note: {note}" for note in found))
    test = splits["test"]
    regression = baselines.logistic_regression(train, test) if _BASELINE.value else None
    print(f"\n{baselines.table('test', test.info.classes, test.counts(), regression)}")
    if _PICTURE.value:
        draw_sequences(train, _PICTURE.value)
        print(f"\nA picture of some training sequences: {_PICTURE.value}")
    return train.info


def _others(source: Source) -> list[str]:
    """The splits other than the training data: "validation", if it has files, and "test"."""
    import gin

    from t2aux.data.loading import folder_of

    folder = folder_of(gin.get_bindings("dataset").get("data_dir"))
    return [*(["validation"] if source.has_validation(folder) else []), "test"]


def _verify(source: Source, data_dir: str | None) -> None:
    from t2aux.data import ShardFolder, manifest
    from t2aux.data.loading import folder_of
    from t2aux.data.table import Options, require_data_dir

    if not isinstance(source, ShardFolder):
        raise SettingError(f"--verify is for shards, not for {source.title}: leave it out.")
    folder = require_data_dir("shards", Options(data_dir=folder_of(data_dir)))
    count = manifest.verify(folder, lambda file: logging.info("Reading %s", file))
    print(f"All {count} files are as they were written.")


def _convert(source: Source, arguments: dict[str, Any], options: Sequence[str]) -> None:
    """Converts a data set, read with these arguments of `load`, here or in a Beam pipeline."""
    # The way batches are formed is not a property of the data.
    arguments.pop("bucket_batches", None)
    how = {
        "shards": _SHARDS.value,
        "shard_mebibytes": _SHARD_MEBIBYTES.value,
        "compression": _COMPRESSION.value,
    }
    if _RUNNER.value:
        common.check_beam()
        from t2aux.pipelines import convert, runners

        runner = runners.Runner(_RUNNER.value, tuple(options))
        info, total = convert.convert(runner, source, arguments, _OUTPUT_DIR.value, **how)
    else:
        info, total = _convert_here(source, arguments, how)
    _show_shards(total, info, arguments.get("allow", ()))


def _convert_here(
    source: Source, arguments: dict[str, Any], how: dict[str, Any]
) -> tuple[DatasetInfo, int]:
    """Converts a data set. Returns its description and its number of sequences."""
    from t2aux.data import convert, loading
    from t2aux.progress import Progress

    info, train = loading.read(source, "train", **arguments)
    others = {name: loading.read(source, name, info, **arguments)[1] for name in _others(source)}
    splits = {"train": train, **others}
    total = sum(len(examples.labels) for examples in splits.values())
    logging.info(
        "Converting %s: %d training%s and %d test sequences, %.1f MB.",
        info.name,
        len(train.labels),
        f", {len(others['validation'].labels)} validation" if "validation" in others else "",
        len(others["test"].labels),
        sum(examples.nbytes for examples in splits.values()) / 1e6,
    )
    convert.convert(
        info,
        splits,
        _OUTPUT_DIR.value,
        progress=Progress("Sequences", total).update,
        logged_to=common.logged_to,
        **how,
    )
    return info, total


def _show_shards(total: int, info: DatasetInfo, allow: Sequence[str]) -> None:
    """Prints what was written, and the next commands."""
    from t2aux.data import ShardFolder, loading, summary
    from t2aux.data.shards import ShardSplit

    folder = _OUTPUT_DIR.value
    if "://" not in folder:
        # For the summary, read the shards back as the training does.
        written = {}
        for split in loading.SPLITS:
            info, shards = loading.read(ShardFolder(), split, data_dir=folder, allow=allow)
            written[split] = ShardSplit(info, shards)
        print("\n".join(summary.brief(written)))
    print(f"{total:,} sequences of {info.name} are in {folder}.")
    next_steps.show(*next_steps.of_shards(folder, info))
