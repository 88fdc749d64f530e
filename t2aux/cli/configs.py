r"""Lists the gin files that come with t2aux, and explains files, configurables and macros.

Usage:
  t2aux configs                 lists the files, one per line
  t2aux configs FILE...         explains files: their purpose, their settings, and all parameters of
                                the configurables that they use; several files are combined, as in
                                `t2aux train`
  t2aux configs NAME            explains a configurable: its parameters, their defaults and meanings
  t2aux configs NAME.PARAMETER  explains one parameter
  t2aux configs MACRO           shows which files set and use a macro

FILE is the name of a bundled file or the path of your own. Each parameter is shown as a setting
that can be passed as --gin_param='NAME.PARAMETER = VALUE'.

Examples:
  t2aux configs
  t2aux configs quickstart
  t2aux configs paper/mnist models/r_lstm budgets/short
  t2aux configs Reconstruction
  t2aux configs ANCHORS
"""

from __future__ import annotations

import pathlib
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from absl import flags

from t2aux import logs
from t2aux.cli import common, next_steps
from t2aux.errors import SettingError, did_you_mean

if TYPE_CHECKING:
    from t2aux.config_reference import Configuration, Parameter, Setting

common.define_paths("gin_search_path", "Another folder to look for gin files in. Repeatable.")
_WIDTH = 100


def main(argv: Sequence[str]) -> None:
    """Runs the command. argv[1:] are the names."""
    from t2aux import config, config_reference

    names = list(argv[1:])
    if not names:
        print(_listing(config_reference.bundled()))
        return
    if len(names) == 1 and not _is_file(names[0], config.list_bundled()):
        print(_of_name(names[0]))
        return
    _import_all()
    read = config_reference.read(names, flags.FLAGS.gin_search_path)
    print(_of_files(names, read))


def _listing(files: dict[str, str]) -> str:
    lines = []
    width = max(map(len, files)) + 2
    folder = None
    for name, about in sorted(files.items(), key=lambda item: ("/" in item[0], item[0])):
        if name.rpartition("/")[0] != folder:
            folder = name.rpartition("/")[0]
            lines += ["", f"{folder}/"] if folder else ["Configurations (--gin_file=NAME):"]
        lines.append(
            f"  {name:{width}}{textwrap.shorten(about, _WIDTH - width - 2, placeholder=' ...')}"
        )
    return "\n".join([*lines, next_steps.text("t2aux configs quickstart")])


def _is_file(name: str, bundled: Sequence[str]) -> bool:
    """Whether a name is that of a gin file, in any place."""
    folders = ["", *flags.FLAGS.gin_search_path]
    places = (pathlib.Path(folder) / f"{name}{end}" for folder in folders for end in ("", ".gin"))
    return name.removesuffix(".gin") in bundled or any(path.is_file() for path in places)


def _import_all() -> None:
    """Imports everything that a configuration can name.

    Names, defaults and types are read from constructors, which must be imported for this; those of
    networks and optimizers need TensorFlow.
    """
    logs.quiet_tensorflow()
    from t2aux.training import train  # noqa: F401


def _of_name(name: str) -> str:
    """Explains a configurable, a parameter or a macro. Raises UserError if it does not exist."""
    import t2aux.data  # noqa: F401  (for its sources, which need no TensorFlow)
    from t2aux import config, config_reference
    from t2aux.data.source import sources

    macros = config_reference.macros()
    if name in macros:
        return _of_macro(name)
    configurable, _, parameter = name.partition(".")
    if configurable not in (*sources(), "dataset"):
        _import_all()
    known = config_reference.configurables()
    if configurable not in known:
        everything = [*config.list_bundled(), *known, *macros]
        hint = did_you_mean(name, everything, "`t2aux configs` lists the files.")
        raise SettingError(f"Unknown gin file, configurable or macro {name!r}: {hint}")
    found = config_reference.parameters(configurable)
    if parameter:
        names = {p.name.partition(".")[2]: p for p in found}
        if parameter not in names:
            hint = did_you_mean(parameter, names, f"it has {', '.join(names)}.")
            raise SettingError(f"{configurable} has no parameter {parameter!r}: {hint}")
        found = [names[parameter]]
    blocks = [line for p in found for line in _parameter(p, ())]
    return "\n".join([f"{configurable}: {config_reference.about(configurable)}", *blocks])


def _of_macro(name: str) -> str:
    from t2aux import config_reference

    lines = [f"{name}: a macro. --gin_param='{name} = VALUE' sets it wherever %{name} is used."]
    for file, found in config_reference.mentions(name).items():
        lines += ["", file, *(f"  {line}" for line in found)]
    return "\n".join(lines)


def _of_files(names: Sequence[str], read: Configuration) -> str:
    from t2aux import config, config_reference

    lines = []
    folder = config.bundled_gin_dir()
    for name in names:
        path = folder / f"{name.removesuffix('.gin')}.gin"
        if path.is_file():
            lines += [name, *_indented(config_reference.header(path).splitlines()), ""]
    included = [name for name in read.files if name not in names]
    if included:
        lines += [*_wrapped(f"Included files: {', '.join(included)}."), ""]
    if read.macros:
        lines.append("Macros (--gin_param='NAME = VALUE'), and what uses them:")
        for name, setting in sorted(read.macros.items()):
            users = ", ".join(read.users(name))
            if users or not read.is_whole:
                about = users or f"used by {', '.join(config_reference.users(name))}"
                lines += _wrapped(f"{_set(setting)}: {about}", "  ", "      ")
        lines.append("")
    for name in read.used:
        lines.append(f"{name}: {config_reference.about(name)}")
        for parameter in config_reference.parameters(name):
            lines += _parameter(parameter, [s for s in read.settings if s.name == parameter.name])
        lines.append("")
    if read.unused:
        lines += _wrapped(f"Set, but not used by this configuration: {', '.join(read.unused)}.")
    return "\n".join(lines).rstrip()


def _parameter(parameter: Parameter, settings: Iterable[Setting]) -> list[str]:
    """Describes a parameter: one line per setting, or its default, and its meaning."""
    lines = []
    default = "" if parameter.default is None else f"default {parameter.default}"
    for setting in settings:
        lines += _wrapped(_set(setting, default), "  ", "      ")
    if not lines:
        written = parameter.default
        shown = f"{parameter.name} = {written}" if written is not None else parameter.name
        end = "" if written is not None else "  (must be set)"
        lines += _wrapped(f"{shown}{end}", "  ", "      ")
    allowed = parameter.allowed[:1].upper() + parameter.allowed[1:]
    sentences = [f"{allowed}." if allowed else "", parameter.meaning]
    return [*lines, *_wrapped(" ".join(filter(None, sentences)), "      ", "      ")]


def _set(setting: Setting, default: str = "") -> str:
    """Shows a setting and the file that it comes from."""
    from t2aux import config_reference

    value, macro = setting.value, ""
    if value != setting.written:
        macro = f"{setting.written}, "
    if value is None or value == config_reference.REQUIRED:
        what = "not set here" if value is None else "must be set"
        return f"{setting.full_name} = {setting.written}  ({what}; {setting.file})"
    return f"{setting.full_name} = {value}  ({macro}{setting.file}{default and f'; {default}'})"


def _wrapped(text: str, first: str = "", others: str = "") -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=first,
        subsequent_indent=others,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"  {line}".rstrip() for line in lines]
