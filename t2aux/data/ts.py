"""`ts`: the time series of the UCR and UEA archives, in `.ts` files.

aeon has a reader, `load_from_ts_file`, but it needs numba and pandas, about 200 MB. The format is
simple enough to be read here: header lines and, after `@data`, one line for each sequence:

    # a comment
    @problemName Vowels
    @univariate false
    @dimensions 2
    @equalLength false
    @classLabel true a b
    @data
    0.1,0.2,0.3:5,6,7:a
    0.4,0.5:8,9:b

The channels of a sequence are separated by colons, and its class is the last of them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import re
from collections.abc import Iterator
from typing import ClassVar

import gin
import numpy as np

from t2aux.data import places
from t2aux.data.source import Source
from t2aux.data.table import DAMAGE, Options, Table, class_key, damaged, require_data_dir
from t2aux.errors import DataError, FileError, SettingError, listing, shorten
from t2aux.progress import Progress
from t2aux_ondevice.errors import printable
from t2aux_ondevice.preprocessing import DatasetInfo

SUFFIX = ".ts"
# The ends of the names of files that are a part of a problem.
_PARTS = ("train", "test", "validation", "val")
_PART = re.compile(rf"(?:(?P<problem>.*)_)?(?P<part>{'|'.join(_PARTS)})", re.IGNORECASE)
_KNOWN = ("problemname", "timestamps", "missing", "univariate", "dimensions", "dimension")
_KNOWN += ("equallength", "serieslength", "classlabel", "targetlabel", "data")
_SHOWN_BYTES = 60


@gin.configurable("ts")
@dataclasses.dataclass(frozen=True)
class Ts(Source):
    """Your time series in .ts files, as in the UCR and UEA archives: NAME_TRAIN.ts, NAME_TEST.ts.

    Attributes:
        problem: NAME, if the folder has the files of several problems; None for the only one, or
            the one with the folder's name.
    """

    has_other_splits: ClassVar[bool] = True

    problem: str | None = None

    def __post_init__(self) -> None:
        """Raises UserError where a parameter is of another type."""
        if self.problem is not None and not isinstance(self.problem, str):
            raise SettingError(f"ts.problem is {self.problem!r}: give a name, such as 'GunPoint'.")

    def read(self, split: str, options: Options) -> tuple[DatasetInfo, Table]:
        """Reads a split.

        The files are NAME_TRAIN.ts and NAME_TEST.ts, or train.ts and test.ts, in upper or lower
        case. A single file, or a folder with only the training file, is divided into both splits
        (see `t2aux.data.load`). The names and the order of the classes are those of `@classLabel`
        in the training file. If the header contradicts the lengths or channels of the data, the
        data counts, and a note is made.

        Raises:
            UserError: A file is missing or damaged; a value is missing or not a number; the values
                have time stamps; or a sequence has a wrong number of channels, a wrong length or an
                unknown class.
        """
        place = self._find(options, split)
        file = TsFile(place.path)
        info = options.info
        train = file
        if info is None and split != "train" and place.part is None:
            train = TsFile(self._find(options, "train").path)
        if info is None:
            info = DatasetInfo(
                "ts", "vectors", train.classes, channels=train.channels, length=train.length
            )
        return info, file.table(info, place, options)

    def _find(self, options: Options, split: str) -> places.Place:
        """The location of a split, with a note on other files."""
        folder = require_data_dir("ts", options, or_file=True)
        if folder.is_file():
            return places.find(
                options, split, (SUFFIX,), single=lambda _: None, wanted=f"{{}}{SUFFIX}"
            )
        files = ts_files(folder)
        wanted = f"NAME_{split.upper()}{SUFFIX} or {split}{SUFFIX}"
        if not files:
            raise FileError(
                f"Can't find {wanted} in {folder}: give --data_dir=FOLDER, the folder of the .ts "
                "files."
            )
        found = {problem: path for (problem, part), path in files.items() if part == split}
        problems = {problem for problem, _ in files}
        problem = self.problem
        if problem is None:
            own = folder.resolve().name
            problem = own if own in problems else next(iter(sorted(problems)))
            if len(problems) > 1 and problem != own:
                raise FileError(
                    f"{folder} has the .ts files of {len(problems)} problems "
                    f"({listing(map(printable, sorted(problems)))}): name one, such as "
                    f"--gin_param='ts.problem = {problem!r}'."
                )
        part = None
        if split in ("train", "test") and (problem, "test") not in files and options.test_fraction:
            found = {name: path for (name, of), path in files.items() if of == "train"}
            part = split
        if problem not in found:
            raise FileError(
                f"Can't find {wanted.replace('NAME', problem) if problem else wanted} in {folder} "
                f"(it holds {listing(printable(path.name) for path in files.values())}): put the "
                "file there."
            )
        others = sorted(problems - {problem})
        note = f"{found[problem].name} is read; the folder has the files of {listing(others)}, too."
        return places.Place(found[problem], part, (note,) if others else ())


def ts_files(folder: pathlib.Path) -> dict[tuple[str, str], pathlib.Path]:
    """The .ts files of a folder by problem ("" for train.ts) and part ("train", "test", ...).

    Raises UserError if two files are the same part.
    """
    found: dict[tuple[str, str], pathlib.Path] = {}
    candidates = (path for path in sorted(folder.iterdir()) if path.suffix.lower() == SUFFIX)
    paths = [path for path in candidates if not path.name.startswith(".")]
    if len(paths) == 1 and _PART.fullmatch(paths[0].stem) is None:
        return {(paths[0].stem, "train"): paths[0]}
    for path in paths:
        match = _PART.fullmatch(path.stem)
        if match is None:
            continue
        part = match["part"].lower()
        key = (match["problem"] or "", "validation" if part == "val" else part)
        if key in found:
            raise FileError(f"{folder} has both {found[key].name} and {path.name}: remove one.")
        found[key] = path
    return found


class TsFile:
    """The content of a .ts file.

    Attributes:
        classes: The names of the classes: those in the header or, if it has none, those that occur,
            sorted.
        channels: C.
        length: T, if all sequences have the same length and the header does not contradict this.
        sequences: A list of float32 [T, C].
        labels: The class of each sequence; empty if the file has no classes.
    """

    def __init__(self, path: pathlib.Path, *, needs_classes: bool = True) -> None:
        self._path = path
        self._needs_classes = needs_classes
        self._notes: list[str] = []
        self._header: dict[str, str] = {}
        self.sequences: list[np.ndarray] = []
        self.labels: list[str] = []
        self._places: list[int] = []
        self._read()
        lengths = {len(sequence) for sequence in self.sequences}
        self.channels = self.sequences[0].shape[1]
        varies = len(lengths) > 1 or self._header.get("equallength", "").lower() == "false"
        self.length = None if varies else lengths.pop()
        named = self._header.get("classlabel", "").split()[1:]
        self.classes = tuple(dict.fromkeys(map(class_key, named))) or tuple(
            sorted(set(self.labels))
        )
        self._check_header()

    def table(self, info: DatasetInfo, place: places.Place, options: Options) -> Table:
        """The sequences of a split, checked against the description of the data.

        Raises:
            UserError: The channels, a length or a class differ.
        """
        if self.channels != info.channels:
            raise DataError(
                f"{self._path}: the sequences have {self.channels} channels where the training "
                f"data has {info.channels}: make them agree."
            )
        known = {class_key(name): number for number, name in enumerate(info.classes)}
        labels = np.array([known.get(name, -1) for name in self.labels], np.int32)
        if (labels < 0).any():
            index = int(labels.argmin())
            raise DataError(
                f"{self._at(index)}: the class is {self.labels[index]!r}, but the classes are "
                f"{listing(map(repr, info.classes))}: correct it, or @classLabel in the header of "
                "the training file."
            )
        lengths = np.array([len(sequence) for sequence in self.sequences])
        if info.length is not None and (lengths != info.length).any():
            index = int((lengths != info.length).argmax())
            raise DataError(
                f"{self._at(index)}: the sequence has {lengths[index]} steps where all training "
                f"sequences have {info.length}: write `@equalLength false` in the header of the "
                "training file if lengths vary."
            )
        choice = place.choose(labels, options)
        chosen = choice.indices
        values = np.concatenate([self.sequences[index] for index in chosen])
        table = Table.of_lengths(values, lengths[chosen], labels[chosen])
        return dataclasses.replace(
            table,
            counts=np.bincount(labels[choice.part], minlength=info.num_classes),
            notes=(*place.notes, *choice.notes, *self._notes),
            division=choice.division,
        )

    @property
    def _has_classes(self) -> bool:
        return self._header.get("classlabel", "").lower().startswith("true")

    def _at(self, index: int) -> str:
        return f"{self._path}, line {self._places[index]}"

    def _read(self) -> None:
        progress = Progress(f"Reading {self._path.name}: sequences", None)
        with contextlib.closing(_lines(self._path)) as lines:
            self._read_header(lines)
            for place, line in lines:
                self._add(place, line)
                self._places.append(place)
                progress.update(len(self._places))
        if not self._places:
            raise DataError(f"{self._path} has no sequence after @data: restore the file.")

    def _read_header(self, lines: Iterator[tuple[int, str]]) -> None:
        for place, line in lines:
            if not line.startswith("@"):
                raise DataError(
                    f"{self._path}, line {place} is {shorten(line, _SHOWN_BYTES)!r}, where a .ts "
                    "file has its header, lines that begin with @ and end with @data: give a file "
                    "of the UCR or UEA archive, or write a header."
                )
            name, value = (*line[1:].split(maxsplit=1), "", "")[:2]
            name = name.lower()
            if name not in _KNOWN:
                self._notes.append(f"{self._path.name}: @{printable(name)} is not read.")
            self._header[name] = value
            if name == "data":
                break
        else:
            raise DataError(
                f"{self._path} has no line @data, which precedes the sequences: it is cut off "
                "or not a file of time series."
            )
        if self._header.get("timestamps", "").lower() == "true":
            raise DataError(
                f"{self._path}: the values have time stamps (@timeStamps true), which are not read "
                "yet: save them at equal steps, without time stamps."
            )
        if self._needs_classes and not self._has_classes:
            targets = "targetlabel" in self._header
            raise DataError(
                f"{self._path}: the sequences have no classes "
                f"({'@targetLabel' if targets else 'no @classLabel true'} in the header), which "
                "are needed for training: give a file for classification, with `@classLabel true` "
                "and the names of the classes."
            )

    def _add(self, place: int, line: str) -> None:
        """Adds a sequence and its class."""
        channels = line.split(":")
        if self._has_classes:
            *channels, label = channels
            if not channels or not label.strip():
                raise DataError(
                    f"{self._path}, line {place}: the class after a colon at the end is missing: "
                    "restore the file."
                )
            self.labels.append(class_key(label.strip()))
        rows = [self._numbers(place, number, text) for number, text in enumerate(channels)]
        lengths = [len(row) for row in rows]
        if len(set(lengths)) > 1:
            raise DataError(
                f"{self._path}, line {place}: the channels of the sequence have "
                f"{min(lengths)} to {max(lengths)} steps: give all the same number."
            )
        if self.sequences and len(rows) != self.sequences[0].shape[1]:
            raise DataError(
                f"{self._path}, line {place}: the sequence has {len(rows)} channels where the one "
                f"before has {self.sequences[0].shape[1]}: give all the same number."
            )
        self.sequences.append(np.stack(rows, axis=1))

    def _numbers(self, place: int, channel: int, text: str) -> np.ndarray:
        """The values of a channel, float32 [T]."""
        texts = text.split(",")
        try:
            with np.errstate(over="ignore"):  # A value beyond float32 becomes inf.
                values = np.array(texts, np.float64).astype(np.float32)
        except ValueError:
            values = None
        if values is not None and np.isfinite(values).all():
            return values
        for step, value in enumerate(texts):
            try:
                is_finite = abs(float(value)) <= float(np.finfo(np.float32).max)
            except ValueError:
                is_finite = False
            if not is_finite:
                raise DataError(
                    f"{self._path}, line {place}: the value of channel {channel} at step {step} "
                    f"(both counted from 0) is {shorten(value, _SHOWN_BYTES)!r}, missing or not a "
                    "finite number of float32: correct it, or remove the sequence."
                )
        raise damaged(self._path, ValueError(f"line {place} can't be read"))

    def _check_header(self) -> None:
        """Notes where the header contradicts the data."""
        lengths = sorted({len(sequence) for sequence in self.sequences})
        steps = " to ".join(map(str, dict.fromkeys((lengths[0], lengths[-1]))))
        true = {
            "univariate": str(self.channels == 1).lower(),
            "dimensions": str(self.channels),
            "dimension": str(self.channels),
            "serieslength": steps,
        }
        if len(lengths) > 1:
            true["equallength"] = "false"
        says = {name: self._header.get(name, value).lower() for name, value in true.items()}
        wrong = [f"@{name} {says[name]}" for name, value in true.items() if says[name] != value]
        if wrong:
            self._notes.append(
                f"{self._path.name}: the header says {listing(wrong)}, but the sequences have "
                f"{self.channels} channels and {steps} steps, which counts."
            )


def _lines(path: pathlib.Path) -> Iterator[tuple[int, str]]:
    """Yields the lines with their numbers, from 1, without empty lines and comments."""
    try:
        with path.open("rb") as file:
            for number, content in enumerate(file, 1):
                # Comments may be in any encoding.
                if content.lstrip().startswith((b"#", b"%")):
                    continue
                line = content.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                if line:
                    yield number, line
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not a text in UTF-8: it is not a .ts file of time series, or must be saved "
            "as UTF-8."
        ) from error
    except DAMAGE as error:
        raise damaged(path, error) from error
