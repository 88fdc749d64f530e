"""Describes gin files and configurables: their comments, settings, parameters and meanings."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import gin
from gin import config as gin_config

from t2aux import config, config_macros, config_types
from t2aux.config_macros import MACRO
from t2aux_ondevice import files

# Configurables that training uses even if nothing in a configuration refers to them.
_ALWAYS_USED = ("train", "dataset", "RunConfig")
REQUIRED = "%gin.REQUIRED"  # gin's notation for a value that must be set.
_SAME_AS = re.compile(r"(?:As for|See) `")


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A parameter of a configurable.

    Attributes:
        name: The name with that of the configurable, such as "train.batch_size".
        meaning: The description in the docstring, or "".
        allowed: A description of its type, or "".
        default: The default as written in Python; None if the parameter must be set.
    """

    name: str
    meaning: str
    allowed: str
    default: str | None


@dataclasses.dataclass(frozen=True)
class Setting:
    """A parameter or a macro, as gin files set it.

    Attributes:
        scope: The scope, such as "joint", or "".
        name: The name, such as "train.batch_size", or the macro's name.
        written: The value as it is written, such as "%BATCH_SIZE".
        value: The value with macros replaced; None if they are not set.
        file: The gin file that sets it, or the macro that it refers to.
    """

    scope: str
    name: str
    written: str
    value: str | None
    file: str

    @property
    def full_name(self) -> str:
        """The name as in gin files, such as "joint/Phase.epochs"."""
        return f"{self.scope}/{self.name}" if self.scope else self.name


@dataclasses.dataclass(frozen=True)
class Configuration:
    """The settings of one or several gin files.

    Attributes:
        files: The names of all files that were read, each before those that it includes.
        is_whole: Whether the configuration sets a data set and a model.
        macros: The macros by name.
        settings: The settings of parameters.
        used: The names of the configurables that are used, `train` first.
        unused: The names of configurables that have settings but are not used.
    """

    files: tuple[str, ...]
    is_whole: bool
    macros: dict[str, Setting]
    settings: tuple[Setting, ...]
    used: tuple[str, ...]
    unused: tuple[str, ...]

    def users(self, macro: str) -> list[str]:
        """The names of the parameters and macros whose values use a macro."""
        used = re.compile(rf"%{re.escape(macro)}\b")
        everything = (*self.macros.values(), *self.settings)
        return [s.full_name for s in everything if used.search(s.written)]


def header(path: pathlib.Path) -> str:
    """The comment at the beginning of a gin file, without the #. Raises UserError."""
    lines = []
    for line in files.read_text(path, "The gin file").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").removeprefix(" ").rstrip())
    return "\n".join(lines)


def summary(text: str) -> str:
    """The first sentence of a comment or a docstring, on one line."""
    paragraph = " ".join(text.partition("\n\n")[0].split())
    return re.split(r"(?<=\.)\s+(?=[A-Z`])", paragraph, maxsplit=1)[0].rstrip(".:")


def bundled() -> dict[str, str]:
    """A one-line summary of each bundled gin file, by name."""
    folder = config.bundled_gin_dir()
    return {name: summary(header(folder / f"{name}.gin")) for name in config.list_bundled()}


def mentions(macro: str) -> dict[str, list[str]]:
    """The lines of bundled gin files that set or use a macro, by file name."""
    pattern = re.compile(rf"^(?:{re.escape(macro)} =|[^#\n]*%{re.escape(macro)}\b).*", re.MULTILINE)
    found = {name: pattern.findall(text) for name, text in _texts().items()}
    return {name: lines for name, lines in found.items() if lines}


def users(macro: str) -> list[str]:
    """The names of the bundled gin files that use a macro."""
    found = mentions(macro).items()
    return [name for name, lines in found if any(f"%{macro}" in line for line in lines)]


def macros() -> list[str]:
    """The names of all macros that bundled gin files set."""
    text = "\n".join(_texts().values())
    return sorted(set(re.findall(r"^([A-Z_]+) =", text, re.MULTILINE)))


def _texts() -> dict[str, str]:
    """The contents of the bundled gin files, by name."""
    folder = config.bundled_gin_dir()
    return {n: (folder / f"{n}.gin").read_text("utf-8") for n in config.list_bundled()}


def configurables() -> list[str]:
    """The names of all configurables that have been imported, sorted."""
    registry = gin_config._REGISTRY
    names = (s for s, _ in registry.items() if not s.startswith("gin."))
    return sorted(registry.minimal_selector(selector) for selector in names)


def parameters(name: str) -> list[Parameter]:
    """The parameters of a configurable, in their order.

    Args:
        name: One of `configurables`.
    """
    configurable = gin_config._REGISTRY.get_match(name)
    function = config.function_of(configurable)
    hints = config.hints_of(function)
    meanings = _meanings(configurable.wrapped)
    denied = {"self", *(configurable.denylist or ())}
    found = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name in denied or parameter.kind in (
            parameter.VAR_KEYWORD,
            parameter.VAR_POSITIONAL,
        ):
            continue
        hint = hints.get(parameter.name)
        members = config_types.members(hint) if hint is not None else ()
        is_set = parameter.default is not parameter.empty
        found.append(
            Parameter(
                f"{name}.{parameter.name}",
                meanings.get(parameter.name, ""),
                " or ".join(map(config_types.describe, members)),
                _written(parameter.default) if is_set else None,
            )
        )
    return found


def about(name: str) -> str:
    """The first line of a configurable's docstring."""
    made = _unwrapped(gin_config._REGISTRY.get_match(name).wrapped)
    return summary(inspect.getdoc(made) or "")


def read(gin_files: Sequence[str], search_path: Sequence[str] = ()) -> Configuration:
    """Reads gin files, which need not be complete enough for training.

    gin's configuration is replaced by theirs.

    Args:
        gin_files: As for `config.parse`.
        search_path: As for `config.parse`.

    Raises:
        UserError: A file is missing, can't be read, or refers to something unknown.
    """
    read_files, places, of_macros = config.read(gin_files, search_path)
    set_macros, settings = {}, []
    for (scope, selector), bindings in gin_config._CONFIG.items():
        for parameter, value in bindings.items():
            if selector == MACRO:
                name, place = scope, of_macros[scope]
            else:
                name = f"{gin_config._REGISTRY.minimal_selector(selector)}.{parameter}"
                place = places[scope, selector, parameter]
            final, macro = _behind_macros(value)
            place = of_macros.get(macro or "", place)
            setting = Setting(
                "" if selector == MACRO else scope,
                name,
                repr(value),
                final,
                _file_name(place.rpartition(", line ")[0]),
            )
            if selector == MACRO:
                set_macros[name] = setting
            else:
                settings.append(setting)
    # In a part of a configuration, unused settings may be for other files.
    is_whole = _is_set("train", "data") and _is_set("train", "auxiliary_losses")
    used, unused = _used(is_whole)
    names = tuple(dict.fromkeys(_file_name(str(path)) for path in read_files))
    return Configuration(names, is_whole, set_macros, tuple(settings), used, unused)


def _used(is_whole: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The configurables that gin's configuration uses, and the others that it has settings of."""
    named = dict.fromkeys(
        reference.configurable.selector
        for reference in gin_config.iterate_references(gin_config._CONFIG)
        if not reference.configurable.selector.startswith("gin.")
    )
    bound = dict.fromkeys(selector for _, selector in gin_config._CONFIG if selector != MACRO)
    short = gin_config._REGISTRY.minimal_selector
    unused = [s for s in bound if is_whole and s not in named and short(s) not in _ALWAYS_USED]
    used = [short(s) for s in {**bound, **named} if s not in unused]
    used.sort(key=lambda name: name != "train")
    return tuple(used), tuple(map(short, unused))


def _is_set(name: str, parameter: str) -> bool:
    bound = gin.get_bindings(name, resolve_references=False)
    return parameter in bound and _behind_macros(bound[parameter])[0] not in (None, REQUIRED)


def _behind_macros(value: Any) -> tuple[str | None, str | None]:
    """Resolves a value that may be a macro.

    Returns:
        The resolved value as gin writes it, or None; and the last macro that was followed.
    """
    seen: dict[str, None] = {}
    while isinstance(value, gin_config.ConfigurableReference) and config_macros.is_macro(value):
        name = config_macros.name_of(value)
        bound = gin_config._CONFIG.get((name, MACRO), {})
        if name in seen or "value" not in bound:
            return None, name
        seen[name] = None
        value = bound["value"]
    return repr(value), next(reversed(seen), None)


def _file_name(path: str) -> str:
    """The name of a bundled file, or the path of another file."""
    folder = config.bundled_gin_dir()
    file = pathlib.Path(path).resolve()
    if file.is_relative_to(folder):
        return file.relative_to(folder).with_suffix("").as_posix()
    return path


def _written(default: Any) -> str:
    """A default as gin would write it."""
    if isinstance(default, type) or inspect.isroutine(default):
        return f"@{getattr(default, '__name__', default)}"
    if dataclasses.is_dataclass(default):
        return f"@{type(default).__name__}()"
    if isinstance(default, (list, tuple)):
        return "[" + ", ".join(map(_written, default)) + "]" if default else repr(default)
    return repr(default)


@functools.cache
def _meanings(wrapped: Any) -> dict[str, str]:
    """The descriptions of parameters in docstrings of a function, or of a class and its bases."""
    # Also installed by tensorflow-datasets.
    import docstring_parser

    found: dict[str, str] = {}
    for text in _docstrings(_unwrapped(wrapped)):
        parsed = docstring_parser.parse(text, docstring_parser.DocstringStyle.GOOGLE)
        for entry in parsed.params:
            meaning = " ".join((entry.description or "").split())
            # Replaces "As for `Base`" by the description in the base class.
            if entry.arg_name not in found or _SAME_AS.match(found[entry.arg_name]):
                found[entry.arg_name] = meaning
    return found


def _docstrings(made: Any) -> Iterator[str]:
    owners: Iterable[Any] = made.__mro__ if isinstance(made, type) else [made]
    for owner in owners:
        constructor = vars(owner).get("__init__") if isinstance(owner, type) else None
        for documented in filter(None, (owner, constructor)):
            text = getattr(inspect.unwrap(documented), "__doc__", None)
            if text:
                yield inspect.cleandoc(text)


def _unwrapped(made: Any) -> Any:
    return made if isinstance(made, type) else inspect.unwrap(made)
