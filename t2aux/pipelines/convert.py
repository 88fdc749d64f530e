"""Writes shards on many machines: the same files as `t2aux data convert` on one machine.

Each worker reads the data set and writes some of the shards. The content of a shard does not depend
on the worker that writes it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import apache_beam as beam
from absl import logging
from apache_beam.utils import shared

from t2aux.data import convert as here
from t2aux.data import loading, manifest
from t2aux.data.source import Source
from t2aux.data.table import Examples
from t2aux.errors import DataError, FileError
from t2aux.pipelines import runners, storage
from t2aux_ondevice.preprocessing import DatasetInfo

_FILES, _WHOLE = "files", "whole"


@dataclasses.dataclass(frozen=True)
class DataSet:
    """A data set that workers read.

    Attributes:
        source: Its source.
        arguments: The other arguments of `loading.read`; `data_dir` may be on any of Beam's file
            systems.
    """

    source: Source
    arguments: Mapping[str, Any]


class Opened:
    """A data set that is read in this process, split by split. Kept by Beam's `Shared`."""

    def __init__(self, data_set: DataSet) -> None:
        """Copies its folder to this machine if it is on another file system."""
        self._source = data_set.source
        self._arguments = dict(data_set.arguments)
        self._staged = storage.Staged()
        self._splits: dict[str, Examples] = {}
        self._info: DatasetInfo | None = None
        folder = self._arguments.get("data_dir")
        if folder is not None and storage.is_url(folder):
            self._arguments["data_dir"] = str(self._staged.tree(folder))

    def examples(self, split: str) -> tuple[DatasetInfo, Examples]:
        """Reads a split as on one machine. Raises UserError, see `loading.read`."""
        for name in loading.SPLITS:
            if name not in self._splits:
                info, examples = loading.read(self._source, name, self._info, **self._arguments)
                self._info = self._info or info
                self._splits[name] = examples
            if name == split:
                break
        return self._info, self._splits[split]

    def close(self) -> None:
        """Removes copies of files."""
        self._staged.close()


@dataclasses.dataclass(frozen=True)
class _Shard:
    """A file to write.

    Attributes:
        place: The position of the file among all files.
        split: The split that it belongs to.
        number: The number of the file in the split.
        start: The index of its first example in the split.
        end: The index after its last example.
    """

    place: int
    split: str
    number: int
    start: int
    end: int


@dataclasses.dataclass(frozen=True)
class _Written:
    """A written file: its path, its entry in the manifest, and what was recorded of its content."""

    shard: _Shard
    paths: tuple[str, str]
    entry: dict[str, Any]
    seen: here.Seen


@dataclasses.dataclass(frozen=True)
class _Plan:
    """What all steps share: the data, its description, the files and the output."""

    data_set: DataSet
    info: DatasetInfo
    dtype: Any
    compression: str
    counts: Mapping[str, int]
    examples: Mapping[str, int]
    notes: Mapping[str, tuple[str, ...]]
    folder: str
    output: str

    def shards(self) -> list[_Shard]:
        """All files."""
        found: list[_Shard] = []
        for split, count in self.counts.items():
            for number, (start, end) in enumerate(here.bounds(self.examples[split], count)):
                found.append(_Shard(len(found), split, number, start, end))
        return found


class _Write(beam.DoFn):
    def __init__(self, plan: _Plan, handle: shared.Shared) -> None:
        self._plan = plan
        self._handle = handle
        self._sequences = beam.metrics.Metrics.counter("t2aux", "sequences")

    def process(self, shard: _Shard) -> Iterator[_Written]:
        plan = self._plan
        with (
            runners.failing(plan.folder, shard.place),
            tempfile.TemporaryDirectory(prefix="t2aux-") as place,
        ):
            opened = self._handle.acquire(lambda: Opened(plan.data_set))
            info, examples = opened.examples(shard.split)
            if info != plan.info or len(examples.labels) != plan.examples[shard.split]:
                raise DataError(
                    f"{info.name} is not the same for all workers: it changed, or some read "
                    "a different folder of that name. Start again when it is complete."
                )
            seen = here.Seen(info)
            name = runners.file_name(shard.place, 0, shard.end - shard.start)
            local = tuple(pathlib.Path(place, name + suffix) for suffix in ("", ".index"))
            labels = examples.labels[shard.start : shard.end]
            sequences = examples.some(shard.start, shard.end)
            entry = here.write_shard(
                local, sequences, labels, plan.compression, plan.dtype, seen, self._sequences.inc
            )
            # Read to the end, where a source makes its last checks.
            next(sequences, None)
            index = storage.join(plan.folder, _FILES, "index", name)
            targets = (storage.join(plan.folder, _FILES, name), index)
            for written, target in reversed(list(zip(local, targets, strict=True))):
                storage.copy(str(written), target)
        yield _Written(shard, targets, entry, seen)


class _Finish(beam.DoFn):
    """Gives the files their final names and describes them. dataset.json is written last."""

    def __init__(self, plan: _Plan) -> None:
        self._plan = plan

    def process(self, item: tuple[None, Iterable[_Written]]) -> None:
        plan = self._plan
        written = sorted(item[1], key=lambda found: found.shard.place)
        if [found.shard for found in written] != plan.shards():
            raise RuntimeError("Shards are missing or doubled.")
        seen = {split: here.Seen(plan.info) for split in plan.counts}
        entries: dict[str, list[dict[str, Any]]] = {split: [] for split in plan.counts}
        for found in written:
            entries[found.shard.split].append(found.entry)
            seen[found.shard.split].merge(found.seen)
        of_splits = {
            split: seen[split].found(split, plan.notes[split], plan.examples[split])
            for split in plan.counts
        }
        described = manifest.Manifest(
            pathlib.Path(), plan.info, plan.dtype, plan.compression, entries, of_splits
        )
        content = json.dumps(described.to_json(), indent=2, ensure_ascii=False) + "\n"
        # A local folder is renamed as a whole; other file systems may have no folders.
        is_elsewhere = storage.is_url(plan.output)
        folder = plan.output if is_elsewhere else storage.join(plan.folder, _WHOLE)
        with runners.failing(plan.folder, runners.OF_OUTPUT):
            if is_elsewhere:
                storage.make_folder(folder)
            for found in written:
                count = plan.counts[found.shard.split]
                names = manifest.file_names(found.shard.split, count)[found.shard.number]
                for path, name in zip(found.paths, names, strict=True):
                    # On a second attempt, some files already have their final names.
                    if storage.exists(path):
                        storage.move(path, storage.join(folder, name))
            described_in = storage.join(plan.folder, manifest.DESCRIPTION)
            storage.write(described_in, content.encode("utf-8", "backslashreplace"))
            storage.move(described_in, storage.join(folder, manifest.DESCRIPTION))
            if not is_elsewhere:
                _rename(folder, plan.output)


def _rename(folder: str, output: str) -> None:
    try:
        here.publish(pathlib.Path(folder), pathlib.Path(output))
    except FileNotFoundError:
        # A second attempt.
        if not pathlib.Path(output, manifest.DESCRIPTION).exists():
            raise
    except OSError as error:
        raise FileError(f"Can't write {output}: {error.strerror or error}.") from error


def convert(
    runner: runners.Runner,
    source: Source,
    arguments: Mapping[str, Any],
    output_dir: str,
    *,
    shards: int | None = None,
    shard_mebibytes: int = 64,
    compression: str = "none",
) -> tuple[DatasetInfo, int]:
    """Converts a data set like `t2aux.data.convert.convert`, in a pipeline.

    Each process of a worker reads the data set: only the images and shards that it needs, but whole
    tables and arrays. A folder on another file system is first copied to each process.

    Args:
        runner: The runner of the pipeline.
        source: The data set.
        arguments: The other arguments of `loading.read`; `data_dir`, a path or a URL, must be
            readable by the workers.
        output_dir: The folder, on any of Beam's file systems, which must be new or empty. On an
            object store, dataset.json is written last; the shards are unusable without it.
        shards: As for `t2aux.data.convert.convert`.
        shard_mebibytes: As for `t2aux.data.convert.convert`.
        compression: As for `t2aux.data.convert.convert`.

    Returns:
        The description of the data, and the number of sequences.

    Raises:
        UserError: As for `t2aux.data.convert.convert`, or if the runner can't be used.
    """
    runner.pipeline_options()
    output = runner.place(output_dir, "--output_dir").rstrip("/")
    if not storage.is_url(output):
        here.check_new(pathlib.Path(output))
    elif storage.files_in(output):
        raise here.taken(output)
    given = dict(arguments)
    if given.get("data_dir") is not None:
        given["data_dir"] = runner.place(given["data_dir"], "--data_dir")
    data_set = DataSet(source, given)
    with contextlib.closing(Opened(data_set)) as opened:
        info, train = opened.examples("train")
        splits = {"train": train, "test": opened.examples("test")[1]}
        counts = here.count_shards(info, splits, shards, shard_mebibytes, compression)
        sizes = {split: len(examples.labels) for split, examples in splits.items()}
        notes = {split: tuple(examples.notes) for split, examples in splits.items()}
        dtype = train.dtype
    total = sum(sizes.values())
    logging.info(
        "Converting %s: %d sequences into %d files, on %s.",
        *(info.name, total, sum(counts.values()), runner.name),
    )
    if not storage.is_url(output):
        pathlib.Path(output).parent.mkdir(parents=True, exist_ok=True)
    with storage.temporary_folder(output) as folder:
        for name in (_FILES, f"{_FILES}/index", _WHOLE):
            storage.make_folder(storage.join(folder, name))
        plan = _Plan(data_set, info, dtype, compression, counts, sizes, notes, folder, output)

        def build(started: beam.Pipeline) -> None:
            _ = (
                started
                | "Shards" >> beam.Create(plan.shards(), reshuffle=True)
                | "Write" >> beam.ParDo(_Write(plan, shared.Shared()))
                | "All" >> beam.WithKeys(None)
                | "Collect" >> beam.GroupByKey()
                | "Finish" >> beam.ParDo(_Finish(plan))
            )

        pattern = storage.join(folder, _FILES, "*")
        runners.run(runner, build, folder, runners.progress(pattern, "Sequences", total))
    return info, total
