"""`series`: sequences of real vectors, in .npz or .ts files."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import gin

from t2aux.data.npz import Npz
from t2aux.data.source import Source
from t2aux.data.table import Options, Table, require_data_dir
from t2aux.data.ts import SUFFIX, Ts
from t2aux.errors import FileError
from t2aux_ondevice.preprocessing import DatasetInfo


@gin.configurable("series")
@dataclasses.dataclass(frozen=True)
class Series(Source):
    """Your sequences, read as `npz` or as `ts`, depending on the files in the folder."""

    has_other_splits: ClassVar[bool] = True
    split_suffixes: ClassVar[tuple[str, ...]] = Npz.split_suffixes

    def read(self, split: str, options: Options) -> tuple[DatasetInfo, Table]:
        """Reads a split, see `Npz.read` and `Ts.read`.

        Raises:
            UserError: As for these, or if the folder has files of both formats or of neither.
        """
        source = _source_of(self.gin_name, options)
        return source.read(split, dataclasses.replace(options, source=source.gin_name))


def _source_of(name: str, options: Options) -> Source:
    place = require_data_dir(name, options, or_file=True)
    paths = [place] if place.is_file() else place.iterdir()
    suffixes = {path.suffix.lower() for path in paths}
    found = [source for suffix, source in ((".npz", Npz), (SUFFIX, Ts)) if suffix in suffixes]
    if len(found) == 1:
        return found[0]()
    both = "both .npz and .ts files" if found else "no .npz or .ts files"
    if place.is_file():
        raise FileError(f"{place} is neither an .npz nor a .ts file: give one of these.")
    raise FileError(
        f"{place} has {both}: give --data_dir=FOLDER, a folder with train.npz and test.npz, or "
        "with NAME_TRAIN.ts and NAME_TEST.ts"
        + ("; or name the format, --gin_param='train.data = @ts()'." if found else ".")
    )
