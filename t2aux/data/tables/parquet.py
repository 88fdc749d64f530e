"""Parquet files, by pyarrow."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING

from t2aux.data.table import damaged
from t2aux.data.tables.base import ROWS, Numbered, TableReader
from t2aux.data.tables.columns import distinct
from t2aux.errors import DataError

if TYPE_CHECKING:
    from pyarrow import parquet


class ParquetReader(TableReader):
    """A Parquet file; its columns keep their types.

    Attributes:
        num_rows: The number of rows.
    """

    unit = "row"

    def __init__(self, name: str, opened: Callable[[], IO[bytes]]) -> None:
        """Reads the schema.

        Args:
            name: The file's name for messages.
            opened: Opens the file, which must be seekable.

        Raises:
            UserError: The file is damaged or has no columns.
        """
        self._opened = opened
        with _opened(name, opened) as file:
            columns = distinct(file.schema_arrow.names)
            index = _index_of(file)
            self.num_rows = file.metadata.num_rows
        if not columns:
            raise DataError(f"{name} has no columns.")
        super().__init__(name, columns, index=index)

    def numbered(self) -> Iterator[Numbered]:
        """Yields the rows; see `TableReader`."""
        first = 1
        with _opened(self.name, self._opened) as file:
            for batch in file.iter_batches(batch_size=ROWS, use_threads=False):
                batch = batch.rename_columns(self.columns)
                yield Numbered(range(first, first + len(batch)), batch)
                first += len(batch)


@contextlib.contextmanager
def _opened(name: str, opened: Callable[[], IO[bytes]]) -> Iterator[parquet.ParquetFile]:
    import pyarrow as pa
    from pyarrow import parquet

    with opened() as file:
        try:
            # Pages are read when they are needed, since pandas writes a million rows in one group.
            yield parquet.ParquetFile(file, pre_buffer=False, buffer_size=1 << 20)
        except (pa.ArrowException, OSError) as error:
            raise damaged(name, error) from error


def _index_of(file: parquet.ParquetFile) -> str | None:
    """The column of pandas's index."""
    metadata = (file.schema_arrow.metadata or {}).get(b"pandas")
    if metadata is None:
        return None
    try:
        index = json.loads(metadata)["index_columns"]
    except (ValueError, KeyError, TypeError):
        return None
    names = file.schema_arrow.names
    found = next((name for name in index if isinstance(name, str) and name in names), None)
    return None if found is None else distinct(names)[names.index(found)]
