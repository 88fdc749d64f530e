"""Settings of `train` by their older names, `train.log_every = 6` and the like.

How a run is executed and saved was once set by parameters of `train`, which are those of
`RunConfig` now. What a run did at NaN was set by `train.on_nan` and `BackOff`, which have no effect
any more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from absl import logging
from gin import config as gin_config

# The configuration of a run, whose data was read with it.
_OF_A_RUN = ("config.gin", "operative_config.gin")
# Parameters of `train` that are RunConfig's today, and are called the same there.
_MOVED = (
    *("checkpoint_minutes", "checkpoints_kept", "steps_per_call", "deterministic"),
    *("log_every", "strategy"),
)
_RENAMED = {f"train.{name}": f"RunConfig.{name}" for name in _MOVED}
# What has no effect any more.
REMOVED_CONFIGURABLES = ("BackOff",)
_REMOVED = (
    *("train.on_nan", "train.nan_rate_factor", "train.nan_back_offs"),
    *("BackOff.rate_factor", "BackOff.times"),
)

# Binds a setting: scope, configurable, parameter, value, and its place.
Bind = Callable[[str, str, str, Any, str], None]


def take(scope: str, selector: str, parameter: str, value: Any, place: str, bind: Bind) -> bool:
    """Binds what an older setting is called today. Returns False if it is not an older one."""
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
    """The settings that a run's run.json has, by the names of today, as texts."""
    return {_RENAMED.get(name, name): v for name, v in settings.items() if name not in _REMOVED}


def _is_ours(selector: str, *, removed: bool = False) -> bool:
    """Whether a configurable is of this package; a user's module may have one of the same name.

    Args:
        selector: Its name.
        removed: Whether it may be one that this package has no more.
    """
    try:
        configurable = gin_config._REGISTRY.get_match(selector)
    except KeyError:  # It is ambiguous, which the parser says.
        return False
    return removed if configurable is None else configurable.selector.startswith("t2aux.")


def _warn(place: str, message: str, *arguments: str) -> None:
    file = place.partition(", line ")[0].replace("\\", "/").rpartition("/")[2]
    if file not in _OF_A_RUN:
        logging.warning(message, *arguments)
