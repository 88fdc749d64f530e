"""The settings of gin's configuration, with macros replaced and defaults filled in.

Two configurations with the same meaning have equal settings, however they are written: the order of
lines, comments, the division into files, and whether a default is written out do not matter.
"""

from __future__ import annotations

import contextlib
import inspect
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import gin
from gin import config as gin_config

from t2aux import config, config_macros

# gin's own state: the bindings, and what was called.
_STATE = ("_CONFIG", "_OPERATIVE_CONFIG", "_SINGLETONS", "_IMPORTS")
# gin's own configurables, which are not shown in the names of settings.
_GIN = "gin."


def bound() -> dict[str, str]:
    """The parameters that the configuration sets, by name, such as "joint/Phase.epochs"."""
    return {
        _name(scope, selector, parameter): _text(value)
        for (scope, selector), bindings in gin_config._CONFIG.items()
        if not selector.startswith(_GIN)
        for parameter, value in bindings.items()
    }


def called() -> list[tuple[str, str]]:
    """The scope and selector of each configurable that was called since parsing."""
    return [key for key in gin_config._OPERATIVE_CONFIG if not key[1].startswith(_GIN)]


def reached(names: Sequence[str]) -> list[tuple[str, str]]:
    """The configurables that some configurables refer to, directly or indirectly, and themselves.

    Args:
        names: The names of configurables, such as "train".

    Returns:
        Scopes and selectors, as returned by `called`.
    """
    found: list[tuple[str, str]] = []

    def visit(scope: str, selector: str) -> None:
        if (scope, selector) not in found:
            found.append((scope, selector))
            for reference in gin_config.iterate_references(_values(scope, selector)):
                visit(*reference.config_key)

    for name in names:
        visit("", gin_config._REGISTRY.get_match(name).selector)
    return [key for key in found if not key[1].startswith(_GIN)]


def in_effect(configurables: Sequence[tuple[str, str]]) -> dict[str, str]:
    """All parameters of configurables, with values from the configuration or their defaults.

    Args:
        configurables: Scopes and selectors, as returned by `called`.

    Returns:
        The values by name, as strings that are equal if the values are.
    """
    return {name: _text(value) for name, value in _named(configurables, _values).items()}


def without_effect(found: Mapping[str, str]) -> set[str]:
    """The names of parameters that have no effect, given the result of `in_effect`."""
    # Without auxiliary losses, there are no gradients to truncate.
    return {"train.auxiliary_bptt"} if found.get("train.auxiliary_losses") == "[]" else set()


def defaults(configurables: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Like `in_effect`, for an empty configuration."""
    found = _named(configurables, lambda _, selector: _defaults(selector))
    return {name: _text(value) for name, value in found.items()}


def macros(configurables: Sequence[tuple[str, str]]) -> dict[str, str]:
    """The macros that set parameters, by the names of the parameters."""
    found = _named(configurables, _values)
    return {name: config_macros.name_of(v) for name, v in found.items() if _is_macro(v)}


def in_effect_in_file(
    path: pathlib.Path, configurables: Sequence[tuple[str, str]]
) -> dict[str, str]:
    """Like `in_effect`, for a configuration in a file. gin's own configuration does not change.

    Raises:
        UserError: See `t2aux.config.parse`.
    """
    with kept():
        config.parse([str(path)], [])
        return in_effect(configurables)


def set_data_dir(folder: str) -> str:
    """Sets dataset.data_dir. Returns the configuration as gin text."""
    with gin.unlock_config():
        gin.bind_parameter("dataset.data_dir", folder)
        config_macros.drop_unused()
    return gin.config_str()


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Restores gin's configuration and its other state when the block ends."""
    kept = {name: getattr(gin_config, name).copy() for name in _STATE}
    kept["_CONFIG"] = {key: dict(bindings) for key, bindings in kept["_CONFIG"].items()}
    locked = gin.config_is_locked()
    try:
        yield
    finally:
        for name, value in kept.items():
            state = getattr(gin_config, name)
            state.clear()
            state.update(value)
        gin_config._set_config_is_locked(locked)


def _named(
    configurables: Sequence[tuple[str, str]], values: Callable[[str, str], dict[str, Any]]
) -> dict[str, Any]:
    """The results of `values` for the parameters of configurables, by the parameters' names."""
    return {
        _name(scope, selector, parameter): value
        for scope, selector in configurables
        for parameter, value in values(scope, selector).items()
    }


def _values(scope: str, selector: str) -> dict[str, Any]:
    """The values of a configurable's parameters, with unresolved references."""
    with gin.config_scope(None):
        key = f"{scope}/{selector}" if scope else selector
        return {**_defaults(selector), **gin.get_bindings(key, resolve_references=False)}


def _defaults(selector: str) -> dict[str, Any]:
    configurable = gin_config._REGISTRY[selector]
    function = config.function_of(configurable)
    denied = set(configurable.denylist or ())
    return {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is not parameter.empty and name not in denied
    }


def _name(scope: str, selector: str, parameter: str) -> str:
    short = f"{selector.rpartition('.')[2]}.{parameter}"
    return f"{scope}/{short}" if scope else short


def _is_macro(value: Any) -> bool:
    return isinstance(value, gin_config.ConfigurableReference) and config_macros.is_macro(value)


def _text(value: Any) -> str:
    if _is_macro(value):
        return _text(gin.query_parameter(f"{config_macros.name_of(value)}/gin.macro.value"))
    if isinstance(value, gin_config.ConfigurableReference):
        scope, selector = value.config_key
        name = "/".join(filter(None, [scope, selector.rpartition(".")[2]]))
        return f"@{name}{'()' if value.evaluate else ''}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_text, value))}]"
    if isinstance(value, dict):
        items = sorted((_text(key), _text(item)) for key, item in value.items())
        return f"{{{', '.join(f'{key}: {item}' for key, item in items)}}}"
    if type(value) is float and value.is_integer():
        return repr(int(value))
    if callable(value):
        return f"@{getattr(value, '__name__', value)}"
    return repr(value)
