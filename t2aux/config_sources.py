"""Only the data source that train.data names counts: settings of others have no effect."""

from __future__ import annotations

from collections.abc import Mapping

import gin
from gin import config as gin_config

from t2aux.config_scopes import PARAM
from t2aux.errors import SettingError

Setting = tuple[str, str, str]


def bound() -> gin_config.ConfigurableReference | None:
    """The reference to the data source that train.data is set to; None if it is not set to one."""
    if gin_config._REGISTRY.get_match("train") is None:  # A command that trains nothing.
        return None
    value = gin.get_bindings("train", resolve_references=False).get("data")
    is_one = isinstance(value, gin_config.ConfigurableReference) and value.evaluate
    return value if is_one and not value.configurable.selector.startswith("gin.") else None


def keep_the_one(places: Mapping[Setting, str]) -> None:
    """Removes the settings of data sources that an earlier file named, and another one replaced.

    Args:
        places: The places of settings, by scope, configurable's full name, and parameter.

    Raises:
        UserError: One of them is a --gin_param, which would have no effect; or train.data names
            something other than a data source.
    """
    used = bound()
    if used is None:
        return
    wrapped, selector = used.configurable.wrapped, used.configurable.selector
    is_ours = selector.startswith("t2aux.")
    # A user's function may make a source.
    if not _is_source(selector) and (isinstance(wrapped, type) or is_ours):
        raise SettingError(
            f"train.data is {used!r}, which is not a data source: name one, such as @mnist()."
        )
    if not is_ours:
        return  # It may read another source, with what is set for that.
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
    # Here, since it imports more than a configuration needs.
    from t2aux.data.source import Source

    wrapped = gin_config._REGISTRY[selector].wrapped
    return isinstance(wrapped, type) and issubclass(wrapped, Source)
