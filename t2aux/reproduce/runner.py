"""Trains the rows of an experiment, each in its own run directory and only once."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import importlib.metadata
import json
import os
import pathlib
import platform
import queue
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from absl import logging

import t2aux
from t2aux import exit_status, files
from t2aux.errors import ModelError, SettingError, UserError
from t2aux.reproduce import dependent, documents, recipes, results, rows
from t2aux.reproduce.rows import Configuration, Row
from t2aux.training import stopping

# Seconds between checks of a row's process, and between log lines about it.
_POLL_SECONDS, _LOG_SECONDS = 0.2, 30.0
# Seconds for a row's process of an earlier, killed command to save its state.
_SAVE_SECONDS = 60.0


@dataclasses.dataclass(frozen=True)
class Job:
    """A row with a seed.

    Attributes:
        row: The row.
        seed: The seed of the run.
        configuration: The configuration of `t2aux train`.
        stand_in: The stand-in for the paper's data, or None.
        model_dir: The run directory.
        result: The JSON file that is written at the end.
    """

    row: Row
    seed: int
    configuration: Configuration
    stand_in: str | None
    model_dir: pathlib.Path
    result: pathlib.Path

    @property
    def name(self) -> str:
        """The name in the log."""
        return f"{self.row.id} seed {self.seed}"

    @property
    def part(self) -> pathlib.Path:
        """The JSON file with the result so far, until the row is done."""
        return self.result.with_suffix(".part.json")

    def command(self) -> str:
        """The command line that trains the row."""
        flags = [f"--model_dir={self.model_dir}", *self.configuration.flags()]
        return shlex.join(["t2aux", "train", *flags])


class Runner:
    """Runs jobs, optionally in parallel, and stops all on SIGTERM, SIGHUP and Ctrl-C.

    Attributes:
        signal: The first signal that was received, or None.
    """

    def __init__(self, output_dir: pathlib.Path, budget: str, parallel: int) -> None:
        """Stores the arguments.

        Args:
            output_dir: The folder in which BUDGET/ is created.
            budget: One of rows.BUDGETS.
            parallel: The number of rows to train at once.
        """
        self._root = output_dir / budget
        self._budget = budget
        self._parallel = parallel
        self._recipes: dict[Job, recipes.Recipe] = {}
        self._stopping = threading.Event()
        self.signal: int | None = None

    def jobs(self, chosen: Sequence[Row], seeds: Sequence[int], data_dir: str | None) -> list[Job]:
        """The jobs for rows and seeds, including those already done.

        Raises:
            UserError: A row was already trained with other settings.
        """
        texts = self._root / "documents"
        jobs = []
        for row in chosen:
            _, stand_in = rows.data_source(row, self._budget, data_dir)
            for seed in seeds:
                configured = rows.configuration(row, self._budget, data_dir, seed, str(texts))
                job = Job(
                    row,
                    seed,
                    configured,
                    stand_in,
                    self._root / row.id / f"seed{seed}",
                    self._root / "rows" / results.file_name(row.id, seed),
                )
                jobs.append(job)
        self._check(jobs)
        return jobs

    def _check(self, jobs: Sequence[Job]) -> None:
        """Raises UserError if a row was trained, or begun, with other settings."""
        made: list[tuple[Job, pathlib.Path, Configuration]] = []
        for job in jobs:
            command = job.model_dir / "command.json"
            if job.result.is_file():
                result = results.read(job.result)
                settings = recipes.of_flags(result.flags, result.of_budget)
                made.append((job, job.result, settings))
            if command.is_file():
                flags = rows.flags_of_today(_read(command)["flags"], job.row.dataset)
                made.append((job, command, recipes.of_flags(flags)))
        before = [configuration for _, _, configuration in made]
        found = self._read_recipes([job for job, _, _ in made], before)
        for (job, path, _), recipe in zip(made, found, strict=True):
            if recipe.in_effect != self._recipes[job].in_effect:
                raise ModelError(
                    f"{path} belongs to {job.row.id} with other settings: give another "
                    f"--output_dir, or remove {job.model_dir}, {job.result} and {job.part}."
                )

    def _read_recipes(
        self, jobs: Sequence[Job], others: Sequence[Configuration] = ()
    ) -> list[recipes.Recipe]:
        """Stores the recipes of jobs and returns those of others, in one call to save time."""
        new = [job for job in dict.fromkeys(jobs) if job not in self._recipes]
        found = recipes.read([*(job.configuration for job in new), *others])
        for job, recipe in zip(new, found, strict=False):
            if recipe.error:
                raise SettingError(f"{job.name}: {recipe.error}")
            self._recipes[job] = recipe
        return found[len(new) :]

    def run(self, jobs: Sequence[Job]) -> bool:
        """Trains the rows that are not done.

        Returns:
            Whether all rows are done; False after a signal, when the rows so far are saved.

        Raises:
            UserError: Rows failed; the others are done.
        """
        todo = [job for job in jobs if not job.result.is_file()]
        logging.info("%d of %d rows are done already.", len(jobs) - len(todo), len(jobs))
        files.ensure_directory(self._root / "rows")
        log = self._root / "workers.log" if self._budget == "smoke" else None
        if self._budget == "smoke" and any(job.row.dataset == "dbpedia" for job in todo):
            documents.write(files.ensure_directory(self._root / "documents"))
        self._read_recipes(todo)
        places = {job: f"row {jobs.index(job) + 1} of {len(jobs)}" for job in todo}
        failed: dict[Job, str] = {}
        with (
            stopping.handled(self._stop),
            _workers(log, min(self._parallel, len(todo))) as workers,
            concurrent.futures.ThreadPoolExecutor(self._parallel) as pool,
        ):
            waiting = {pool.submit(self._train, job, places[job], workers): job for job in todo}
            try:
                for done in concurrent.futures.as_completed(waiting):
                    try:
                        done.result()
                    except UserError as error:
                        failed[waiting[done]] = str(error)
                        logging.error("%s failed: %s", waiting[done].name, error)
            except BaseException:
                self._stopping.set()
                raise
        if self._stopping.is_set():
            return False
        if failed:
            raise ModelError(
                f"{len(failed)} of {len(jobs)} rows failed, the others are done: "
                + " ".join(f"{job.name}: {why}" for job, why in failed.items())
            )
        return True

    def _train(self, job: Job, place: str, workers: queue.Queue[_Worker | None]) -> None:
        """Trains a row. Raises UserError if it fails, or can't be read or written."""
        if self._stopping.is_set():
            return
        files.ensure_directory(job.model_dir)
        flags, command = job.configuration.flags(), job.model_dir / "command.json"
        # The maximum over all sessions, if the row was stopped in between.
        peak = _read(command).get("peak_mib") if command.is_file() else None
        files.write_json(command, {"flags": flags, "peak_mib": peak})
        logging.info("%s  %s", place, job.name)
        worker = workers.get()
        try:
            if worker is not None:
                why = worker.train(job)
            else:
                why, used = self._train_alone(job, place, peak)
                peak = max(used, peak or 0)
                files.write_json(command, {"flags": flags, "peak_mib": peak})
        finally:
            workers.put(worker)
        if why or self._stopping.is_set():
            self._write_part(job, peak)
            if why:
                raise UserError(why)
            return
        measured = results.measured(results.metrics(job.model_dir))
        result = self._result(job, peak, finished=time.strftime("%Y-%m-%d"), **measured)
        results.write(job.result, result)
        job.part.unlink(missing_ok=True)
        logging.info(
            "%s  %s  done: test accuracy %.2f %% after %d updates, %.0f s",
            place,
            job.name,
            100 * result.accuracy,
            result.updates,
            result.seconds,
        )

    def _result(self, job: Job, peak: float | None, **measured: Any) -> results.Result:
        return results.Result(
            row=job.row.id,
            budget=self._budget,
            seed=job.seed,
            # Without the data's folder, which may change or be private.
            flags=[f for f in job.configuration.flags() if not f.startswith("--data_dir=")],
            of_budget=self._recipes[job].of_budget,
            peak_mib=peak,
            stand_in=job.stand_in,
            hardware=hardware(),
            versions={
                "t2aux": t2aux.__version__,
                "commit": commit(),
                "tensorflow": importlib.metadata.version("tensorflow"),
                "python": platform.python_version(),
            },
            **measured,
        )

    def _write_part(self, job: Job, peak: float | None) -> None:
        """Writes the result of a row so far, if it has been evaluated."""
        if not (job.model_dir / "metrics.jsonl").is_file():
            return
        try:
            measured = results.measured_so_far(results.metrics(job.model_dir))
            if measured is not None:
                results.write(job.part, self._result(job, peak, **measured))
        except UserError as error:
            # Only the report needs it: the row itself continues or reports its own error.
            logging.warning("%s  its progress is unknown: %s", job.name, error)

    def _train_alone(self, job: Job, place: str, peak: float | None) -> tuple[str | None, float]:
        """Trains a row in its own process. Returns why it failed or None, and its peak MiB.

        Args:
            job: The row.
            place: The place of the row among the others, for the log.
            peak: The peak memory of earlier sessions in MiB, for the results so far.
        """
        log = job.model_dir / "stderr.log"
        self._wait_for_predecessor(job)
        command = dependent.command("train", f"--model_dir={job.model_dir}")
        with log.open("w") as stderr:
            process = subprocess.Popen(
                command + job.configuration.flags(),
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
            )
            logged, terminated = time.monotonic(), False
            while True:
                pid, status, usage = os.wait4(process.pid, os.WNOHANG)
                if pid:
                    process.returncode = os.waitstatus_to_exitcode(status)
                    break
                if self._stopping.is_set() and not terminated:
                    terminated = True
                    process.terminate()
                if time.monotonic() - logged > _LOG_SECONDS:
                    logged = time.monotonic()
                    logging.info("%s  %s  %s", place, job.name, _last_line(log))
                    self._write_part(job, peak)
                time.sleep(_POLL_SECONDS)
        peak = usage.ru_maxrss / 1024
        stopped = process.returncode == exit_status.STOPPED and self._stopping.is_set()
        if process.returncode == 0 or stopped:
            return None, peak
        return f"status {process.returncode}: {_last_line(log)}", peak

    def _wait_for_predecessor(self, job: Job) -> None:
        """Waits a while for the process of a killed command, which may still be saving."""
        until = time.monotonic() + _SAVE_SECONDS
        while time.monotonic() < until and not self._stopping.is_set():
            with contextlib.suppress(UserError), files.locked(job.model_dir):
                return
            time.sleep(_POLL_SECONDS)

    def _stop(self, number: int, *_: object) -> None:
        """Handles a signal: rows in progress are saved, and no others begin."""
        self.signal = self.signal or number
        self._stopping.set()


class _Worker:
    """A process that trains several rows in sequence, because starting it dominates small rows."""

    def __init__(self, log: pathlib.Path) -> None:
        self._log = log
        self._process = self._start()

    def _start(self) -> subprocess.Popen[str]:
        with self._log.open("a") as stderr:
            return subprocess.Popen(
                [sys.executable, "-m", "t2aux.reproduce.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,
                text=True,
            )

    def train(self, job: Job) -> str | None:
        """Trains a row; returns why it failed, or None. Signals wait for it, for some seconds."""
        if self._process.poll() is not None:
            # A row that has killed the process must not make the next ones fail.
            self._process = self._start()
        wanted = {"model_dir": str(job.model_dir), **dataclasses.asdict(job.configuration)}
        try:
            self._process.stdin.write(json.dumps(wanted) + "\n")
            self._process.stdin.flush()
            reply = self._process.stdout.readline()
        except BrokenPipeError:
            reply = ""
        if not reply:
            return f"its process died with status {self._process.wait()}; see {self._log}."
        return json.loads(reply)["error"]

    def close(self) -> None:
        """Ends the process."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()


@contextlib.contextmanager
def _workers(log: pathlib.Path | None, count: int) -> Iterator[queue.Queue[_Worker | None]]:
    """A queue of `count` workers with a common log; without a log, of None: one process per row."""
    made = [_Worker(log) if log is not None else None for _ in range(count)]
    waiting: queue.Queue[_Worker | None] = queue.Queue()
    for worker in made:
        waiting.put(worker)
    try:
        yield waiting
    finally:
        for worker in made:
            if worker is not None:
                worker.close()


def commit() -> str:
    """The commit of t2aux's checkout, with "-dirty" if files have changed; "" if there is none."""
    git = ["git", "-C", str(pathlib.Path(t2aux.__file__).parents[1])]
    # A package that is installed inside another repository is not tracked there.
    tracked = ["ls-files", "--error-unmatch", "t2aux/__init__.py"]
    described = ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        for command in (tracked, described):
            done = subprocess.run([*git, *command], capture_output=True, check=True, text=True)
    except (OSError, subprocess.CalledProcessError):  # git may not be installed.
        return ""
    return done.stdout.strip()


def hardware() -> str:
    """The processor and the cores that this process may use."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} core{'s' * (cores != 1)}"


def _read(path: pathlib.Path) -> dict[str, Any]:
    value = files.read_json(path, ModelError)
    flags = value.get("flags") if isinstance(value, dict) else None
    if not isinstance(flags, list) or not all(isinstance(flag, str) for flag in flags):
        raise ModelError(f"{path} is damaged: it should hold the flags of a run. Remove it.")
    return value


def _last_line(log: pathlib.Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1].removeprefix("t2aux: error: ") if lines else ""
