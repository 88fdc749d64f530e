"""Code shared by the commands: common flags, help texts and the reporting of errors."""

from __future__ import annotations

import contextlib
import errno
import logging as logging_library
import os
import pathlib
import re
import signal
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from absl import flags, logging

from t2aux import exit_status, logs
from t2aux.errors import DependencyError, SettingError, StartAgainError, UserError, did_you_mean
from t2aux_ondevice import paths, streams
from t2aux_ondevice.errors import printable

if TYPE_CHECKING:
    from t2aux.data import Source

# Flags that set parameters of the configurable csv.
_COLUMN_FLAGS = {
    "label_column": "label_column",
    "text_column": "text_columns",
    "encoding": "encoding",
}
# Gin appends this to the message of every error that passes through a configurable.
_GIN_SUFFIX = "\n  In call to configurable"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


class PathParser(flags.ArgumentParser):
    """Parses a flag's value as a local path; see `t2aux_ondevice.paths.local`."""

    def __init__(self, name: str, *, urls: bool = False) -> None:
        """Stores the flag's name, for messages, and whether its value may be a URL."""
        super().__init__()
        self._name = name
        self.urls = urls

    def parse(self, argument: str) -> str:
        """Returns the path with "~" expanded. Raises UserError if it can't be a path here."""
        # Without --runner, `here` rejects it.
        if self.urls and _URL.match(argument):
            return argument
        return paths.local(argument, f"--{self._name}")


def define_path(
    name: str,
    default: str | None,
    description: str,
    *,
    required: bool = False,
    urls: bool = False,
) -> flags.FlagHolder:
    """Defines a flag whose value is a path. All such flags are defined with this function.

    Args:
        name: The flag's name.
        default: The value if the flag is not given.
        description: The help text.
        required: Whether the flag must be given.
        urls: Whether the value may be a URL with --runner. Without --runner, `here` checks it.
    """
    return flags.DEFINE(
        PathParser(name, urls=urls),
        name,
        default,
        description,
        serializer=flags.ArgumentSerializer(),
        required=required,
    )


def define_paths(name: str, description: str) -> flags.FlagHolder:
    """Defines a flag whose value is a path and that can be given several times."""
    return flags.DEFINE_multi(PathParser(name), flags.ArgumentSerializer(), name, [], description)


def define_model_dir(description: str) -> None:
    """Defines --model_dir, which must be given."""
    define_path("model_dir", None, description, required=True)


def define_checkpoint() -> flags.FlagHolder:
    """Defines --checkpoint, which selects a checkpoint of a run."""
    return define_path(
        "checkpoint",
        None,
        "Which checkpoint of the run: best (by validation accuracy), latest (the newest), or a "
        "name. By default the best, or the newest if the run has no validation set.",
    )


def define_gin_flags() -> None:
    """Defines --gin_file, --gin_param and --gin_search_path."""
    define_paths(
        "gin_file",
        "A configuration: a file, or a bundled one by its name (quickstart, paper/mnist, ...). "
        "Repeatable; later ones override earlier ones.",
    )
    flags.DEFINE_multi_string(
        "gin_param", [], "One setting, such as 'BATCH_SIZE = 64'. Repeatable; overrides the files."
    )
    define_paths("gin_search_path", "Another folder to look for gin files in. Repeatable.")


def define_data_dir(*, urls: bool = False) -> flags.FlagHolder:
    """Defines --data_dir, which sets dataset.data_dir. For `urls`, see `define_path`."""
    return define_path(
        "data_dir",
        None,
        "Folder or file of the data; T2AUX_DATA_DIR by default. Sets dataset.data_dir.",
        urls=urls,
    )


def define_columns() -> None:
    """Defines --label_column, --text_column and --encoding, which set those parameters of csv."""
    flags.DEFINE_string(
        "label_column",
        None,
        "For a table: the column of the class, as its name or, in a table without a header, its "
        "position, counted from 0. By default the usual names are tried. Sets csv.label_column.",
    )
    flags.DEFINE_multi_string(
        "text_column",
        [],
        "Likewise, the column of the text. Repeatable: several are joined by a space. Sets "
        "csv.text_columns.",
    )
    flags.DEFINE_string(
        "encoding",
        None,
        "For a table: the encoding of its text, such as cp1252; UTF-8 and UTF-16 with a byte order "
        "mark are recognised. Sets csv.encoding.",
    )


def check_columns(source: Source) -> None:
    """Raises UserError if flags of `define_columns` are given and the data is not a table."""
    for name in _COLUMN_FLAGS:
        if name in flags.FLAGS and flags.FLAGS[name].value and source.gin_name != "csv":
            raise SettingError(
                f"--{name} is for tables (--gin_file=texts or datasets/csv), not for "
                f"{source.gin_name}: leave it out."
            )


def define_runner() -> flags.FlagHolder:
    """Defines --runner, which runs the command as a pipeline."""
    return flags.DEFINE_string(
        "runner",
        None,
        "Run as an Apache Beam pipeline: DirectRunner, FlinkRunner, SparkRunner, "
        "DataflowRunner, PrismRunner, ... Beam's own options follow --.",
    )


def runner_options(argv: Sequence[str]) -> list[str]:
    """The arguments that are not flags. With --runner, they are Beam's options."""
    if flags.FLAGS.runner is None:
        if any(option.startswith("--") for option in argv[1:]):
            raise SettingError(f"{argv[1]} is an option of Beam's: it needs --runner, before --.")
        no_arguments(argv)
    return list(argv[1:])


def here(holder: flags.FlagHolder) -> None:
    """Raises UserError if a path flag is a URL of another file system and --runner is not given.

    Args:
        holder: The flag, defined with `urls`.
    """
    if holder.value is not None and flags.FLAGS.runner is None:
        paths.local(holder.value, f"--{holder.name}")


def check_beam() -> None:
    """Raises UserError if Apache Beam is not installed."""
    try:
        # Beam logs which of its own parts are missing.
        with logs.quiet_libraries():
            import apache_beam  # noqa: F401
    except ImportError as error:
        raise DependencyError(
            f"--runner needs Apache Beam, which can't be imported ({error}): "
            "`pip install 't2aux[beam]'`."
        ) from error


def gin_params() -> list[str]:
    """The settings given on the command line, including --data_dir and --label_column."""
    values = flags.FLAGS.flag_values_dict()
    params = list(values.get("gin_param", []))
    if values.get("data_dir") is not None:
        params.append(f"dataset.data_dir = {values['data_dir']!r}")
    for flag, parameter in _COLUMN_FLAGS.items():
        if values.get(flag):
            params.append(f"csv.{parameter} = {values[flag]!r}")
    return params


def parse_gin(gin_files: Sequence[str] | None = None) -> str:
    """Parses the configuration that the flags name, strictly.

    Args:
        gin_files: Files to parse instead of --gin_file.

    Returns:
        The parsed configuration as gin text.

    Raises:
        UserError: See `t2aux.config.parse`.
    """
    from t2aux import config

    files = flags.FLAGS.gin_file if gin_files is None else gin_files
    return config.parse(files, gin_params(), flags.FLAGS.gin_search_path)


def no_arguments(argv: Sequence[str]) -> None:
    """Raises UserError if there are arguments that are not flags."""
    if len(argv) > 1:
        raise SettingError(
            f"This command takes flags only, but was given {argv[1]!r}: write --flag=value."
        )


def whole_numbers(flag: str, texts: Sequence[str]) -> list[int]:
    """The numbers that a flag lists. Raises UserError if one is not a whole number."""
    try:
        return [int(text) for text in texts]
    except ValueError as error:
        shown = ",".join(texts)
        raise SettingError(
            f"--{flag} must be whole numbers, such as 0,1,2, not {shown!r}."
        ) from error


def exit_on_sigterm() -> None:
    """Makes SIGTERM unwind the program like Ctrl-C, so that partial outputs are removed."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


@contextlib.contextmanager
def logged_to(path: pathlib.Path) -> Iterator[None]:
    """Also appends the program's log to a file. Raises UserError if it can't be opened."""
    handler = logs.FileHandler(path)
    logging.get_absl_logger().addHandler(handler)
    try:
        yield
    finally:
        logging.get_absl_logger().removeHandler(handler)
        handler.close()


def help_text(name: str, description: str) -> str:
    """A command's help: its description and its own flags."""
    lines = [description.strip(), "", "Flags:"]
    found = own_flags()
    if not found:
        lines.append("  None.")
    for flag in found:
        lines.append(f"  --{flag.name}" + ("" if flag.boolean else "=..."))
        # absl adds this to the help text, which already says "Repeatable."
        described = flag.help.strip().split(";\n    repeat this option")[0]
        if flag.default not in (None, [], "", False):
            described += f" Default: {flag.default_as_str}."
        lines.extend(
            textwrap.wrap(described, 92, initial_indent="      ", subsequent_indent=" " * 6)
        )
    lines.append(f"\n`{name} --helpfull` also lists the flags of the libraries (logging, ...).")
    return "\n".join(lines)


def own_flags() -> list[flags.Flag]:
    """The flags of the imported command, without those of libraries."""
    ours = [
        flag
        for module, defined in flags.FLAGS.flags_by_module_dict().items()
        if module.startswith("t2aux.cli")
        for flag in defined
    ]
    return sorted(ours, key=lambda flag: flag.name)


def run(
    main: Callable[[Sequence[str]], int | None], description: str, argv: list[str]
) -> int | None:
    """Runs a command.

    Args:
        main: The command. It gets the program's name and the arguments that are not flags.
        description: The command's help text.
        argv: The program's name, such as "t2aux train", and its arguments.

    Returns:
        The exit status; None means 0.
    """
    before_end = argv[1 : argv.index("--")] if "--" in argv else argv[1:]
    if any(a in ("--help", "-help", "-h", "-?") for a in before_end):
        print(help_text(argv[0], description))
        return 0
    if "--helpfull" in before_end:
        print(description.strip() + "\n\nFlags:\n" + flags.FLAGS.get_help())
        return 0
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    logging.set_stderrthreshold("info")
    # The handler was created before a closed standard error was replaced.
    logging.get_absl_handler().python_handler.setStream(sys.stderr)
    logging.get_absl_handler().setFormatter(None)
    logging.get_absl_handler().addFilter(logs.is_ours)
    if paths.home() is None:
        # Otherwise Keras would keep its settings in a folder "~" in the working directory.
        os.environ.setdefault("KERAS_HOME", "/dev/null/keras")
    # Matplotlib warns if it can't store its font cache, which only makes it slower.
    logging_library.getLogger("matplotlib").setLevel(logging_library.ERROR)
    return main(_parse_flags(argv))


def entry(program: Callable[[], int | None]) -> None:
    """Runs a program and exits with its status.

    A user's error is printed as one line on stderr, and the status is 1. A closed standard stream
    is not an error; one that can't be written is.

    Args:
        program: Returns its exit status; None means 0.
    """
    streams.prepare()
    status: int | None
    try:
        try:
            status = program()
        finally:
            sys.stdout.flush()
    except UserError as error:
        status = _fail(str(error).split(_GIN_SUFFIX)[0])
        if isinstance(error, StartAgainError):
            # Everything is saved and logged. Without its workers, TensorFlow might hang or fail
            # at exit.
            sys.stderr.flush()
            os._exit(exit_status.STOPPED)
    except KeyboardInterrupt:
        streams.complain("Stopped by Ctrl-C.")
        status = exit_status.INTERRUPTED
    except BrokenPipeError:
        # The reader closed the pipe.
        streams.drop_output()
        status = 0
    except OSError as error:
        message = _of_system(error)
        if message is None:
            raise
        status = _fail(message)
        if error.filename is None:
            streams.drop_output()
    sys.exit(status or 0)


def _of_system(error: OSError) -> str | None:
    """The message of an error caused by the state of the system; None for other errors."""
    if error.filename is None and "No usable temporary directory" in str(error):
        return (
            "Can't write to any folder for temporary files: set TMPDIR to one, or "
            "free some space in /tmp."
        )
    if error.errno == errno.ENAMETOOLONG:
        return f"The name {str(error.filename)[:100]}... is too long: choose a shorter one."
    if error.errno not in (
        *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
        *(errno.EROFS, errno.EACCES, errno.EIO),
    ):
        return None
    place = error.filename or "standard output"
    return f"Can't read or write {place}: {error.strerror}. Free some space or choose another."


def _fail(message: str) -> int:
    with contextlib.suppress(OSError):
        logging.flush()
    streams.complain(f"t2aux: error: {printable(message)}")
    return 1


def _parse_flags(argv: list[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except UnicodeDecodeError as error:  # Only a file is read here.
        message = "The file that --flagfile names is not UTF-8 text: save it as UTF-8."
        raise SettingError(message) from error
    except flags.UnrecognizedFlagError as error:
        names = [f"--{flag.name}" for flag in own_flags()]
        hint = did_you_mean(f"--{error.flagname}", names, "--help lists the flags.")
        raise SettingError(f"Unknown flag --{error.flagname}: {hint}") from error
    except (flags.Error, ValueError) as error:
        if "must have a value other than None" in str(error):
            name = re.split(r"[\s:=]", str(error).split("--")[1])[0]
            raise SettingError(f"--{name} must be given; --help describes it.") from error
        raise SettingError(_of_flag(str(error))) from error


def _of_flag(message: str) -> str:
    """Turns absl's message about an invalid flag into a sentence."""
    message = message.partition("\n")[0].removeprefix("ERROR:: ").rstrip(".")
    wrong = re.fullmatch(r"flag (--\w+=.*?): (.*)", message)
    if not wrong:
        return f"{message}."
    given, why = wrong.groups()
    if "Non-boolean" in why:
        why = "give true or false"
    elif match := re.match(r"invalid literal for int|could not convert string to float", why):
        why = f"give a {'whole ' if 'int' in match[0] else ''}number"
    return f"{given} can't be read: {why}."
