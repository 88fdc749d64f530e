"""Data that a run was not trained on: its name, and the folders of results on it."""

from __future__ import annotations

import dataclasses
import inspect
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import gin

from t2aux import config, data, files
from t2aux.data.loading import folder_of
from t2aux.errors import DataError, UserError
from t2aux.run import Run
from t2aux.training import identity, settings, validation

# Parameters of `load` that determine which data is read, in addition to its name and folder.
_DATA = ("max_examples", "splits", "test_fraction", "split_seed")
_MAX_SLUG = 60


@dataclasses.dataclass(frozen=True)
class OtherData:
    """Data other than a run's own.

    Attributes:
        name: The name of the data set or the source, such as "csv".
        data_dir: Its absolute folder; None: embedded, or the folder of tensorflow-datasets.
        settings: The settings that differ from the run's, by name: "name", "data_dir", the source's
            parameters and those of `t2aux.data.load`.
    """

    name: str
    data_dir: str | None
    settings: dict[str, Any]

    @property
    def title(self) -> str:
        """A title for the terminal, such as "csv in /data/news, max_examples = 100"."""
        more = [f"{k} = {v}" for k, v in self.settings.items() if k not in ("name", "data_dir")]
        place = f" in {self.data_dir}" if self.data_dir else ""
        return ", ".join([f"{self.name}{place}", *more])

    @property
    def slug(self) -> str:
        """A part of a folder's name, such as "news-max_examples_100"."""
        parts = []
        if "data_dir" in self.settings and self.data_dir:
            parts.append(os.path.basename(self.data_dir) or "root")
        elif {"name", "data_dir"} & self.settings.keys():
            parts.append(self.name)
        parts += [f"{k}_{v}" for k, v in self.settings.items() if k not in ("name", "data_dir")]
        return re.sub(r"[^\w.-]+", "_", "-".join(parts))[:_MAX_SLUG].strip("-._") or "other"

    def to_json(self) -> dict[str, Any]:
        """The description of the data in a result."""
        return {"dataset": self.name, "data_dir": self.data_dir, "settings": self.settings}


def read(
    run: Run, gin_params: Sequence[str], name: str
) -> tuple[str, data.Split, OtherData | None]:
    """Reads the data to evaluate a run on.

    gin's current configuration must be that of the run. Other data without a test set is read
    whole, because none of it was trained on.

    Args:
        run: The run, loaded with these settings.
        gin_params: The settings, including --data_dir.
        name: "train", "validation" or "test".

    Returns:
        See `validation.load_whole`, and `of`.

    Raises:
        UserError: The data can't be read; or it has changed since the training and has no test set,
            so that it is unknown what was trained on.
    """
    is_elsewhere = any(re.match(r"\s*dataset\.data_dir\s*=", param) for param in gin_params)
    try:
        read_name, whole = validation.load_whole(name, run.source, run.info, run.model_dir)
    except UserError:
        # Other data may be too small to be divided.
        if not is_elsewhere or name != "test":
            raise
        return "train", *_whole(run, gin_params)
    other = of(run, gin_params, read_name, whole)
    if other is None or whole.division is None:
        return read_name, whole, other
    if "data_dir" in other.settings:
        return "train", *_whole(run, gin_params)
    if other.settings.keys() & {"content", "test_fraction", "split_seed"}:
        raise DataError(
            f"{whole.division.path} has changed since the training, or would be divided in another "
            f"way, and has no test set beside it: what the run in {run.model_dir} was trained on "
            "is not known. Restore it, or give other data with --data_dir."
        )
    return read_name, whole, other


def _whole(run: Run, gin_params: Sequence[str]) -> tuple[data.Split, OtherData | None]:
    """Reads other data without a test set."""
    split = data.load(run.source, "train", run.info, test_fraction=0)
    return split, of(run, gin_params, "train", split)


def of(run: Run, gin_params: Sequence[str], name: str, split: data.Split) -> OtherData | None:
    """The data of a split, if it differs from the run's own data.

    Args:
        run: The run, loaded with these settings.
        gin_params: The settings, including --data_dir.
        name: "train", "test" or, if it is a separate split, "validation".
        split: The split that was read.

    Returns:
        The data; None if it is the run's own, even if it was moved. For a run of an older version,
        which does not store fingerprints of its data, the settings are compared.
    """
    used, defaults = _settings()
    folder = None if used["data_dir"] is None else pathlib.Path(used["data_dir"])
    is_other = identity.differs_from_trained(run.model_dir, name, split, folder)
    if is_other is False or (is_other is None and not gin_params):
        return None
    file = str(run.model_dir / "config.gin")
    with settings.kept():
        config.parse([file], [])
        trained, trained_defaults = _settings()
    trained = {**defaults, **trained_defaults, **trained}
    different = {k: v for k, v in used.items() if k not in trained or v != trained[k]}
    if is_other and not different:
        different = {"content": "changed since the training"}
    return OtherData(used["name"], used["data_dir"], different) if different else None


def folder(
    output_dir: str | None, run: Run, kind: str, split: str, other: OtherData | None
) -> pathlib.Path:
    """Creates the folder for a result.

    Args:
        output_dir: The folder that the user gave, if any.
        run: The run.
        kind: The kind of result: the name of the folder in the run and of the JSON file in it.
        split: "train", "validation" or "test".
        other: The data, if it is not the run's own.

    Returns:
        `output_dir`, the run's KIND/SPLIT or, for other data, a KIND/SPLIT-NAME that has no result
        on different data.

    Raises:
        UserError: The folder can't be created.
    """
    if output_dir is not None:
        path = pathlib.Path(output_dir)
    elif other is None:
        path = run.model_dir / kind / split
    else:
        path = first = run.model_dir / kind / f"{split}-{other.slug}"
        number = 2
        while not _is_of(path / f"{kind}.json", other):
            path = first.with_name(f"{first.name}-{number}")
            number += 1
    files.ensure_directory(path)
    return path


def about(run: Run, other: OtherData | None) -> dict[str, Any]:
    """The description of the data in a result."""
    if other is None:
        return {"dataset": run.info.name}
    return {**other.to_json(), "trained_on": run.info.name}


def title(run: Run, split: str, other: OtherData | None) -> str:
    """The title of a result."""
    if other is None:
        return f"{run.info.name}, {split}, {run.described}"
    return f"{other.title}, {split} (trained on {run.info.name}, {run.described})"


def _settings() -> tuple[dict[str, Any], dict[str, Any]]:
    """The configuration of the data.

    Returns:
        All settings that determine the data and its preparation, in JSON form, with the folder
        unchanged; and the defaults of the source's parameters.
    """
    source = data.configured()
    bound = {name: gin.get_bindings("dataset").get(name) for name in (*_DATA, "data_dir")}
    place = folder_of(bound["data_dir"])
    found = {
        **source.parameters(),
        **bound,
        "name": source.title,
        "data_dir": None if place is None else os.path.realpath(place),
    }
    parameters = inspect.signature(type(source)).parameters
    defaults = {n: p.default for n, p in parameters.items() if p.default is not p.empty}
    return tuple({k: _as_json(v) for k, v in some.items()} for some in (found, defaults))


def _as_json(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return value if isinstance(value, (str, int, float, list, type(None))) else repr(value)


def _is_of(path: pathlib.Path, other: OtherData) -> bool:
    """Whether the result is missing, as after Ctrl-C, or is on this data."""
    if not path.exists():
        return True
    try:
        found = files.read_json(path)
    except UserError:
        return False
    wanted = other.to_json()
    return isinstance(found, dict) and {k: found.get(k) for k in wanted} == wanted
