"""`series`: sequences of real vectors in whichever of their file formats a folder has."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import ClassVar

import gin

from t2aux.data.npz import Npz
from t2aux.data.source import Source
from t2aux.data.table import Options, Table, require_data_dir
from t2aux.data.ts import SUFFIX, Ts
from t2aux.errors import UserError
from t2aux_ondevice.preprocessing import DatasetInfo


@gin.configurable("series")
@dataclasses.dataclass(frozen=True)
class Series(Source):
    """Your sequences, as `npz` or as `ts`, whichever files the folder has."""

    has_other_splits: ClassVar[bool] = True

    def read(self, split: str, options: Options) -> tuple[DatasetInfo, Table]:
        """Reads a split, see `Npz.read` and `Ts.read`.

        Raises:
            UserError: As of these; or the folder has files of both formats, or of neither.
        """
        source = _source_of(require_data_dir(self.gin_name, options))
        return source.read(split, dataclasses.replace(options, source=source.gin_name))


def _source_of(folder: pathlib.Path) -> Source:
    suffixes = {path.suffix.lower() for path in folder.iterdir()}
    found = [source for suffix, source in ((".npz", Npz), (SUFFIX, Ts)) if suffix in suffixes]
    if len(found) == 1:
        return found[0]()
    both = "both .npz and .ts files" if found else "neither .npz nor .ts files"
    raise UserError(
        f"{folder} has {both}: give --data_dir=FOLDER, a folder with train.npz and test.npz, or "
        "with NAME_TRAIN.ts and NAME_TEST.ts"
        + ("; or name the format, --gin_param='train.data = @ts()'." if found else ".")
    )
