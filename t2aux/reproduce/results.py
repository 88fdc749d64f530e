"""The small JSON files with the results of rows, and summaries of them."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
import re
import statistics
import typing
from collections.abc import Iterable, Sequence
from typing import Any

import typeguard
from absl import logging

from t2aux import files
from t2aux.errors import FileError, ModelError, UserError
from t2aux.reproduce.rows import BUDGETS, flags_of_today

# The number of points of a training curve that are kept.
_POINTS = 30


@dataclasses.dataclass(frozen=True)
class Result:
    """The result of a row with one seed, finished or so far.

    Attributes:
        row: The row's id.
        budget: "smoke", "short", "medium" or "paper".
        seed: The seed of the run.
        accuracy: The accuracy on the test set after all `updates`, in [0, 1].
        test: (updates, accuracy) on the test set during training.
        train: (updates, accuracy) on the training set during the joint phase.
        updates: The number of training steps; for an unfinished row, those before its last
            evaluation.
        seconds: The time of these steps.
        pretraining: How many of the updates were before the last phase, which is the joint one.
        seconds_per_step: The median in the last phase.
        peak_mib: The peak memory of the training process in MiB; None if unknown.
        flags: The flags of `t2aux train`.
        of_budget: The settings of the budget's gin file at that time that differ from the paper's,
            by name. Results from before there were such files have them in their flags.
        stand_in: What replaced the paper's data set, or None.
        hardware: The hardware that it ran on.
        planned: The training steps of an unfinished row's whole schedule; None: it is finished.
    """

    row: str
    budget: str
    seed: int
    accuracy: float
    test: list[tuple[int, float]]
    train: list[tuple[int, float]]
    updates: int
    seconds: float
    flags: list[str]
    of_budget: dict[str, str] = dataclasses.field(default_factory=dict)
    pretraining: int = 0
    seconds_per_step: float | None = None
    peak_mib: float | None = None
    stand_in: str | None = None
    hardware: str | None = None
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    finished: str | None = None
    planned: int | None = None

    @property
    def parameters(self) -> dict[str, str]:
        """The gin parameters by name, including those of the budget."""
        matches = (re.fullmatch(r"--gin_param=([\w./]+) = (.*)", flag) for flag in self.flags)
        return {match[1]: match[2] for match in matches if match} | self.of_budget


_FIELDS = {field.name: field for field in dataclasses.fields(Result)}
_HINTS = typing.get_type_hints(Result)
_REQUIRED = {
    name
    for name, field in _FIELDS.items()
    if field.default is field.default_factory is dataclasses.MISSING
}


def _is_right(name: str, value: Any) -> bool:
    """Whether a value is valid for a field."""
    try:
        typeguard.check_type(
            value,
            _HINTS[name],
            collection_check_strategy=typeguard.CollectionCheckStrategy.ALL_ITEMS,
        )
    except typeguard.TypeCheckError:
        return False
    if name == "budget":
        return value in BUDGETS
    shares = {"accuracy": [value], "test": value, "train": value}.get(name, ())
    shares = [share[1] if isinstance(share, tuple) else share for share in shares]
    numbers = [value] if isinstance(value, (int, float)) else []
    return all(0 <= share <= 1 for share in shares) and all(0 <= n < math.inf for n in numbers)


def file_name(row: str, seed: int) -> str:
    """The name of a result's file."""
    return f"{row.replace('/', '__')}.seed{seed}.json"


def write(path: pathlib.Path, result: Result) -> None:
    """Writes a result. Raises UserError if it can't be written."""
    files.write_json(path, dataclasses.asdict(result))


def read(path: pathlib.Path) -> Result:
    """Reads a result. Raises UserError if the file is damaged or is not a result."""
    value = files.read_json(path, ModelError)
    if not isinstance(value, dict) or not value.keys() >= _REQUIRED or value.keys() - _FIELDS:
        raise ModelError(
            f"{path} is not a result of `t2aux reproduce`: remove it, or make it again with that "
            "command."
        )
    for name in ("test", "train"):
        if isinstance(value[name], list):
            value[name] = [tuple(p) if isinstance(p, list) else p for p in value[name]]
    for name, entry in value.items():
        if not _is_right(name, entry):
            raise ModelError(
                f"{path} is damaged: its {name!r} can't be {json.dumps(entry)[:60]}. Remove it, or "
                "make it again with `t2aux reproduce`."
            )
    value["flags"] = flags_of_today(value["flags"], value["row"].partition("/")[0])
    return Result(**value)


def read_all(directory: pathlib.Path) -> list[Result]:
    """Reads the results in a folder, or in rows/ of one or all budgets of `t2aux reproduce`.

    They include those of unfinished rows.

    Raises:
        UserError: There are no results, or one is damaged.
    """
    patterns = ("*.seed*.json", "rows/*.seed*.json", "*/rows/*.seed*.json")
    paths = next(filter(None, (sorted(directory.glob(pattern)) for pattern in patterns)), [])
    if not paths:
        raise FileError(
            f"Can't find results in {directory}: give the --output_dir of `t2aux reproduce`, "
            "or a folder of the JSON files in its rows/."
        )
    found = []
    for path in paths:
        try:
            found.append(read(path))
        except UserError as error:
            if not path.name.endswith(".part.json"):
                raise
            # It is written again when its row continues.
            logging.warning("%s", error)
    return found


def metrics(model_dir: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl, except for an incomplete last one."""
    path = model_dir / "metrics.jsonl"
    try:
        whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]
    except (OSError, ValueError) as error:
        raise FileError(f"Can't read {path}: {error}.") from error


def measured(lines: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The fields of a `Result` that come from metrics.jsonl.

    The time is that of the training steps only, without evaluations and interruptions. For a line
    without a rate (the first after a start), the median rate of its phase is used.
    """
    train = [line for line in lines if line["split"] == "train"]
    test = [(line["step"], line["accuracy"]) for line in lines if line["split"] == "test"]
    phases = [line.get("phase") for line in train]
    typical = {phase: _typical(train, phase) for phase in phases}
    ends = [0, *(line["step"] for line in train)]
    spent = [
        (line["step"] - before) / (line.get("steps_per_second") or typical[phase])
        for before, line, phase in zip(ends, train, phases, strict=False)
        if typical[phase]
    ]
    last = typical[phases[-1]]
    curve = [(line["step"], line["accuracy"]) for line in train if "accuracy" in line]
    return {
        "accuracy": test[-1][1],
        "test": thinned(test),
        "train": thinned(curve),
        "updates": train[-1]["step"],
        "seconds": sum(spent),
        "pretraining": ends[phases.index(phases[-1])],
        "seconds_per_step": 1 / last if last else None,
    }


def measured_so_far(lines: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The same for an unfinished run, up to its last evaluation; None before the first."""
    tests = [i for i, line in enumerate(lines) if line["split"] == "test"]
    known = lines[: tests[-1] + 1] if tests else []
    planned = [line["total_steps"] for line in known if "total_steps" in line]
    if not planned:
        return None
    # An evaluation need not immediately follow a line of training.
    return {**measured(known), "updates": known[-1]["step"], "planned": planned[-1]}


def _typical(train: Sequence[dict[str, Any]], phase: str | None) -> float | None:
    """A phase's median rate in steps per second."""
    rates = [
        line["steps_per_second"]
        for line in train
        if line.get("phase") == phase and line.get("steps_per_second")
    ]
    return statistics.median(rates) if rates else None


def thinned(points: list, count: int = _POINTS) -> list:
    """Selects at most `count` of the points at even distances, including the last."""
    if len(points) <= count:
        return points
    return [points[round((i + 1) * len(points) / count) - 1] for i in range(count)]


@dataclasses.dataclass(frozen=True)
class Summary:
    """A summary of a row over its seeds.

    Attributes:
        runs: One run per seed: the finished ones or, if there are none, the most advanced one.
    """

    runs: list[Result]

    @property
    def finished(self) -> bool:
        """Whether the numbers are from complete schedules."""
        return all(run.planned is None for run in self.runs)

    @property
    def mean(self) -> float:
        """The mean accuracy in %."""
        return 100 * statistics.fmean(run.accuracy for run in self.runs)

    @property
    def spread(self) -> float | None:
        """The sample standard deviation of the accuracies, in points; None with one seed."""
        if len(self.runs) < 2:
            return None
        return 100 * statistics.stdev(run.accuracy for run in self.runs)

    @property
    def minutes(self) -> float:
        """The mean training time of a seed in minutes."""
        return statistics.fmean(run.seconds for run in self.runs) / 60

    @property
    def seconds_per_step(self) -> float | None:
        """The mean of the seeds' medians in the joint phase; None if unknown."""
        known = [run.seconds_per_step for run in self.runs if run.seconds_per_step]
        return statistics.fmean(known) if known else None

    @property
    def peak_mib(self) -> float | None:
        """The largest peak memory of a seed in MiB; None if unknown."""
        return max((run.peak_mib for run in self.runs if run.peak_mib), default=None)

    def curve(self, split: str) -> dict[int, float]:
        """The mean accuracy in % on "train" or "test" by updates of the joint phase."""
        return {x: statistics.fmean(ys) for x, ys in self._points(split).items()}

    def curve_spread(self, split: str) -> dict[int, float]:
        """The curve's sample standard deviations in points; empty with one seed."""
        points = self._points(split) if len(self.runs) > 1 else {}
        return {x: statistics.stdev(ys) for x, ys in points.items()}

    def _points(self, split: str) -> dict[int, list[float]]:
        """The accuracies of all seeds in %, at updates that all seeds have."""
        points: dict[int, list[float]] = {}
        for run in self.runs:
            for updates, accuracy in getattr(run, split):
                points.setdefault(updates - run.pretraining, []).append(100 * accuracy)
        return {x: ys for x, ys in points.items() if len(ys) == len(self.runs)}


def by_row(results: Iterable[Result], budget: str) -> dict[str, Summary]:
    """The rows of a budget, by id.

    Raises:
        UserError: A row's seeds were trained with different settings, so that a mean would be
            meaningless.
    """
    runs: dict[str, list[Result]] = {}
    for result in results:
        if result.budget == budget:
            runs.setdefault(result.row, []).append(result)
    for row, some in runs.items():
        settings = [_compared(run) for run in some]
        for run, other in zip(some[1:], settings[1:], strict=True):
            if other != settings[0]:
                raise ModelError(
                    f"{row} was trained with other settings for seed {run.seed} than for seed "
                    f"{some[0].seed} ({', '.join(sorted(other ^ settings[0]))}): report on them "
                    "separately, or train one again."
                )
    return {row: Summary(_counted(some)) for row, some in runs.items()}


def _counted(runs: Sequence[Result]) -> list[Result]:
    """The runs of a row that its numbers are computed from."""
    finished = [run for run in runs if run.planned is None]
    if finished:
        return sorted(finished, key=lambda run: run.seed)
    # A mean over different numbers of updates would be meaningless.
    return [max(runs, key=lambda run: run.updates)]


def _compared(run: Result) -> set[str]:
    """The settings that must be the same for all seeds of a row, however the budget was given."""
    files = {f for f in run.flags if f.startswith("--gin_file=") and "=budgets/" not in f}
    return files | {
        f"{name} = {value}"
        for name, value in run.parameters.items()
        # How often a run was logged and evaluated does not affect the result.
        if name not in ("SEED", "train.evaluate_every") and not name.startswith("RunConfig.")
    }
