"""Strict gin configuration: every mistake is reported in one sentence with the nearest valid name.

gin itself accepts a misspelled macro, a value of the wrong type, and `%gin.REQUIRED` as the value
of a macro; here they are errors. Statements are read with gin's parser and bound with its
functions, so a configuration has the same meaning as in gin.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import pathlib
import re
import tokenize
import typing
from collections.abc import Iterator, Sequence
from typing import IO, Any

import gin
from gin import config as gin_config
from gin import config_parser

import t2aux
from t2aux import config_imports, config_macros, config_older, config_sources, config_types
from t2aux.config_macros import MACRO, Macros
from t2aux.config_order import Order
from t2aux.config_scopes import PARAM, Scopes
from t2aux.errors import DependencyError, SettingError, did_you_mean
from t2aux_ondevice import files, paths

_UNKNOWN = object()
# The maximum depth of nested lists and macros.
_MAX_DEPTH = 50
# gin's messages for a parameter that must be set.
_REQUIRED = re.compile(
    r"Required bindings for `(?P<configurable>\S+)` not provided in config: \['(?P<parameter>\w+)'"
)
_NOT_GIVEN = re.compile(
    r"No values supplied by Gin or caller for arguments: \['(?P<parameter>\w+)'.*?"
    r"In call to configurable '(?P<configurable>\w+)'",
    re.DOTALL,
)
# Parameters that base.gin does not set, and the folder whose files set them.
_SET_BY_FILES = {
    "train.data": ("data set", "datasets"),
    "train.auxiliary_losses": ("model", "models"),
}


def bundled_gin_dir() -> pathlib.Path:
    """The folder of the gin files that come with t2aux."""
    package = pathlib.Path(t2aux.__file__).resolve().parent
    # Inside the package in a wheel, beside it in a checkout.
    for folder in (package / "gin", package.parent / "gin"):
        if (folder / "base.gin").is_file():
            return folder
    raise DependencyError("The gin files that come with t2aux are missing: install t2aux again.")


def list_bundled() -> list[str]:
    """The names of the bundled gin files, without the suffix, sorted: "paper/mnist", ..."""
    folder = bundled_gin_dir()
    return sorted(f.relative_to(folder).with_suffix("").as_posix() for f in folder.rglob("*.gin"))


def parse(
    gin_files: Sequence[str], gin_params: Sequence[str], search_path: Sequence[str] = ()
) -> str:
    """Parses files, then single settings, and replaces gin's global configuration by them.

    The configurables that they refer to must have been imported.

    Args:
        gin_files: Paths or names, looked up as given, in `search_path` and among the bundled files;
            the suffix may be omitted.
        gin_params: Settings such as "train.batch_size = 64" or "BATCH_SIZE = 64".
        search_path: More folders to look in.

    Returns:
        The whole configuration as gin text, which parses to the same configuration.

    Raises:
        UserError: A file is missing; a statement can't be read; a configurable, a parameter or a
            macro is unknown; a value has the wrong type; a required value is not set; or a whole
            configuration undoes a file that is named before it.
    """
    gin.clear_config()
    with gin.unlock_config():
        parser = _Parser([pathlib.Path(paths.local(p, "--gin_search_path")) for p in search_path])
        order = Order(bundled_gin_dir())
        for name in gin_files:
            order.check(name, parser.parse_file(name, None))
        for param in gin_params:
            # A path in it may not be UTF-8; an escape in quotes has the same meaning.
            text = param.encode("utf-8", "backslashreplace").decode()
            if not text.strip():
                raise SettingError("--gin_param is empty: write --gin_param='NAME = VALUE'.")
            parser.parse_text(io.StringIO(text), f"{PARAM}{param!r}")
        parser.macros.check()
        parser.scopes.check()
        config_sources.keep_the_one(parser.places)
        _check_values()
        _check_calls()
        config_macros.drop_unused()
    return gin.config_str()


def read(
    gin_files: Sequence[str], search_path: Sequence[str] = ()
) -> tuple[list[pathlib.Path], dict[config_sources.Setting, str], dict[str, str]]:
    """Parses files that may be only a part of a configuration: missing settings are not errors.

    Args:
        gin_files: As for `parse`.
        search_path: As for `parse`.

    Returns:
        The files, each before those that it includes; the places of settings; the places of macros.

    Raises:
        UserError: See `parse`, except for the requirements on a whole configuration.
    """
    gin.clear_config()
    found: list[pathlib.Path] = []
    with gin.unlock_config():
        parser = _Parser([pathlib.Path(paths.local(p, "--gin_search_path")) for p in search_path])
        for name in gin_files:
            found += parser.parse_file(name, None)
    return found, parser.places, parser.macros.places


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """Turns gin's error for a required parameter, raised at the call, into a UserError."""
    try:
        yield
    except (RuntimeError, TypeError) as error:
        match = _REQUIRED.search(str(error)) or _NOT_GIVEN.search(str(error))
        if not match:
            raise
        name = f"{match['configurable']}.{match['parameter']}"
        raise SettingError(f"{name} must be set: --gin_param='{name} = ...'.") from error


class _Parser:
    """Reads and binds statements, and keeps track of macros and places."""

    def __init__(self, search_path: list[pathlib.Path]) -> None:
        self._search_path = search_path
        self._delegate = gin_config.ParserDelegate(skip_unknown=config_older.REMOVED_CONFIGURABLES)
        self.macros = Macros(bundled_gin_dir())
        self.scopes = Scopes()
        self.places: dict[config_sources.Setting, str] = {}
        self._open: list[pathlib.Path] = []
        self._read: list[pathlib.Path] = []

    def parse_file(self, name: str, included_by: pathlib.Path | None) -> list[pathlib.Path]:
        """Returns the resolved paths of the file and of those that it includes."""
        path, first = self._find(name, included_by), len(self._read)
        self._read.append(path.resolve())
        # Resolved, because several paths may lead to the same file.
        if path.resolve() in self._open:
            raise SettingError(f"{included_by} includes {name}, which includes it again.")
        self._open.append(path.resolve())
        # Accepts all line endings.
        text = io.StringIO(files.read_text(path, "The gin file"), newline=None)
        self.parse_text(text, str(path), path)
        self._open.pop()
        return self._read[first:]

    def _find(self, name: str, included_by: pathlib.Path | None) -> pathlib.Path:
        folders = [included_by.parent if included_by else pathlib.Path()]
        folders += [*self._search_path, bundled_gin_dir()]
        for folder in folders:
            for candidate in (folder / name, folder / f"{name}.gin"):
                with contextlib.suppress(OSError, ValueError):  # An invalid file name.
                    if candidate.is_file():
                        return candidate
        bundled = list_bundled()
        hint = did_you_mean(name.removesuffix(".gin"), bundled, f"There are {', '.join(bundled)}.")
        raise SettingError(
            f"Can't find gin file {name!r}{f' (included by {included_by})' if included_by else ''}"
            f" in {', '.join(map(str, folders[:-1]))} or among the bundled ones: {hint}"
        )

    def parse_text(self, file: IO[str], where: str, path: pathlib.Path | None = None) -> None:
        for statement, place in _statements(file, where, self._delegate, is_file=path is not None):
            if isinstance(statement, config_parser.BindingStatement):
                self._bind(statement, place)
            elif isinstance(statement, config_parser.IncludeStatement):
                self.parse_file(statement.filename, path)
            elif isinstance(statement, config_parser.BlockDeclaration):
                is_known = gin_config._REGISTRY.get_match(statement.selector)
                if not is_known and statement.selector not in config_older.REMOVED_CONFIGURABLES:
                    raise SettingError(_unknown_configurable(statement.selector, place))
            else:
                config_imports.process(statement, place)

    def _bind(self, statement: config_parser.BindingStatement, place: str) -> None:
        for reference in gin_config.iterate_references({"": statement.value}):
            if config_macros.is_macro(reference):
                name = config_macros.name_of(reference)
                self.macros.use(name, place, by_parameter=bool(statement.arg_name))
            else:
                self.scopes.name(reference.scoped_selector)
        scope, selector, parameter = statement.scope, statement.selector, statement.arg_name
        if not parameter:
            name = f"{scope}/{selector}" if scope else selector
            self.macros.places[name] = place
            gin.bind_parameter((name, MACRO, "value"), statement.value)
            return
        setting = scope, selector, parameter, statement.value, place
        if not config_older.take(*setting, self._bind_value):
            self._bind_value(*setting)

    def _bind_value(
        self, scope: str, selector: str, parameter: str, value: Any, place: str
    ) -> None:
        try:
            configurable = gin_config._REGISTRY.get_match(selector)
        except KeyError as error:
            raise SettingError(f"{selector!r} in {place} is ambiguous: {error.args[0]}.") from error
        if configurable is None:
            raise SettingError(_unknown_configurable(selector, place))
        names = _parameters(configurable)
        if names is not None and parameter not in names:
            hint = did_you_mean(parameter, names, f"it has {', '.join(sorted(names))}.")
            raise SettingError(f"{selector} has no parameter {parameter!r} ({place}): {hint}")
        self.scopes.set(scope, place)
        self.places[scope, configurable.selector, parameter] = place
        gin.bind_parameter((scope, selector, parameter), value)


def _statements(
    file: IO[str], where: str, delegate: gin_config.ParserDelegate, *, is_file: bool
) -> Iterator[tuple[Any, str]]:
    """Yields gin's statements, each with its file and line."""
    statements, line = None, 0

    def place(at: str) -> str:
        return f"{where}, {at}" if is_file else where

    while True:
        try:
            # The parser already reads the first token in its constructor.
            if statements is None:
                statements = iter(config_parser.ConfigParser(file, delegate))
            statement = next(statements)
        except StopIteration:
            return
        except (RecursionError, MemoryError, TypeError, UnicodeError) as error:
            is_deep = isinstance(error, (RecursionError, MemoryError))
            why = "is nested too deep: write it flat" if is_deep else f"can't be read: {error}"
            raise SettingError(f"A value in {place(f'after line {line}')} {why}.") from error
        except (SyntaxError, tokenize.TokenError) as error:
            # Since Python 3.12, the tokenizer's own error is raised.
            why, at = error.args[0], error.args[1][0]
            if isinstance(error, SyntaxError):
                why, at = error.msg, error.lineno
            # gin's message begins with Python's, which names an internal object of the parser.
            why = re.sub(r".*(?=Failed to parse token)", "", " ".join(why.split()))
            raise SettingError(
                f"Can't read the setting in {place(f'line {at}')}: {why.rstrip('.')}. "
                "Write NAME = VALUE or configurable.parameter = VALUE, texts in quotes."
            ) from error
        except ValueError as error:
            # An unknown @reference, which gin rejects while it reads the value.
            match = re.search(r"'@?([\w./]+?)(\(\))?'", str(error))
            name = (match[1] if match else str(error)).rpartition("/")[2]
            after = place(f"after line {line}") if line else where
            raise SettingError(_unknown_configurable(name, after)) from error
        line = statement.location.line_num
        yield statement, place(f"line {line}")


def _unknown_configurable(name: str, place: str) -> str:
    known = [
        gin_config._REGISTRY.minimal_selector(selector)
        for selector, _ in gin_config._REGISTRY.items()
        if not selector.startswith("gin.")
    ]
    hint = did_you_mean(name, known, f"there are {', '.join(sorted(known))}.")
    return f"Unknown configurable {name!r} ({place}): {hint}"


def function_of(configurable: gin_config.Configurable) -> Any:
    """The function or the class's constructor without gin's wrapper."""
    wrapped = configurable.wrapped
    # gin wraps a class's constructor in place.
    return inspect.unwrap(wrapped.__init__ if isinstance(wrapped, type) else wrapped)


def _parameters(configurable: gin_config.Configurable) -> list[str] | None:
    """The parameters that may be set; None: any, for a function with **kwargs."""
    spec = gin_config._get_cached_arg_spec(function_of(configurable))
    if spec.varkw:
        return None
    denied = set(configurable.denylist or ()) | {"self"}
    return [name for name in (*spec.args, *spec.kwonlyargs) if name not in denied]


def _check_values() -> None:
    referenced = {
        r.scoped_selector.rpartition("/")[0]
        for r in gin_config.iterate_references(gin_config._CONFIG)
    }
    for (scope, selector), bindings in gin_config._CONFIG.items():
        # The bindings of a scope are used only if something refers to it.
        if selector == MACRO or (scope and scope not in referenced):
            continue
        configurable = gin_config._REGISTRY[selector]
        hints = hints_of(function_of(configurable))
        short = gin_config._REGISTRY.minimal_selector(selector)
        for parameter, bound in bindings.items():
            name = f"{scope}/{short}.{parameter}" if scope else f"{short}.{parameter}"
            value = _resolve(bound, name)
            if parameter in hints:
                config_types.check_references(name, bound, hints[parameter])
                if value is not _UNKNOWN:
                    config_types.check(name, value, hints[parameter])


def hints_of(function: Any) -> dict[str, Any]:
    """The annotations of a function's parameters."""
    try:
        return typing.get_type_hints(function)
    except NameError:  # A user's module may import names only for type checkers.
        return {}


def _resolve(value: Any, name: str, depth: int = 0) -> Any:
    """A bound value with its macros replaced; _UNKNOWN if only a call determines it."""
    if depth > _MAX_DEPTH:
        raise SettingError(f"{name} holds itself, or is nested too deep: write it flat.")
    if isinstance(value, gin_config.ConfigurableReference):
        if config_macros.is_macro(value):
            macro = config_macros.name_of(value)
            bound = gin.query_parameter(f"{macro}/{MACRO}.value")
            return _resolve(bound, macro, depth + 1)
        if value.selector in ("gin.constant", "constant"):
            value = value.scoped_configurable_fn()
            if value is gin.REQUIRED:
                raise SettingError(_not_set(name))
            return value
        return _UNKNOWN if value.evaluate else value.scoped_configurable_fn
    if isinstance(value, (list, tuple)):
        items = [_resolve(item, name, depth + 1) for item in value]
        return _UNKNOWN if any(i is _UNKNOWN for i in items) else type(value)(items)
    if isinstance(value, dict):
        found = {k: _resolve(item, name, depth + 1) for k, item in value.items()}
        return _UNKNOWN if any(i is _UNKNOWN for i in found.values()) else found
    return value


def _not_set(name: str) -> str:
    """The message for a required parameter that is not set."""
    if name not in _SET_BY_FILES:
        return f"{name} must be set: --gin_param='{name} = ...', or in a gin file."
    what, folder = _SET_BY_FILES[name]
    files_of = [name for name in list_bundled() if name.startswith(f"{folder}/")]
    return f"The configuration names no {what}: add --gin_file=NAME, one of {', '.join(files_of)}."


def _check_calls() -> None:
    """Raises UserError for `f.x = @f()`, which would call itself forever."""
    done: set[tuple[str, str]] = set()

    def visit(scope: str, selector: str, callers: tuple[tuple[str, str], ...]) -> None:
        key = (scope, selector)
        if key in callers:
            short = gin_config._REGISTRY.minimal_selector(selector)
            name = scope if selector == MACRO else short
            raise SettingError(f"{name} refers to itself: remove one of the references.")
        if key in done:
            return
        parts = scope.split("/") if scope else []
        for end in range(len(parts) + 1):
            bound = gin_config._CONFIG.get(("/".join(parts[:end]), selector), {})
            for reference in gin_config.iterate_references(bound):
                if reference.evaluate:
                    visit(*reference.config_key, (*callers, key))
        done.add(key)

    for scope, selector in list(gin_config._CONFIG):
        visit(scope, selector, ())
