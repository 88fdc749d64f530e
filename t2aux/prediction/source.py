"""`Source`: the rows of a file, a folder or standard input; and the choice of the reader."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import IO

import pyarrow as pa

from t2aux.data.archives import ARCHIVE_SUFFIXES
from t2aux.errors import DataError, FileError, SettingError
from t2aux.prediction.rows import Row
from t2aux_ondevice import paths
from t2aux_ondevice.preprocessing import DatasetInfo

STANDARD = "-"
TABLE, LINES, TEXT, NPZ = FORMATS = ("table", "lines", "text", "npz")


@dataclasses.dataclass(frozen=True)
class Reading:
    """How data is read.

    Attributes:
        data_format: One of FORMATS; None for the format implied by the name.
        label_column: For a table, the column of the true classes; None to find it by its name.
        text_columns: For a table, the columns of the text, joined by a space; empty to find them by
            their names.
        encoding: The encoding of a table or of lines; None for UTF-8, or the encoding of a byte
            order mark.
        keep_columns: Whether to write the columns of a table instead of `input` and `label`.
        split: The split of a folder of shards or a data set.
        trained_label: The column of the classes in the training data, used if `label_column` is
            None and the table has it.
        trained_texts: Likewise, the columns of the text.
    """

    data_format: str | None = None
    label_column: str | None = None
    text_columns: tuple[str, ...] = ()
    encoding: str | None = None
    keep_columns: bool = False
    split: str = "test"
    trained_label: str | int | None = None
    trained_texts: tuple[str | int, ...] = ()

    def after(self, training: object | None) -> Reading:
        """Adds the columns of the training data, a `t2aux.data.Source`, or None if unknown."""
        return dataclasses.replace(
            self,
            trained_label=getattr(training, "label_column", None),
            trained_texts=getattr(training, "text_columns", ()),
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """Rows to classify.

    Attributes:
        what: The name of the source in messages.
        rows: Returns an iterator over the rows; called once.
        labelled: Whether rows have labels.
        columns: The names and types of `Row.columns`, if columns are kept; otherwise None.
        name_type: The type of `Row.name`.
        total: The number of rows, or None if it is not known.
        about: Estimates the number of rows from what was read; None if this is not possible.
        notes: What was guessed about the data so far, one sentence each.
    """

    what: str
    rows: Callable[[], Iterator[Row]]
    labelled: bool
    columns: pa.Schema | None = None
    name_type: pa.DataType = dataclasses.field(default_factory=pa.string)
    total: int | None = None
    about: Callable[[], int | None] = lambda: None
    notes: Callable[[], tuple[str, ...]] = lambda: ()

    def expected(self, done: int) -> int | None:
        """The exact or estimated number of rows; None if it is not known."""
        total = self.about() if self.total is None else self.total
        return None if total is None else max(total, done)


def open_source(data: str, info: DatasetInfo, reading: Reading) -> Source:
    """Opens data and reads its beginning.

    Args:
        data: A table; a `.txt` file with one text per line; an `.npz` file; a folder or an archive
            of images, or a folder of `.txt` files; an IDX file of images; a `.ts` file of series; a
            folder of shards; or "-" for standard input, a table by default.
        info: The description of the classifier's data.
        reading: How the data is read.

    Raises:
        UserError: The data does not exist or can't be read, or the classifier reads another kind of
            data.
    """
    if reading.data_format not in (None, *FORMATS):
        raise SettingError(
            f"The format of the data is {reading.data_format!r}: give {', '.join(FORMATS)}."
        )
    if data == STANDARD:
        return _of_standard_input(info, reading)
    path = pathlib.Path(paths.local(data, "--data"))
    if not path.exists():
        raise FileError(f"Can't find the file or folder {path}: check --data.")
    if path.is_dir():
        _refuse_table_flags(path, reading, "a folder")
        return _of_folder(path, info, reading)
    kind = reading.data_format or _format_of(path, info)
    if kind in (TABLE, LINES, TEXT):
        return _of_text(path, str(path), kind, info, reading)
    _refuse_table_flags(path, reading, "not a table")
    if kind == NPZ:
        from t2aux.prediction import of_arrays

        return of_arrays.npz(path, info)
    if kind in ("idx", "ts"):
        from t2aux.prediction import of_arrays

        return of_arrays.ts(path) if kind == "ts" else of_arrays.idx(path, info)
    from t2aux.prediction import of_files

    return (of_files.archive if kind == "archive" else of_files.image)(path, info)


def _format_of(path: pathlib.Path, info: DatasetInfo) -> str:
    from t2aux.data.idx import is_images
    from t2aux_ondevice.images import has_image_suffix

    name = path.name.lower()
    if name.endswith(".npz"):
        return NPZ
    if name.endswith(".ts") and info.kind == "vectors":
        return "ts"
    if is_images(path):
        return "idx"
    if name.endswith(ARCHIVE_SUFFIXES):
        return "archive"
    if has_image_suffix(name):
        return "image"
    if info.is_text:
        return LINES if name.endswith(".txt") else TABLE
    if info.kind == "image":
        raise DataError(
            f"{path} is not an image, and the classifier reads images: give a folder or an archive "
            "of images, or an .npz or IDX file."
        )
    raise DataError(
        f"{path} is not an .npz or .ts file, and the classifier reads {info.kind}: give an .npz "
        "file with `inputs` [N, T, C] and, if lengths vary, `lengths` [N], or a .ts file."
    )


def _of_text(
    source: pathlib.Path | IO[bytes], name: str, kind: str, info: DatasetInfo, reading: Reading
) -> Source:
    if not info.is_text:
        raise DataError(f"{name} holds texts, and the classifier reads {info.kind}: give those.")
    if kind == TABLE:
        from t2aux.prediction import of_table

        return of_table.table(source, name, info, reading)
    if reading.label_column or reading.text_columns or reading.keep_columns:
        raise SettingError(
            f"{name} is read as {'lines' if kind == LINES else 'one text'}, without columns: leave "
            "out --label_column, --text_column and --keep_columns, or give --data_format=table."
        )
    from t2aux.prediction import of_files

    if kind == LINES:
        return of_files.lines(source, name, reading.encoding)
    return of_files.one_text(source, name)


def _of_folder(path: pathlib.Path, info: DatasetInfo, reading: Reading) -> Source:
    from t2aux.prediction import of_files

    if reading.data_format is not None:
        raise SettingError(f"{path} is a folder: leave out --data_format, or give a file in it.")
    if is_shards(path):
        from t2aux.data.shards import ShardFolder
        from t2aux.prediction import of_arrays

        return of_arrays.data_set(ShardFolder(), reading.split, info, path)
    return of_files.folder(path, info)


def check_images(path: pathlib.Path, info: DatasetInfo) -> None:
    """Raises UserError if the classifier does not read images."""
    if info.kind != "image":
        raise DataError(f"{path} holds images, and the classifier reads {info.kind}: give those.")


def is_shards(path: pathlib.Path) -> bool:
    """Whether a folder was written by `t2aux data convert`."""
    from t2aux.data.manifest import DESCRIPTION

    return (path / DESCRIPTION).is_file() and any(path.glob("*.tfrecord"))


def _of_standard_input(info: DatasetInfo, reading: Reading) -> Source:
    stream = _standard_input()
    name = "standard input"
    if info.is_text and reading.data_format != NPZ:
        return _of_text(stream, name, reading.data_format or TABLE, info, reading)
    if info.is_text or reading.data_format in (None, NPZ):
        from t2aux.prediction import of_arrays

        # A file must be seekable, because the directory of an .npz file is at its end.
        with tempfile.NamedTemporaryFile(suffix=".npz") as copy:
            shutil.copyfileobj(stream, copy)
            copy.flush()
            return of_arrays.npz(pathlib.Path(copy.name), info, name)
    raise DataError(
        f"Standard input is {reading.data_format}, and the classifier reads {info.kind}: give an "
        ".npz file there."
    )


def _standard_input() -> IO[bytes]:
    if sys.stdin is None:
        raise FileError("Standard input is closed: give a file.")
    try:
        # A separate stream: Python's own is locked while a thread waits for it, and the program
        # would wait for the lock at its end.
        return os.fdopen(os.dup(sys.stdin.fileno()), "rb")
    except OSError:  # It is not a file.
        return sys.stdin.buffer


def _refuse_table_flags(path: pathlib.Path, reading: Reading, what: str) -> None:
    given = {
        "--label_column": reading.label_column,
        "--text_column": reading.text_columns,
        "--keep_columns": reading.keep_columns,
        "--encoding": reading.encoding,
    }
    useless = next((flag for flag, value in given.items() if value), None)
    if useless is not None:
        raise SettingError(
            f"{useless} is for tables, and {os.fspath(path)} is {what}: leave it out."
        )
