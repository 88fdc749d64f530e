"""The runner of a pipeline, Beam's own options, and the reporting of workers' errors."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import logging as logging_library
import os
import pathlib
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence

import apache_beam as beam
from absl import logging
from apache_beam.options import pipeline_options
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.runners import runner as beam_runners

from t2aux import logs
from t2aux.errors import (
    KINDS,
    DependencyError,
    ServerError,
    SettingError,
    UserError,
    listing,
    nearest,
)
from t2aux.pipelines import storage
from t2aux.progress import Progress
from t2aux_ondevice import paths

_SECONDS_BETWEEN_REPORTS = 10.0
_ERRORS = "errors"
# The part number of errors in the output, which come after the errors in the data.
OF_OUTPUT = 99_999_999
# These runners know all of their options; the others get some from their cluster.
_CLOSED = ("direct", "fnapi", "dataflow")
_HERE = ("direct", "fnapi", "bundlebaseddirect")


@dataclasses.dataclass(frozen=True)
class Runner:
    """Where a pipeline runs.

    Attributes:
        name: Beam's name of the runner, such as "DirectRunner".
        options: Beam's own options, such as "--direct_num_workers=2".
    """

    name: str
    options: tuple[str, ...] = ()

    @property
    def is_here(self) -> bool:
        """Whether all of its processes are on this machine, in the same working directory."""
        return _short(self.name) in _HERE

    def place(self, path: str, what: str) -> str:
        """A path or URL for the workers. Paths are made absolute if workers are on other machines.

        Raises:
            UserError: It can't be a path; see `paths.local`.
        """
        if storage.is_url(path):
            return path
        path = paths.local(path, what)
        return path if self.is_here else str(pathlib.Path(path).absolute())

    def pipeline_options(self) -> PipelineOptions:
        """The options for Beam.

        Raises:
            UserError: The runner does not exist, or its requirements are not installed; or an
                option is unknown or has an invalid value.
        """
        names = [path.rpartition(".")[2] for path in StandardOptions.ALL_KNOWN_RUNNERS]
        if _short(self.name) not in map(_short, names):
            near = nearest(self.name, names)
            hint = f"did you mean {near}?" if near else f"give {listing(sorted(names), 20)}."
            raise SettingError(f"Beam has no runner {self.name!r}: {hint}")
        try:
            beam_runners.create_runner(self.name)
        except ImportError as error:
            raise DependencyError(
                f"The runner {self.name} can't be loaded ({error}): install what it needs."
            ) from error
        self._check()
        given = [f"--runner={self.name}", *self.options]
        if self.is_here and not logging.level_debug():
            # The logs of its processes would appear on this terminal.
            given.insert(0, "--default_sdk_harness_log_level=CRITICAL")
        options = PipelineOptions(given)
        try:
            # Raises an error that lists the options that the runner needs.
            beam.Pipeline(options=options)
        except ValueError as error:
            missing = [line.strip(" .") for line in str(error).splitlines()[1:]] or [str(error)]
            raise SettingError(
                f"{self.name} needs more of Beam's options, after --: {', '.join(missing)}."
            ) from error
        return options

    def _check(self) -> None:
        """Raises UserError for arguments that are not options of Beam."""
        for option in self.options:
            if not option.startswith("--"):
                raise SettingError(
                    f"{option!r} is not an option of Beam: write --name=value after --."
                )
            if option.partition("=")[0] == "--runner":
                raise SettingError("Give --runner before --, with the flags of t2aux.")
        unknown, known = unknown_options(self.options)
        if unknown and _short(self.name) in _CLOSED:
            near = nearest(unknown[0], known)
            hint = f"did you mean {near}?" if near else "correct what follows --."
            raise SettingError(f"Beam has no option {unknown[0]}: {hint}")


def unknown_options(options: Sequence[str]) -> tuple[list[str], list[str]]:
    """The names of the options that Beam does not know, and the names of all that it knows.

    Raises:
        UserError: An option has an invalid value.
    """
    parser = pipeline_options._BeamArgumentParser(allow_abbrev=False)
    parser.exit_on_error = False
    for kind in PipelineOptions.__subclasses__():
        kind._add_argparse_args(parser)
    try:
        with contextlib.redirect_stderr(None):
            _, unknown = parser.parse_known_args(list(options))
    except (SystemExit, argparse.ArgumentError, ValueError) as error:
        why = "" if isinstance(error, SystemExit) else f" ({error})"
        raise SettingError(
            f"Beam can't read its options {' '.join(options)}{why}: correct what follows --."
        ) from error
    known = [flag for action in parser._actions for flag in action.option_strings]
    return [option.partition("=")[0] for option in unknown], known


def _short(name: str) -> str:
    """A runner's name without its optional parts."""
    return name.lower().removesuffix("runner")


def run(
    runner: Runner,
    build: Callable[[beam.Pipeline], None],
    folder: str,
    progress: Callable[[], None],
) -> None:
    """Builds a pipeline, runs it and waits until it ends.

    Args:
        runner: The runner of the pipeline.
        build: Adds the steps.
        folder: The folder for temporary files, in which `failing` stores errors.
        progress: Called every few seconds until the end.

    Raises:
        UserError: The pipeline failed. If several workers failed, the error of the first part of
            the data is reported, as on one machine.
    """
    options = runner.pipeline_options()
    storage.make_folder(storage.join(folder, _ERRORS))
    pipeline = beam.Pipeline(options=options)
    build(pipeline)
    ended = threading.Event()

    def report() -> None:
        while not ended.wait(_SECONDS_BETWEEN_REPORTS):
            progress()

    reporter = threading.Thread(target=report, name="t2aux-progress", daemon=True)
    reporter.start()
    try:
        with _quiet(runner):
            result = pipeline.run()
            state = result.wait_until_finish()
    except Exception as error:
        raise _reported(folder) or ServerError(
            f"The pipeline failed on {runner.name}: {_last_line(error)} Give the same command "
            "again, or look at the runner's logs."
        ) from error
    finally:
        ended.set()
        reporter.join()
    if state not in (None, beam.runners.runner.PipelineState.DONE):
        raise _reported(folder) or ServerError(
            f"The pipeline ended as {state} on {runner.name}: look at the runner's logs, and give "
            "the same command again."
        )


@contextlib.contextmanager
def failing(folder: str, part: int, number: int = 0) -> Iterator[None]:
    """Stores a user's error and its position in the data for `run`, before the worker fails.

    The runner may retry according to its own options, for example until a server is back.
    """
    try:
        yield
    except UserError as error:
        name = f"{part:08}-{number:010}-{uuid.uuid4().hex[:8]}.json"
        # If the file can't be written, the error itself still says what failed.
        with contextlib.suppress(UserError):
            content = json.dumps([type(error).__name__, str(error)]).encode()
            storage.write(storage.join(folder, _ERRORS, name), content)
        raise


def _reported(folder: str) -> UserError | None:
    """The error of the first part of the data among those stored by workers."""
    found = storage.matching(storage.join(folder, _ERRORS, "*"))
    if not found:
        return None
    kind, message = json.loads(storage.read(found[0]))
    return KINDS.get(kind, UserError)(message)


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    last = lines[-1] if lines else type(error).__name__
    return last if last.endswith((".", "!")) else f"{last}."


@contextlib.contextmanager
def _quiet(runner: Runner) -> Iterator[None]:
    """Keeps the output of Beam and its local processes off the terminal.

    An error of a worker is then reported only once, as a sentence. Has no effect with
    --verbosity=1.
    """
    if not runner.is_here or logging.level_debug():
        yield
        return
    handler = logging.get_absl_handler()
    logger = logging_library.getLogger("apache_beam")
    level = logger.level
    with contextlib.ExitStack() as stack:
        try:
            saved = os.dup(2)
        except OSError:  # Standard error is closed.
            saved = None
        if saved is not None:
            stack.callback(os.close, saved)
            # This program's own log is still shown.
            own = stack.enter_context(os.fdopen(os.dup(saved), "w", errors="backslashreplace"))
            nowhere = stack.enter_context(open(os.devnull, "wb"))
            os.dup2(nowhere.fileno(), 2)
            stack.callback(os.dup2, saved, 2)
            handler.python_handler.setStream(own)
            stack.callback(lambda: handler.python_handler.setStream(sys.stderr))
        handler.addFilter(logs.is_only_ours)
        stack.callback(handler.removeFilter, logs.is_only_ours)
        logger.setLevel(logging_library.CRITICAL)
        stack.callback(logger.setLevel, level)
        yield


def progress(
    pattern: str, what: str, total: int | Callable[[int], int | None]
) -> Callable[[], None]:
    """Returns a function that logs the progress, based on the names of the temporary files.

    The workers of any runner write these files, so the runner's metrics are not needed.

    Args:
        pattern: The pattern of the files; `count_of` parses their names.
        what: The unit that is counted.
        total: See `Progress`.
    """
    shown = Progress(what, total, every_seconds=0)

    def log() -> None:
        # If the files can't be listed now, they will be next time.
        with contextlib.suppress(UserError):
            shown.update(sum(dict(map(count_of, storage.matching(pattern))).values()))

    return log


def file_name(part: int, number: int, count: int) -> str:
    """A new name for a temporary file, with its part of the data, its block and its count."""
    return f"{part:08}-{number:010}-{count}-{uuid.uuid4().hex[:12]}"


def count_of(path: str) -> tuple[str, int]:
    """The part and block, and the count, in a name made by `file_name`."""
    part, number, count, _ = path.replace("\\", "/").rpartition("/")[2].split("-")
    return f"{part}-{number}", int(count)
