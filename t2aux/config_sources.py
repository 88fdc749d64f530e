"""Handles settings of data sources other than that of train.data, which have no effect."""

from __future__ import annotations

from collections.abc import Mapping

import gin
from gin import config as gin_config

from t2aux.config_scopes import PARAM
from t2aux.errors import SettingError

Setting = tuple[str, str, str]


def bound() -> gin_config.ConfigurableReference | None:
    """The reference to the data source in train.data, or None if there is none."""
    if gin_config._REGISTRY.get_match("train") is None:  # A command without training.
        return None
    value = gin.get_bindings("train", resolve_references=False).get("data")
    is_one = isinstance(value, gin_config.ConfigurableReference) and value.evaluate
    return value if is_one and not value.configurable.selector.startswith("gin.") else None


def keep_the_one(places: Mapping[Setting, str]) -> None:
    """Removes the settings of data sources of earlier files that a later file replaced.

    Args:
        places: The places of settings, by scope, full name of the configurable, and parameter.

    Raises:
        UserError: One of these settings is a --gin_param, which would have no effect; or train.data
            is not a data source.
    """
    used = bound()
    if used is None:
        return
    wrapped, selector = used.configurable.wrapped, used.configurable.selector
    is_ours = selector.startswith("t2aux.")
    # A user's function may create a source.
    if not _is_source(selector) and (isinstance(wrapped, type) or is_ours):
        raise SettingError(
            f"train.data is {used!r}, which is not a data source: name one, such as @mnist()."
        )
    if not is_ours:
        return  # It may use another source and its settings.
    for (scope, selector), bindings in list(gin_config._CONFIG.items()):
        if selector == used.configurable.selector or not _is_source(selector):
            continue
        for parameter in bindings:
            place = places.get((scope, selector, parameter), "")
            if place.startswith(PARAM):
                name = f"{gin_config._REGISTRY.minimal_selector(selector)}.{parameter}"
                raise SettingError(
                    f"{name} is set ({place}), but has no effect on the data, {used!r}: "
                    f"leave it out, or set train.data = @{name.partition('.')[0]}()."
                )
        del gin_config._CONFIG[scope, selector]


def _is_source(selector: str) -> bool:
    # Imported here, because it imports more than a configuration needs.
    from t2aux.data.source import Source

    wrapped = gin_config._REGISTRY[selector].wrapped
    return isinstance(wrapped, type) and issubclass(wrapped, Source)
