"""The results of `t2aux reconstructions` as a table of the report."""

from __future__ import annotations

import pathlib
from typing import Any

from t2aux import files
from t2aux.errors import ModelError
from t2aux.reproduce.document import Table


def read_all(directory: pathlib.Path) -> list[dict[str, Any]]:
    """Reads the reconstructions*.json of a folder of results or, without any, of its parent.

    Raises:
        UserError: A file is damaged.
    """
    for folder in (directory, directory.resolve().parent):
        paths = sorted(folder.glob("reconstructions*.json"))
        if paths:
            return [_read(path) for path in paths]
    return []


def _read(path: pathlib.Path) -> dict[str, Any]:
    value = files.read_json(path, ModelError)
    if isinstance(value, dict):
        losses, about = value.get("loss"), value.get("about")
        texts = [value.get(name) for name in ("command", "unit", "verdict", "split")]
        if (
            isinstance(losses, dict)
            and isinstance(about, dict)
            and all(isinstance(loss, (int, float)) for loss in losses.values())
            and all(isinstance(text, str) for text in (*about.values(), *texts))
        ):
            return value
    raise ModelError(
        f"{path} is not what `t2aux reconstructions` writes: remove it, or make it again with that "
        "command."
    )


def table(measured: dict[str, Any]) -> Table:
    """The losses in ascending order."""
    losses = sorted(measured["loss"].items(), key=lambda item: item[1])
    return Table(
        ["what the guess has", measured["unit"]],
        [[measured["about"].get(name, name), f"{loss:.4f}"] for name, loss in losses],
    )
