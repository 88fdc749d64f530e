"""Predictions on many machines: the same table as that of `t2aux.predict`, row for row.

    parts -> read -> blocks of rows -> classify -> a temporary file each -> join -> finish

A worker may run a step again after a failure, or in parallel with a slow attempt. Each attempt
writes files with unique names; `join` uses those of the attempts that the runner accepts, in the
order of the data, and checks that no block is missing. The output gets its final name when it is
complete.

`apache_beam.ml.inference.RunInference` is not used: it chooses the batch size by the time that the
last batches took, and the last digits of a probability depend on that size. `Predictor` computes a
row in a batch whose size depends only on the row's length, so the predictions are the same as on
one machine. Its other feature, one model per process, is provided by Beam's `Shared`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import pickle
import threading
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent import futures

import apache_beam as beam
import pyarrow as pa
from absl import logging
from apache_beam.utils import shared

from t2aux import logs
from t2aux.errors import FileError, SettingError
from t2aux.pipelines import inputs, runners, storage
from t2aux.prediction import api, predictor, report, writing
from t2aux.prediction.model import SCHEMES, Model
from t2aux.prediction.predictor import Predictions, Predictor
from t2aux.prediction.rows import Row
from t2aux.prediction.source import Reading
from t2aux_ondevice import paths
from t2aux_ondevice.answers import without_notes
from t2aux_ondevice.preprocessing import DatasetInfo

_BLOCKS, _JOINED = "blocks", "joined"
_SUMMARY = "summary.pickle"
# The number of files to read ahead while blocks are joined.
_READS = 8
_TALLY = b"t2aux.tally"


@dataclasses.dataclass(frozen=True)
class Spec:
    """The specification of a classifier, which can be sent to workers.

    Attributes:
        model: The model; its place may be on any of Beam's file systems.
        on_error: As for `Predictor`.
        batch_size: As for `Predictor`.
        fetches: Whether the files of rows are on another file system.
    """

    model: Model
    on_error: str = predictor.STOP
    batch_size: int | None = None
    fetches: bool = False


class Loaded:
    """A predictor with its model loaded, for the threads of a process. Kept by Beam's `Shared`."""

    def __init__(self, spec: Spec) -> None:
        """Loads the model. Raises UserError, see `Model.load`."""
        self._staged = storage.Staged()
        self._lock = threading.Lock()
        model = spec.model
        if storage.is_url(model.place) and model.place.partition("://")[0] not in SCHEMES:
            model = dataclasses.replace(model, place=str(self._staged.tree(model.place)))
        if model.needs_tensorflow:
            logs.quiet_tensorflow()
        self.predictor = Predictor(
            model,
            on_error=spec.on_error,
            batch_size=spec.batch_size,
            fetch=storage.read if spec.fetches else None,
        )
        with without_notes():
            self.info = self.predictor.info

    def predict(self, rows: Sequence[Row]) -> Predictions:
        """Classifies rows, in one thread at a time. Raises UserError, see `Predictor`."""
        with self._lock:
            return self.predictor(rows)

    def close(self) -> None:
        """Stops threads, closes connections, and removes copies of files."""
        self.predictor.close()
        self._staged.close()


@dataclasses.dataclass(frozen=True)
class _Done:
    """A block that was classified.

    Attributes:
        part: The number of its part.
        number: The position of the block in the part.
        is_last: Whether it is the last block of its part.
        path: The file of its predictions; None if it has no rows.
    """

    part: int
    number: int
    is_last: bool
    path: str | None


class _Read(beam.DoFn):
    def __init__(
        self, info: DatasetInfo, reading: Reading, columns: inputs.Columns, folder: str
    ) -> None:
        self._arguments = (info, reading, columns)
        self._folder = folder

    def process(self, part: inputs.Part) -> Iterator[inputs.Block]:
        with runners.failing(self._folder, part.number):
            yield from inputs.blocks(part, *self._arguments)


class _Classify(beam.DoFn):
    def __init__(
        self, spec: Spec, layout: writing.Layout, folder: str, handle: shared.Shared
    ) -> None:
        self._spec = spec
        self._layout = layout
        self._folder = folder
        self._handle = handle
        self._rows = beam.metrics.Metrics.counter("t2aux", "rows")

    def process(self, block: inputs.Block) -> Iterator[_Done]:
        path = None
        with runners.failing(self._folder, block.part, block.number):
            # Not in setup, so that an error has a position in the data.
            loaded = self._handle.acquire(lambda: Loaded(self._spec))
            if block.rows:
                predictions = loaded.predict(block.rows)
                tally = report.Tally(self._layout.classes, labelled=self._layout.labelled)
                tally.add(predictions)
                name = runners.file_name(block.part, block.number, len(block.rows))
                path = storage.join(self._folder, _BLOCKS, name)
                _write_block(path, self._layout.table(predictions), tally)
                self._rows.inc(len(block.rows))
        yield _Done(block.part, block.number, block.is_last, path)


class _Join(beam.DoFn):
    """Joins the blocks of an output into one file, in order."""

    def __init__(
        self, layout: writing.Layout, output_format: str, folder: str, parts: Sequence[range]
    ) -> None:
        self._layout = layout
        self._format = output_format
        self._folder = folder
        self._parts = parts

    def process(self, item: tuple[int, Iterable[_Done]]) -> Iterator[tuple[int, str, bytes]]:
        number, found = item
        done = sorted(found, key=lambda block: (block.part, block.number))
        _check_complete(done, self._parts[number])
        tally = report.Tally(self._layout.classes, labelled=self._layout.labelled)
        path = storage.join(self._folder, _JOINED, runners.file_name(number, 0, 0))
        files = [block.path for block in done if block.path is not None]
        with (
            runners.failing(self._folder, runners.OF_OUTPUT),
            storage.errors(path),
            storage.create(path) as file,
            writing.open_writer(self._format, file, self._layout.schema) as write,
        ):
            for batch, counted in _read_ahead(files):
                tally.merge(counted)
                write(batch)
        yield number, path, zlib.compress(pickle.dumps(tally))


class _Finish(beam.DoFn):
    """Gives the outputs their final names, and writes the summary for the waiting process."""

    def __init__(self, outputs: Sequence[str], layout: writing.Layout, folder: str) -> None:
        self._outputs = outputs
        self._layout = layout
        self._folder = folder

    def process(self, item: tuple[None, Iterable[tuple[int, str, bytes]]]) -> None:
        tally = report.Tally(self._layout.classes, labelled=self._layout.labelled)
        joined = sorted(item[1])
        for _, _, counted in joined:
            tally.merge(pickle.loads(zlib.decompress(counted)))
        summary = storage.join(self._folder, _SUMMARY)
        with runners.failing(self._folder, runners.OF_OUTPUT):
            storage.write(summary, pickle.dumps(tally))
            if tally.rows == tally.skipped:
                return  # The waiting process reports why the output is missing.
            for number, path, _ in joined:
                # On a second attempt, some files already have their final names.
                if storage.exists(path):
                    storage.move(path, self._outputs[number])


def predict(
    runner: runners.Runner,
    spec: Spec,
    data: str,
    reads: Reading,
    writes: api.Writing,
) -> report.Summary:
    """Classifies data like `t2aux.predict`, in a pipeline.

    Args:
        runner: The runner of the pipeline.
        spec: The classifier. Its model, a path or a URL, must be readable by the workers.
        data: As for `t2aux.predict`; or on any of Beam's file systems; or a pattern with `*` that
            matches several files, whose rows are named FILE:NUMBER.
        reads: How the data is read.
        writes: What is written, and where; on any of Beam's file systems. With a `*` in the name,
            each part of the data gets its own file, NAME-00000-of-00017.csv for NAME-*.csv.

    Raises:
        UserError: As for `t2aux.predict`, or if the runner can't be used.
    """
    runner.pipeline_options()
    data = runner.place(data, "--data")
    output = _checked_output(writes)
    output_format = writing.format_of(output, writes.output_format)
    model = dataclasses.replace(spec.model, place=runner.place(spec.model.place, "--model"))
    spec = dataclasses.replace(spec, model=model, fetches=storage.is_url(data))
    with contextlib.closing(Loaded(spec)) as loaded:
        info = loaded.info
        reads = reads.after(loaded.predictor.source)
        with storage.temporary_folder(output) as folder:
            divided = inputs.divide(data, info, reads, folder)
            api.check_labelled(divided.what, divided.source.labelled, writes)
            api.log_notes(divided.source.notes())
            layout = writes.layout(info.classes, divided.source, spec.on_error)
            count = len(divided.parts)
            outputs = _outputs(output, count, overwrite=writes.overwrite)
            is_single = len(outputs) == 1
            of_output = [range(count)] if is_single else [range(n, n + 1) for n in range(count)]
            for name in (_BLOCKS, _JOINED):
                storage.make_folder(storage.join(folder, name))
            logging.info(
                "%s: %d parts, on %s. Temporary files: %s",
                *(divided.what, count, runner.name, folder),
            )

            def build(started: beam.Pipeline) -> None:
                columns = inputs.columns_of(divided.source)
                _ = (
                    started
                    | "Parts" >> beam.Create(divided.parts, reshuffle=True)
                    | "Read" >> beam.ParDo(_Read(info, reads, columns, folder))
                    # Lets many workers classify the rows that one of them reads.
                    | "Distribute" >> beam.Reshuffle()
                    | "Classify" >> beam.ParDo(_Classify(spec, layout, folder, shared.Shared()))
                    | "By output" >> beam.Map(lambda done: (0 if is_single else done.part, done))
                    | "Collect" >> beam.GroupByKey()
                    | "Join" >> beam.ParDo(_Join(layout, output_format, folder, of_output))
                    | "All outputs" >> beam.WithKeys(None)
                    | "Collect outputs" >> beam.GroupByKey()
                    | "Finish" >> beam.ParDo(_Finish(outputs, layout, folder))
                )

            progress = runners.progress(
                storage.join(folder, _BLOCKS, "*"), "Rows", divided.expected
            )
            runners.run(runner, build, folder, progress)
            tally = pickle.loads(storage.read(storage.join(folder, _SUMMARY)))
            summary = tally.summary(output)
            api.check_summary(divided.what, summary, writes)
    if writes.report is not None:
        about = {"model": spec.model.place, "data": divided.what, "output": output}
        report.write(writes.report, summary, about, divided.what)
    return summary


def _checked_output(writes: api.Writing) -> str:
    """The path or URL of the output on the workers. Raises UserError if it can't be an output."""
    output = writes.output
    if output == writing.STANDARD:
        raise SettingError("Workers can't write to standard output: give --output=FILE.")
    if storage.is_url(output):
        writes.check_settings()
        storage.exists(output)  # Checks that Beam can use the file system.
    else:
        output = str(pathlib.Path(paths.local(output, "--output")).absolute())
        dataclasses.replace(writes, output=output).check()
    return output


def _outputs(output: str, parts: int, *, overwrite: bool) -> list[str]:
    """The names of the outputs. Raises UserError if one already exists."""
    if "*" not in output:
        names = [output]
    else:
        names = [output.replace("*", f"{n:05}-of-{parts:05}") for n in range(parts)]
    if not overwrite:
        for name in names:
            if storage.exists(name):
                raise FileError(f"{name} exists: give another --output, or --overwrite.")
    return names


def _write_block(path: str, batch: pa.RecordBatch, tally: report.Tally) -> None:
    """Writes the predictions for a block, and their contribution to the summary."""
    counted = zlib.compress(pickle.dumps(tally))
    schema = batch.schema.with_metadata({_TALLY: counted})
    with (
        storage.errors(path),
        storage.create(path) as file,
        pa.ipc.new_stream(file, schema) as writer,
    ):
        writer.write_batch(batch.replace_schema_metadata(schema.metadata))


def _read_block(path: str) -> tuple[pa.RecordBatch, report.Tally]:
    with pa.ipc.open_stream(storage.read(path)) as reader:
        counted = reader.schema.metadata[_TALLY]
        batch = reader.read_next_batch()
    return batch.replace_schema_metadata(None), pickle.loads(zlib.decompress(counted))


def _read_ahead(files: Sequence[str]) -> Iterator[tuple[pa.RecordBatch, report.Tally]]:
    """Reads blocks in order, several at once, since each is a request on an object store."""
    with futures.ThreadPoolExecutor(_READS, "t2aux-blocks") as pool:
        coming = [pool.submit(_read_block, path) for path in files[:_READS]]
        for path in [*files[_READS:], *[None] * len(coming)]:
            yield coming.pop(0).result()
            if path is not None:
                coming.append(pool.submit(_read_block, path))


def _check_complete(done: Sequence[_Done], parts: range) -> None:
    """Raises RuntimeError if the runner lost a block, or counted two attempts."""
    expected = (parts.start, 0)
    for block in done:
        if (block.part, block.number) != expected:
            raise RuntimeError(f"Block {expected} is missing, or another one doubled.")
        expected = (block.part + 1, 0) if block.is_last else (block.part, block.number + 1)
    if expected != (parts.stop, 0):
        raise RuntimeError(f"Block {expected} is missing.")
