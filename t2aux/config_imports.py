"""The `import` lines of gin files: modules that define a user's configurables."""

from __future__ import annotations

import importlib
import sys

from gin import config as gin_config
from gin import config_parser

from t2aux.errors import DependencyError, SettingError, UserError


def process(statement: config_parser.ImportStatement, place: str) -> None:
    """Imports a module to make its configurables available, and keeps the line.

    The line becomes part of a run's configuration, so `evaluate` and other commands import the
    module, too.

    Args:
        statement: `import my_package.my_module`, or `from my_package import my_module`.
        place: The file and line of the statement, for messages.

    Raises:
        UserError: The module does not exist, it is part of Python and has no configurables,
            importing it fails, or one of its configurables has the name of one of t2aux.
    """
    name = statement.module
    parts = name.split(".")
    if parts[0] in sys.stdlib_module_names or any(part.startswith("__") for part in parts):
        raise SettingError(
            f"{place} imports {name}, which defines nothing that a configuration can name: remove "
            "the line."
        )
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _failed(name, place, error) from error
        raise DependencyError(
            f"{place} imports {name}, and Python finds no module {error.name}: install it, or add "
            "its folder to PYTHONPATH."
        ) from error
    # A user's module may raise any exception.
    except Exception as error:
        raise _failed(name, place, error) from error
    _check_names(name, place)
    if statement.format() not in {known.format() for known in gin_config._IMPORTS}:
        gin_config._IMPORTS.add(statement)


def _check_names(module: str, place: str) -> None:
    """Raises UserError if a name would refer to a configurable of t2aux and one of the user."""
    selectors = [selector for selector, _ in gin_config._REGISTRY.items()]
    ours = {s.rpartition(".")[2] for s in selectors if s.startswith("t2aux.")}
    for selector in selectors:
        name = selector.rpartition(".")[2]
        if name in ours and not selector.startswith(("t2aux.", "gin.")):
            raise SettingError(
                f"{place} imports {module}, after which there are two configurables {name}, "
                f"{selector} and one of t2aux: give yours another name."
            )


def _failed(name: str, place: str, error: Exception) -> UserError:
    reason = " ".join(str(error).split()).rstrip(".")
    return SettingError(
        f"{place} imports {name}, which fails ({type(error).__name__}: {reason}): correct the "
        "module."
    )
