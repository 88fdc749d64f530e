"""The small JSON that a finished row leaves, and what is read from many of them."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import statistics
from collections.abc import Iterable
from typing import Any

from t2aux import files
from t2aux.errors import UserError

# Points of a training curve that are kept.
_POINTS = 30
_KEYS = ("row", "budget", "seed", "accuracy", "test", "train", "updates", "seconds", "flags")


@dataclasses.dataclass(frozen=True)
class Result:
    """A finished row, of one seed.

    Attributes:
        row: The row's id.
        budget: "smoke", "short" or "paper".
        seed: Of the run.
        accuracy: On the test set at the end, in [0, 1].
        test: (updates, accuracy) along the way.
        train: (updates, accuracy) on the training set along the way; in the joint phase only.
        updates: Training steps in all.
        seconds: Spent on them.
        seconds_per_step: The median.
        peak_mib: Of the training process's memory, MiB; None: not known.
        flags: Of the `t2aux train` that made it.
        stand_in: What stood in for the paper's data set; None: nothing did.
        hardware: Where it ran.
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
    seconds_per_step: float | None = None
    peak_mib: float | None = None
    stand_in: str | None = None
    hardware: str | None = None
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    finished: str | None = None


def file_name(row: str, seed: int) -> str:
    """The name of a result's file."""
    return f"{row.replace('/', '__')}.seed{seed}.json"


def write(path: pathlib.Path, result: Result) -> None:
    """Writes a result. Raises UserError if it can't be."""
    files.write_json(path, dataclasses.asdict(result))


def read(path: pathlib.Path) -> Result:
    """Reads a result. Raises UserError where the file is damaged or none of ours."""
    value = files.read_json(path)
    known = {field.name for field in dataclasses.fields(Result)}
    if not isinstance(value, dict) or not set(_KEYS) <= value.keys() <= known:
        raise UserError(
            f"{path} is no result of `t2aux reproduce`: remove it, or make it anew with that "
            "command."
        )
    value["test"] = [tuple(point) for point in value["test"]]
    value["train"] = [tuple(point) for point in value["train"]]
    return Result(**value)


def read_all(directory: pathlib.Path) -> list[Result]:
    """The results in a folder, or in the rows/ folders of a `t2aux reproduce` output directory.

    Raises:
        UserError: There are none, or one is damaged.
    """
    paths = sorted(directory.glob("*.seed*.json")) or sorted(directory.glob("*/rows/*.seed*.json"))
    if not paths:
        raise UserError(
            f"There are no results in {directory}: give the --output_dir of `t2aux reproduce`, "
            "or a folder of the JSON files in its rows/."
        )
    return [read(path) for path in paths]


def metrics(model_dir: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl."""
    path = model_dir / "metrics.jsonl"
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise UserError(f"Can't read {path}: {error}.") from error


def measured(lines: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """A `Result`'s fields that come from metrics.jsonl.

    The time is that of the training steps alone, whenever they were run, evaluations and breaks not
    counted; where a line has no rate (the first after a start), the median one is taken.
    """
    train = [line for line in lines if line["split"] == "train"]
    test = [(line["step"], line["accuracy"]) for line in lines if line["split"] == "test"]
    steps = [b["step"] - a for a, b in zip([0, *(t["step"] for t in train)], train, strict=False)]
    rates = [line["steps_per_second"] for line in train if line.get("steps_per_second")]
    typical = statistics.median(rates) if rates else None
    spent = [
        n / (line.get("steps_per_second") or typical)
        for n, line in zip(steps, train, strict=True)
        if typical
    ]
    curve = [(line["step"], line["accuracy"]) for line in train if "accuracy" in line]
    return {
        "accuracy": test[-1][1],
        "test": thinned(test),
        "train": thinned(curve),
        "updates": train[-1]["step"],
        "seconds": sum(spent),
        "seconds_per_step": 1 / typical if typical else None,
    }


def thinned(points: list, most: int = _POINTS) -> list:
    """At most so many of the points, evenly chosen, the last among them."""
    if len(points) <= most:
        return points
    return [points[round((i + 1) * len(points) / most) - 1] for i in range(most)]


@dataclasses.dataclass(frozen=True)
class Summary:
    """A row over its seeds.

    Attributes:
        runs: One a seed.
    """

    runs: list[Result]

    @property
    def mean(self) -> float:
        """Of the accuracies, in %."""
        return 100 * statistics.fmean(run.accuracy for run in self.runs)

    @property
    def spread(self) -> float | None:
        """Their sample standard deviation, in points; None with one seed."""
        if len(self.runs) < 2:
            return None
        return 100 * statistics.stdev(run.accuracy for run in self.runs)

    @property
    def seconds(self) -> float:
        """The mean training time."""
        return statistics.fmean(run.seconds for run in self.runs)


def by_row(results: Iterable[Result], budget: str) -> dict[str, Summary]:
    """The rows of a budget, by id."""
    runs: dict[str, list[Result]] = {}
    for result in results:
        if result.budget == budget:
            runs.setdefault(result.row, []).append(result)
    return {row: Summary(sorted(some, key=lambda r: r.seed)) for row, some in runs.items()}
