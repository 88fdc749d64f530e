"""The flags and arguments of all commands, for completion."""

from __future__ import annotations

import dataclasses
import importlib
import multiprocessing
import re

from absl import flags

from t2aux.cli import common, main

# The kind of an argument or a flag's value that is not one of a fixed list.
FILE, FOLDER = "file", "folder"
_FOLDERS = re.compile(r"(?!data_dir)\w+_(?:dir|path)")  # Data may be one file.
SHELLS = ("bash", "zsh")


@dataclasses.dataclass(frozen=True)
class Flag:
    """A flag of a command.

    Attributes:
        name: The name, without the dashes.
        about: The beginning of the help text.
        is_boolean: Whether the flag takes no value and also has a form with "no" before its name.
        is_repeatable: Whether the flag may be given several times.
        values: The possible values, or those of them that are names.
        kind: FILE or FOLDER if the value is a path.
    """

    name: str
    about: str
    is_boolean: bool
    is_repeatable: bool
    values: tuple[str, ...] = ()
    kind: str | None = None


@dataclasses.dataclass(frozen=True)
class Command:
    """A command.

    Attributes:
        name: The name on the command line.
        about: A one-line description.
        flags: The flags, sorted by name.
        values: The possible arguments; empty if they are not known.
        kind: FILE or FOLDER if the arguments are paths.
    """

    name: str
    about: str
    flags: tuple[Flag, ...]
    values: tuple[str, ...] = ()
    kind: str | None = None


def read() -> list[Command]:
    """Imports every command to find its flags."""
    from t2aux import config

    bundled = tuple(config.list_bundled())
    names = list(main.COMMANDS)
    values, kinds = _arguments(bundled)
    # One process per command, because several define flags of the same name. They are forked after
    # the common imports.
    with multiprocessing.get_context("fork").Pool(1, maxtasksperchild=1) as pool:
        flags_of = pool.map(_flags_of, names, chunksize=1)
    made = [
        Command(
            name,
            main.COMMANDS[name],
            tuple(_with_names(flag, bundled) for flag in found),
            values.get(name, ()),
            kinds.get(name),
        )
        for name, found in zip(names, flags_of, strict=True)
    ]
    return [*made, Command("help", "describe a command", (), tuple(names))]


def _flags_of(name: str) -> list[Flag]:
    """Imports a command and describes its flags."""
    importlib.import_module(main.module_of(name))
    return [_described(flag) for flag in common.own_flags()]


def _described(flag: flags.Flag) -> Flag:
    kind = None
    if isinstance(flag.parser, common.PathParser):
        kind = FOLDER if _FOLDERS.fullmatch(flag.name) else FILE
    # absl puts the values of an enumeration before its help, and a note on repetition after it.
    about = re.sub(r"^<[^>]*>: ", "", flag.help).partition("\n")[0]
    about = re.split(r"[.;](?:\s|$)", about, maxsplit=1)[0]
    return Flag(
        flag.name,
        " ".join(about.split()),
        flag.boolean,
        isinstance(flag, flags.MultiFlag),
        tuple(getattr(flag.parser, "enum_values", None) or ()),
        kind,
    )


def _with_names(flag: Flag, bundled: tuple[str, ...]) -> Flag:
    """Adds the names that may be given instead of a path."""
    names = {"gin_file": bundled, "checkpoint": ("best", "latest")}
    return dataclasses.replace(flag, values=flag.values or names.get(flag.name, ()))


def _arguments(bundled: tuple[str, ...]) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """The possible values and the kinds of the commands' arguments."""
    import t2aux.data  # noqa: F401  (for its sources)
    from t2aux.data.source import sources
    from t2aux.reproduce.experiments import EXPERIMENTS

    data = tuple(sorted(sources()))
    values = {
        "data": ("convert", *data),
        "configs": (*bundled, *data),
        "reproduce": (*EXPERIMENTS, "all"),
        "completion": SHELLS,
    }
    return values, {"classify": FILE, "client": FILE, "report": FOLDER}
