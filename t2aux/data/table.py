"""The table that holds a split in memory, the options of a source, and helpers to find files."""

from __future__ import annotations

import dataclasses
import gzip
import io
import itertools
import lzma
import os
import pathlib
import unicodedata
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import IO, TYPE_CHECKING, Protocol, TypeVar

import numpy as np

from t2aux.errors import DataError, FileError, SettingError, UserError, listing, nearest
from t2aux.progress import Progress
from t2aux_ondevice import kinds
from t2aux_ondevice.errors import printable
from t2aux_ondevice.preprocessing import DatasetInfo

if TYPE_CHECKING:
    from t2aux.data.places import Division

# The errors that reading a damaged compressed file may raise.
DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError)
_UNPACKERS = {".gz": gzip.open, ".tgz": gzip.open, ".xz": lzma.open}
# The beginnings of files whose suffix may be wrong.
_BEGINNING = 64
_PACKINGS = {
    b"\x1f\x8b": ("compressed with gzip", (".gz", ".tgz")),
    b"\xfd7zXZ": ("compressed with xz", (".xz",)),
    b"PK\x03\x04": ("a zip archive", (".zip",)),
    b"BZh": ("compressed with bzip2", ()),
    b"\x28\xb5\x2f\xfd": ("compressed with Zstandard", ()),
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", ()),
    b"Rar!": ("a RAR archive", ()),
}
_SUBSET_SEED = 0
_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class Options:
    """The options of a source: the arguments of `load` and the parameters of the source.

    They are documented in `load`, `t2aux.data.source.ImageSource` and `TextSource`. `source` is the
    source's name in gin files. `side` is that of `info`, if given; `resize` says whether the source
    itself has a side, so that images of other sizes are resized and do not raise an error.
    """

    source: str = ""
    data_dir: pathlib.Path | None = None
    side: int | None = None
    resize: bool = False
    border: int = 0
    grey: bool = False
    permutation_seed: int | None = None
    tokens: str = "characters"
    max_length: int | None = None
    vocabulary_size: int = 256
    max_examples: int | None = None
    splits: tuple[str, str] | None = None
    test_fraction: float = 0.0
    split_seed: int = 0
    allow: tuple[str, ...] = ()
    info: DatasetInfo | None = None


class Examples(Protocol):
    """The examples that a source returns: sequences with labels, in a fixed order.

    Attributes:
        labels: int32 [N].
        dtype: The dtype of a step's values: uint8 for pixels, float32 for vectors, unsigned for
            ids.
        nbytes: The size of all sequences in bytes.
        notes: What the reader skipped, guessed or found unusual, one sentence each.
        counts: The number of examples of each class in the whole split, before `max_examples`,
            int64 [K]; None if it is the same as in `labels`.
        found: Where the reader found the examples, for an error about their classes.
        division: How data without a test set was divided; None if it was not.
    """

    labels: np.ndarray
    notes: tuple[str, ...]
    counts: np.ndarray | None
    found: str
    division: Division | None

    @property
    def dtype(self) -> np.dtype:
        """See above."""

    @property
    def nbytes(self) -> int:
        """See above."""

    def sequences(self) -> Iterator[np.ndarray]:
        """Yields each sequence as stored: [T, C] pixels or vectors, or [T] ids."""

    def some(self, first: int, end: int) -> Iterator[np.ndarray]:
        """Yields the sequences `first` to `end`, excluding `end`."""

    def table(self) -> Table:
        """Reads all sequences into memory."""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Found:
    """The attributes of `Examples` other than the sequences.

    Attributes:
        notes: As for `Examples`.
        counts: As for `Examples`.
        found: As for `Examples`.
        division: As for `Examples`.
    """

    notes: tuple[str, ...] = ()
    counts: np.ndarray | None = None
    found: str = ""
    division: Division | None = None

    def some(self, first: int, end: int) -> Iterator[np.ndarray]:
        """Yields the sequences `first` to `end`, excluding `end`. Also reads those before."""
        # The last sequences are read to the very end, where the last checks are.
        return itertools.islice(self.sequences(), first, end if end < len(self.labels) else None)


@dataclasses.dataclass(frozen=True, eq=False)
class Table(Found):
    """Concatenated sequences of any lengths.

    Attributes:
        values: The steps of all sequences: [total, C] uint8 pixels or float32 vectors, or [total]
            unsigned integer ids.
        offsets: int64 [N + 1]: sequence i is values[offsets[i]:offsets[i + 1]].
        labels: int32 [N].
    """

    values: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray

    @classmethod
    def of_rows(cls, rows: np.ndarray, labels: np.ndarray) -> Table:
        """Makes a table of sequences of equal length, rows [N, T, C]."""
        count, steps = rows.shape[:2]
        offsets = np.arange(count + 1, dtype=np.int64) * steps
        values = rows.reshape(count * steps, *rows.shape[2:])
        return cls(values, offsets, np.asarray(labels, np.int32))

    @classmethod
    def of_lengths(cls, values: np.ndarray, lengths: np.ndarray, labels: np.ndarray) -> Table:
        """Makes a table from the concatenated steps of all sequences and their lengths."""
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
        return cls(values, offsets, np.asarray(labels, np.int32))

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the values."""
        return self.values.dtype

    @property
    def nbytes(self) -> int:
        """The size of the values in bytes."""
        return self.values.nbytes

    def sequences(self) -> Iterator[np.ndarray]:
        """Yields each sequence as a view."""
        return self.some(0, len(self.labels))

    def some(self, first: int, end: int) -> Iterator[np.ndarray]:
        """Yields the sequences `first` to `end`, excluding `end`, as views."""
        for start, stop in itertools.pairwise(self.offsets[first : end + 1].tolist()):
            yield self.values[start:stop]

    def table(self) -> Table:
        """Returns itself."""
        return self

    def take(self, indices: np.ndarray) -> Table:
        """Returns a table of some of the sequences.

        Args:
            indices: int [M], ascending.
        """
        lengths = np.diff(self.offsets)
        is_taken = np.zeros(len(lengths), bool)
        is_taken[indices] = True
        values = self.values[np.repeat(is_taken, lengths)]
        taken = Table.of_lengths(values, lengths[indices], self.labels[indices])
        same = {field.name: getattr(self, field.name) for field in dataclasses.fields(Found)}
        return dataclasses.replace(taken, **same)


@dataclasses.dataclass(frozen=True, eq=False)
class Rows(Found):
    """Sequences of one shape that are made one at a time, so that they need not fit in memory.

    Attributes:
        what: A description of what is being read, for the progress in the log.
        labels: int32 [N].
        shape: T and C.
        make: Returns an iterator over N arrays uint8 [T, C]; called once.
        make_some: Returns an iterator over the arrays from a first to an end index, excluding the
            end, without making the others; None if this is not supported.
    """

    what: str
    labels: np.ndarray
    shape: tuple[int, int]
    make: Callable[[], Iterator[np.ndarray]]
    make_some: Callable[[int, int], Iterator[np.ndarray]] | None = None

    @property
    def dtype(self) -> np.dtype:
        """The dtype of pixels."""
        return np.dtype(np.uint8)

    @property
    def nbytes(self) -> int:
        """The size of all rows in bytes."""
        return len(self.labels) * self.shape[0] * self.shape[1]

    def sequences(self) -> Iterator[np.ndarray]:
        """Makes and yields one row at a time."""
        return self.make()

    def some(self, first: int, end: int) -> Iterator[np.ndarray]:
        """Makes and yields the rows `first` to `end`, excluding `end`, one at a time."""
        if self.make_some is not None:
            return self.make_some(first, end)
        return super().some(first, end)

    def table(self) -> Table:
        """Makes all rows."""
        try:
            values = np.empty((len(self.labels), *self.shape), np.uint8)
        except (MemoryError, ValueError) as error:
            raise DataError(
                f"{self.what}: {len(self.labels):,} of {self.shape[0]:,} pixels each do not fit "
                "in memory: set a smaller side."
            ) from error
        progress = Progress(self.what, len(values))
        for index, row in enumerate(self.make()):
            values[index] = row
            progress.update(index + 1)
        return Table.of_rows(values, self.labels)


def subset(count: int, max_examples: int | None) -> np.ndarray:
    """Returns the indices of the examples to keep, ascending, int64 [min(count, max_examples)].

    They are drawn with a fixed seed rather than taken from the start, since many data sets are
    stored class by class.
    """
    if max_examples is None or max_examples >= count:
        return np.arange(count)
    generator = np.random.Generator(np.random.PCG64(_SUBSET_SEED))
    return np.sort(generator.permutation(count)[:max_examples])


def choose(examples: Iterable[_T], indices: np.ndarray) -> Iterator[tuple[int, _T]]:
    """Yields the ascending indices with their examples, and stops reading after the last one."""
    wanted = iter(indices.tolist())
    next_index = next(wanted, None)
    for index, example in enumerate(examples):
        if index == next_index:
            yield index, example
            next_index = next(wanted, None)
        if next_index is None:
            return


def require_data_dir(source: str, options: Options, *, or_file: bool = False) -> pathlib.Path:
    """Returns the folder (or file) of a user's own data. Raises UserError if there is none."""
    what = "folder or file" if or_file else "folder"
    place = options.data_dir
    if place is None:
        raise SettingError(
            f"The data set {source} needs a {what}: give --data_dir=PATH, or set the environment "
            "variable T2AUX_DATA_DIR."
        )
    if not (place.exists() if or_file else place.is_dir()):
        near = None
        if place.parent.is_dir():
            near = nearest(place.name, [entry.name for entry in place.parent.iterdir()])
        hint = f" (did you mean {place.parent / near}?)" if near else ""
        raise FileError(
            f"Can't find the {what} {place}{hint}: give --data_dir=PATH, with the {source} data."
        )
    return place


def find_file(
    folder: pathlib.Path, names: Sequence[str], source: str, wanted: str | None = None
) -> pathlib.Path:
    """Returns the first of `names` in `folder`. Raises UserError, with `wanted`, if none exists."""
    for name in names:
        if (folder / name).exists():
            return folder / name
    if wanted is None:
        wanted = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
    raise FileError(
        f"Can't find {wanted} in {folder} ({_what_is_in(folder, names)}): give --data_dir=FOLDER, "
        f"the folder of the {source} data, or put the file there."
    )


def unread(read: pathlib.Path, names: Sequence[str]) -> tuple[str, ...]:
    """Returns a note if other names that were passed to `find_file` exist, too."""
    if read.name not in names:
        return ()
    others = [name for name in names if name != read.name and (read.parent / name).exists()]
    return (f"{read.name} is read, and not {' or '.join(others)} beside it.",) if others else ()


def _what_is_in(folder: pathlib.Path, names: Sequence[str]) -> str:
    """Describes the content of a folder, or names its subfolder that has one of the names."""
    try:
        entries = sorted(entry.name for entry in folder.iterdir() if entry.name[0] != ".")
    except OSError:
        return "it can't be read"
    for entry in entries:
        if any((folder / entry / name).exists() for name in names):
            return f"but in {folder / entry}"
    return f"it holds {listing(map(printable, entries))}" if entries else "it is empty"


def open_compressed(path: pathlib.Path) -> IO[bytes]:
    """Opens a file for reading bytes, and unpacks it if its name ends in .gz, .tgz or .xz."""
    return _UNPACKERS.get(path.suffix.lower(), open)(path, "rb")


def read_bytes(path: pathlib.Path) -> bytes:
    """Reads a whole file, unpacking gzip. Raises UserError if it is damaged."""
    try:
        with open_compressed(path) as file:
            return file.read()
    except DAMAGE as error:
        raise damaged(path, error) from error


def class_key(name: str) -> str:
    """Returns a key that is equal for two names of one class: the name in Unicode's form NFC.

    File systems and editors may write "é" as one character or as two.
    """
    return unicodedata.normalize("NFC", name)


def read_class_names(path: pathlib.Path) -> tuple[str, ...] | None:
    """Reads a classes.txt with one name per line; None if it does not exist. Names are in NFC.

    Raises:
        UserError: The file can't be read, is empty, or names a class twice.
    """
    if not path.exists():
        return None
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: save it as UTF-8.") from error
    names = tuple(class_key(line.strip()) for line in io.StringIO(text) if line.strip())
    if not names:
        raise DataError(f"{path} is empty: write a class name on each line, or remove it.")
    repeated = [name for index, name in enumerate(names) if name in names[:index]]
    if repeated:
        raise DataError(f"{path} names the class {repeated[0]!r} twice: name each class once.")
    return names


def misnamed(path: str | os.PathLike[str]) -> str | None:
    """Says what a file is and what to do, if its name is misleading; otherwise returns None."""
    suffix = os.path.splitext(path)[1].lower()
    try:
        with open(path, "rb") as file:
            beginning = file.read(_BEGINNING)
    except OSError:
        return None
    if (what := kinds.placeholder(beginning)) is not None:
        return what
    packings = _PACKINGS.items()
    found = next((what for signature, what in packings if beginning.startswith(signature)), None)
    if found is not None and suffix not in found[1]:
        packing, suffixes = found
        how = f"add {suffixes[0]} to its name, or unpack it" if suffixes else "unpack it"
        return f"is {packing}, which its name does not say: {how}"
    named = next((packing for _, (packing, suffixes) in packings if suffix in suffixes), None)
    if found is None and named is not None:
        return f"is not {named}, as its name says: rename it, or restore it"
    return None


def damaged(path: str | os.PathLike[str], error: BaseException) -> UserError:
    """Returns the error for a file that can't be read."""
    if (content := misnamed(path)) is not None:
        return DataError(f"{path} {content}.")
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return FileError(f"Can't read {path} ({reason.rstrip('.')}): restore the file.")
