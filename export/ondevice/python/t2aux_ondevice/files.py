"""Reads JSON files."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

from t2aux_ondevice.errors import UserError


def read_json(path: str | os.PathLike[str]) -> Any:
    """Reads a JSON file.

    Raises:
        UserError: The file is missing, can't be read, is not JSON, or nested too deep.
    """
    path = pathlib.Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"Can't read {path}: {error.strerror or error}.") from error
    except RecursionError as error:
        raise UserError(
            f"{path} is damaged: its JSON is nested too deep. Make it anew with the command that "
            "wrote it."
        ) from error
    except ValueError as error:
        raise UserError(
            f"{path} is damaged: it is not valid JSON ({error}). Make it anew with the command "
            "that wrote it."
        ) from error
