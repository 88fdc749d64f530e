"""Older names of settings of `train`, such as `train.log_every = 6`.

Parameters of `train` that set how a run is executed and saved are now parameters of `RunConfig`.
`train.on_nan` and `BackOff`, which set the response to NaN, no longer have an effect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from absl import logging
from gin import config as gin_config

# Files with the configuration of a run.
_OF_A_RUN = ("config.gin", "operative_config.gin")
# Former parameters of `train` that now belong to RunConfig, with the same names.
_MOVED = (
    *("checkpoint_minutes", "checkpoints_kept", "steps_per_call", "deterministic"),
    *("log_every", "strategy"),
)
_RENAMED = {f"train.{name}": f"RunConfig.{name}" for name in _MOVED}
# Configurables that no longer have an effect.
REMOVED_CONFIGURABLES = ("BackOff",)
_REMOVED = (
    *("train.on_nan", "train.nan_rate_factor", "train.nan_back_offs"),
    *("BackOff.rate_factor", "BackOff.times"),
)

# Binds a setting, given scope, configurable, parameter, value and place.
Bind = Callable[[str, str, str, Any, str], None]


def take(scope: str, selector: str, parameter: str, value: Any, place: str, bind: Bind) -> bool:
    """Binds an older setting under its current name. Returns False if it is not an older one."""
    name = f"{selector.rpartition('.')[2]}.{parameter}"
    if name in _REMOVED and _is_ours(selector, removed=True):
        _warn(place, "%s has no effect any more (%s): leave it out.", name, place)
        return True
    if name not in _RENAMED or not _is_ours(selector):
        return False
    bind(scope, "RunConfig", parameter, value, place)
    shown = f"{f'{scope}/' if scope else ''}{_RENAMED[name]} = {value!r}"
    _warn(place, "%s is an older name (%s): write %s.", name, place, shown)
    return True


def stored_settings(settings: Mapping[str, str]) -> dict[str, str]:
    """The settings in a run's run.json as strings, by their current names."""
    return {_RENAMED.get(name, name): v for name, v in settings.items() if name not in _REMOVED}


def _is_ours(selector: str, *, removed: bool = False) -> bool:
    """Whether a configurable belongs to t2aux; a user's module may have one of the same name.

    Args:
        selector: The name of the configurable.
        removed: Whether it may be one that was removed from t2aux.
    """
    try:
        configurable = gin_config._REGISTRY.get_match(selector)
    except KeyError:  # The name is ambiguous, which the parser reports.
        return False
    return removed if configurable is None else configurable.selector.startswith("t2aux.")


def _warn(place: str, message: str, *arguments: str) -> None:
    file = place.partition(", line ")[0].replace("\\", "/").rpartition("/")[2]
    if file not in _OF_A_RUN:
        logging.warning(message, *arguments)
