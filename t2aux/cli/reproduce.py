r"""Trains the rows of the paper's tables and figures, and writes the report.

EXPERIMENT is table2, table3, table4, table6, figure3, figure4, figure5, figure6, truncation or all.
Every row has its own run directory. Finished rows are not trained again, and a command that was
stopped by Ctrl-C or SIGTERM resumes when it is given again. At the end, OUTPUT_DIR/BUDGET/report
contains results.md and results.html.

Examples:
  t2aux reproduce all --output_dir=runs/paper --budget=smoke     (minutes; needs no data)
  t2aux reproduce table2 --output_dir=runs/paper --data_dir=data --rows=^mnist/
  t2aux reproduce table2 --list
"""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags, logging

from t2aux import exit_status, files
from t2aux.cli import common, next_steps
from t2aux.errors import FileError, SettingError, did_you_mean
from t2aux_ondevice import paths

if TYPE_CHECKING:
    from t2aux.reproduce.runner import Job

_BUDGETS = ["smoke", "short", "medium", "paper"]
_OUTPUT_DIR = common.define_path("output_dir", None, "Folder for all runs and results.")
_BUDGET = flags.DEFINE_enum(
    "budget",
    "short",
    _BUDGETS,
    "How much is run, a file of gin/budgets/: the paper's own schedule, a few percent of it, or "
    "seconds.",
)
_ROWS = flags.DEFINE_string(
    "rows", "", "Only rows whose name contains a match of this regular expression."
)
_SEEDS = flags.DEFINE_list("seeds", ["0"], "The seeds to train each row with.")
_JOBS = flags.DEFINE_integer("jobs", 1, "Number of rows to train at once.", lower_bound=1)
_LIST = flags.DEFINE_bool("list", False, "List the rows and their commands without training.")
common.define_data_dir()


def main(argv: Sequence[str]) -> int:
    """Runs the command. Returns the exit status."""
    from t2aux.reproduce import experiments, report, results, runner
    from t2aux.training import stopping

    # Its processes, from Python 3.11 on, don't import a folder t2aux of the working directory.
    os.environ["PYTHONSAFEPATH"] = "1"

    name = _experiment(argv[1:], experiments.EXPERIMENTS)
    try:
        chosen = [row for row in experiments.rows_of(name) if re.search(_ROWS.value, row.id)]
    except re.error as error:
        raise SettingError(f"--rows={_ROWS.value} is not a regular expression: {error}.") from error
    if not chosen:
        raise SettingError(f"No row of {name} matches --rows={_ROWS.value}: see --list for names.")
    seeds = common.whole_numbers("seeds", _SEEDS.value)
    data_dir = flags.FLAGS.data_dir
    if data_dir is None and os.environ.get("T2AUX_DATA_DIR"):
        data_dir = paths.local(os.environ["T2AUX_DATA_DIR"], "T2AUX_DATA_DIR")
    if data_dir is not None and not os.path.isdir(data_dir):
        raise FileError(f"{data_dir} is not a folder: check --data_dir and T2AUX_DATA_DIR.")
    if not (_OUTPUT_DIR.value or _LIST.value):
        raise SettingError("--output_dir must be given; --help describes it.")
    root = pathlib.Path(_OUTPUT_DIR.value or "RUNS")
    running = runner.Runner(root, _BUDGET.value, _JOBS.value)
    jobs = running.jobs(chosen, seeds, data_dir)
    if _LIST.value:
        for job in jobs:
            done = "done" if job.result.is_file() else "to do"
            print(f"{done:6}{job.name}")
            print(f"      {job.command()}")
        return 0
    with common.logged_to(files.ensure_directory(root) / "reproduce.log"):
        try:
            done = running.run(jobs)
        finally:
            if any(job.result.is_file() or job.part.is_file() for job in jobs):
                folder = root / _BUDGET.value
                made = report.write(results.read_all(folder / "rows"), folder / "report")
                logging.info("The report: %s", ", ".join(map(str, made)))
    if not done:
        logging.info("Stopped by %s; the same command continues.", stopping.name(running.signal))
        return exit_status.of_signal(running.signal)
    next_steps.show(*_next(argv[1], jobs[0]))
    return 0


def _next(experiment: str, job: Job) -> list[str]:
    """Suggests a look at a row and, unless the schedule was the paper's own, more updates."""
    commands = [next_steps.command("evaluate", model_dir=job.model_dir)]
    larger = _BUDGETS[_BUDGETS.index(_BUDGET.value) + 1 :]
    if larger:
        given = {"rows": _ROWS.value or None, "seeds": ",".join(_SEEDS.value)}
        given |= {"data_dir": flags.FLAGS.data_dir or "DATA", "jobs": _JOBS.value}
        commands.append(
            next_steps.command(
                f"reproduce {experiment}",
                budget=larger[0],
                output_dir=_OUTPUT_DIR.value,
                **given,
            )
        )
    return commands


def _experiment(arguments: Sequence[str], known: Sequence[str]) -> str:
    names = [*known, "all"]
    if len(arguments) != 1:
        raise SettingError(f"Name one experiment: {', '.join(names)}.")
    if arguments[0] not in names:
        hint = did_you_mean(arguments[0], names, f"there are {', '.join(names)}.")
        raise SettingError(f"Unknown experiment {arguments[0]!r}: {hint}")
    return arguments[0]
