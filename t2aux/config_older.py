"""The settings of older versions, `load.side = 6` and the like, read as what they are called now.

Data was once named and prepared by one configurable: `load.name = 'csv'`, `load.tokens = 'bytes'`.
Configurations of that time, those of run directories included, keep their meaning: `load.name` is
the source that `train.data` names, what any source has is `dataset`'s, and what prepares the
examples is the source's.

How a run is executed and saved was set by parameters of `train`, which are those of `RunConfig` and
`BackOff` now.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from absl import logging
from gin import config as gin_config

from t2aux import config_sources
from t2aux.errors import UserError, did_you_mean

CONFIGURABLE = "load"
# What holds for any source. Likewise called today.
_COMMON = ("data_dir", "max_examples", "bucket_batches", "splits", "allow")
# What prepares the examples, with the value that changes nothing.
_PREPARATION = {
    "side": None,
    "border": 0,
    "grey": False,
    "permutation_seed": None,
    "tokens": "characters",
    "max_length": None,
    "vocabulary_size": 256,
}
# What was used where it applied, and was not an error elsewhere.
_NO_ERROR = ("grey", "tokens", "vocabulary_size")
_TFDS = "tfds"
# The configuration of a run, whose data was read with it.
_OF_A_RUN = ("config.gin", "operative_config.gin")

# Parameters that are another configurable's today.
_RENAMED = {
    "train.checkpoint_minutes": ("RunConfig", "checkpoint_minutes"),
    "train.checkpoints_kept": ("RunConfig", "checkpoints_kept"),
    "train.steps_per_call": ("RunConfig", "steps_per_call"),
    "train.deterministic": ("RunConfig", "deterministic"),
    "train.log_every": ("RunConfig", "log_every"),
    "train.strategy": ("RunConfig", "strategy"),
    "train.nan_rate_factor": ("BackOff", "rate_factor"),
    "train.nan_back_offs": ("BackOff", "times"),
}

Bind = Callable[[str, str, str, Any, str], None]


class OlderNames:
    """Takes older settings in one file, or on the command line, and binds today's."""

    def __init__(self, bind: Bind) -> None:
        """Begins without settings.

        Args:
            bind: Binds a setting: scope, configurable, parameter, value, and its place.
        """
        self._bind = bind
        self._taken: dict[str, tuple[Any, str]] = {}

    def take(self, scope: str, selector: str, parameter: str, value: Any, place: str) -> bool:
        """Takes a setting, if it is an older one; those of `load` may come in any order.

        Raises:
            UserError: `load` never had such a parameter.
        """
        renamed = _RENAMED.get(f"{selector.rpartition('.')[2]}.{parameter}")
        if renamed is not None and _is_ours(selector):
            older = f"{selector}.{parameter}"
            self._bind_and_log(older, scope, renamed[0], value, place, parameter=renamed[1])
            return True
        if scope or selector != CONFIGURABLE:
            return False
        known = ("name", *_COMMON, *_PREPARATION)
        if parameter not in known:
            hint = did_you_mean(parameter, known, f"it has {', '.join(sorted(known))}.")
            raise UserError(f"{CONFIGURABLE} has no parameter {parameter!r} ({place}): {hint}")
        self._taken[parameter] = value, place
        return True

    def translate(self) -> None:
        """Binds what was taken since the last call.

        Raises:
            UserError: The data source has no such parameter; or none is named.
        """
        taken, self._taken = self._taken, {}
        prepared = {name: taken[name] for name in _PREPARATION if name in taken}
        if "name" in taken:
            self._name(*taken["name"], prepared)
        elif prepared:
            self._prepare(*_current(prepared), prepared)
        for name in _COMMON:
            if name in taken and not (name == "splits" and _has_no_splits(taken[name][1])):
                self._bind_and_log(f"load.{name}", "", "dataset", *taken[name], parameter=name)

    def _name(self, value: Any, place: str, prepared: Mapping[str, tuple[Any, str]]) -> None:
        """Sets the source, which prepares its examples as the one before: `load.name` did so."""
        if isinstance(value, gin_config.ConfigurableReference):
            raise UserError(f"load.name is a macro in {place}: write train.data = @NAME() instead.")
        kept = _preparation(config_sources.bound())
        name = value.removeprefix("tfds:") if isinstance(value, str) else value
        source = name if isinstance(name, str) and name in _sources() else _TFDS
        has = _parameters(source)
        lost = [n for n in kept if n not in has and n not in _NO_ERROR and n not in prepared]
        if lost and not _is_of_a_run(place):
            raise UserError(
                f"load.name is set ({place}), which keeps the {lost[0]} of the data set before, "
                f"and {source} has none: write train.data = @{source}() instead."
            )
        reference = gin_config.ConfigurableReference(source, evaluate=True)
        self._bind_and_log("load.name", "", "train", reference, place, parameter="data")
        if source == _TFDS:
            self._bind("", _TFDS, "name", name, place)
        for parameter in has & (kept.keys() - prepared.keys()):
            self._bind("", source, parameter, kept[parameter], place)
        self._prepare("", source, prepared)

    def _prepare(self, scope: str, source: str, prepared: Mapping[str, tuple[Any, str]]) -> None:
        has = _parameters(source)
        for name, (value, place) in prepared.items():
            if name in has:
                self._bind_and_log(f"load.{name}", scope, source, value, place, parameter=name)
            elif value != _PREPARATION[name] and name not in _NO_ERROR and not _is_of_a_run(place):
                raise UserError(
                    f"load.{name} is set ({place}), but {source} has no parameter {name!r}: leave "
                    "it out."
                )

    def _bind_and_log(
        self, older: str, scope: str, selector: str, value: Any, place: str, *, parameter: str
    ) -> None:
        self._bind(scope, selector, parameter, value, place)
        if not _is_of_a_run(place):
            name = "/".join(filter(None, [scope, selector]))
            shown = f"{name}.{parameter} = {value!r}"
            logging.warning("%s is an older name (%s): write %s.", older, place, shown)


def stored_settings(settings: Mapping[str, str]) -> dict[str, str]:
    """The settings that a run's run.json has, by the names of today.

    Args:
        settings: As texts, by name.

    Returns:
        Those of `load` that hold for any source are `dataset`'s; the others, which the fingerprint
        of the data stands for, are left out.
    """
    found = {}
    for name, value in settings.items():
        configurable, _, parameter = name.partition(".")
        if name in _RENAMED:
            found[".".join(_RENAMED[name])] = value
        elif configurable != CONFIGURABLE:
            found[name] = value
        elif parameter in _COMMON:
            found[f"dataset.{parameter}"] = value
    return found


def _current(prepared: Mapping[str, tuple[Any, str]]) -> tuple[str, str]:
    """The scope and the name of the source that train.data names; digits where it was implied."""
    data = config_sources.bound()
    if data is not None:
        scope, selector = data.config_key
        return scope, selector.rpartition(".")[2]
    if config_sources.value_bound() is None:
        return "", "digits"
    name, (_, place) = next(iter(prepared.items()))
    raise UserError(f"load.{name} is set ({place}), but no data set is named: name one first.")


def _preparation(source: gin_config.ConfigurableReference | None) -> dict[str, Any]:
    """How a source prepares its examples, where that is not how all did by default."""
    if source is None:
        return {}
    parameters = inspect.signature(source.configurable.wrapped).parameters
    values = {n: p.default for n, p in parameters.items() if n in _PREPARATION}
    bound = gin_config._CONFIG.get(source.config_key, {})
    values |= {n: v for n, v in bound.items() if n in _PREPARATION}
    return {n: v for n, v in values.items() if v != _PREPARATION[n]}


def _parameters(source: str) -> set[str]:
    _sources()
    return set(inspect.signature(gin_config._REGISTRY.get_match(source).wrapped).parameters)


def _has_no_splits(place: str) -> bool:
    """Whether a run's data source does not use `splits`, which was not an error once."""
    data = config_sources.bound()
    is_known = data is not None and _is_of_a_run(place)
    return is_known and not getattr(data.configurable.wrapped, "has_named_splits", True)


def _is_ours(selector: str) -> bool:
    """Whether a configurable is of this package; a user's module may have one of the same name."""
    try:
        configurable = gin_config._REGISTRY.get_match(selector)
    except KeyError:  # It is ambiguous, which the parser says.
        return False
    return configurable is not None and configurable.selector.startswith("t2aux.")


def _sources() -> Mapping[str, type]:
    # Here, since most configurations have none of the older names.
    import t2aux.data  # noqa: F401
    from t2aux.data.source import sources

    return sources()


def _is_of_a_run(place: str) -> bool:
    return place.partition(", line ")[0].replace("\\", "/").rpartition("/")[2] in _OF_A_RUN
