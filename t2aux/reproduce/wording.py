"""The names, number formats and data sets of the report."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Hashable, Iterable, Mapping

from t2aux.reproduce.experiments import EXPERIMENTS, Cell, Experiment
from t2aux.reproduce.results import Result, Summary

MISSING = "–"
_MINUS = "−"

Rows = Mapping[str, Summary]


@dataclasses.dataclass(frozen=True)
class DataSet:
    """A data set of the paper.

    Attributes:
        title: The name.
        chance: A clause on the result of guessing.
        epochs: The paper's epochs of pretraining and joint training; None if unknown.
        examples: The number of training examples.
        test: The number of test examples; for StanfordDogs, those of the public test set.
    """

    title: str
    chance: str
    epochs: int | None
    examples: int
    test: int


_TEN = "guessing among ten classes gets 10 %"
# In the paper's order.
DATA_SETS = {
    "mnist": DataSet("MNIST", f"{_TEN}, answering always “1” 11.35 %", 1100, 60_000, 10_000),
    "pmnist": DataSet("pMNIST", f"{_TEN}, answering always “1” 11.35 %", 1100, 60_000, 10_000),
    "cifar10": DataSet("CIFAR10", _TEN, 1100, 50_000, 10_000),
    "stanford_dogs": DataSet(
        "StanfordDogs", "guessing among 120 breeds gets 0.83 %", 120, 150_000, 8_580
    ),
    "dbpedia": DataSet(
        "DBpedia", "guessing among 14 classes errs in 92.86 %", None, 560_000, 70_000
    ),
}
PAPER_BATCH = 128
# How the ids of rows begin after the data set, longest first, and the names of their models.
_MODELS = {
    "transformer": "the Transformer's",
    "rp_lstm": "rp-LSTM",
    "lm_lstm": "LM-LSTM",
    "sa_lstm": "SA-LSTM",
    "r_lstm": "r-LSTM",
    "p_lstm": "p-LSTM",
    "lstm": "the LSTM's",
}


@dataclasses.dataclass(frozen=True)
class StandIn:
    """Data that replaces a data set of the paper.

    Attributes:
        title: A short name for a column.
        text: A description.
        chance: A clause on the result of guessing.
        test: The number of test examples; None if unknown.
    """

    title: str
    text: str
    chance: str
    test: int | None = None


STAND_INS = {
    "digits": StandIn(
        "digits", "scikit-learn's 8 x 8 digits, resized where the row has a side", _TEN, 359
    ),
    "docstrings": StandIn("docstrings", "docstrings of Python's standard library, by package", ""),
    "debian_sections": StandIn(
        "Debian sections",
        "descriptions of Debian packages, by section (14 classes, 22,921 training texts; 1,400 "
        "test texts, 100 of each class)",
        "guessing among 14 classes errs in 92.86 %",
        1_400,
    ),
}


def number(value: float, digits: int = 1) -> str:
    """Formats a number with a typographic minus sign."""
    return f"{value:,.{digits}f}".replace("-", _MINUS)


def signed(value: float, digits: int = 1) -> str:
    """Formats a difference with its sign."""
    return f"{value:+,.{digits}f}".replace("-", _MINUS)


def percent(share: float) -> str:
    """Formats a share of 1 in percent, with two digits."""
    value = 100 * share
    return f"{value:.0f} %" if value >= 10 else f"{value:.2g} %"


def listed(texts: Iterable[str], last: str = "and") -> str:
    """Formats a list in words: "a, b and c"."""
    *others, end = texts
    return f"{', '.join(others)} {last} {end}" if others else end


def span(values: Iterable[int]) -> str:
    """Formats a range from the minimum to the maximum."""
    ends = sorted(values)
    return " to ".join(f"{value:,}" for value in dict.fromkeys((ends[0], ends[-1])))


def minutes(values: Iterable[float]) -> str:
    """Formats a range of minutes, such as "9 to 50 min"; large values are in hours."""
    values = sorted(values)
    unit, scale = ("h", 60) if values[0] >= 120 else ("min", 1)
    ends = list(dict.fromkeys(f"{value / scale:,.0f}" for value in (values[0], values[-1])))
    return f"{' to '.join(ends)} {unit}"


def stand_in(dataset: str, rows: Rows) -> StandIn | None:
    """The data that replaces a data set; None if it was not replaced or not trained on."""
    names = {run.stand_in for run in runs_of(dataset, rows) if run.stand_in}
    known = [STAND_INS.get(name, StandIn(name, name, "")) for name in sorted(names)]
    return known[0] if known else None


def title_of(dataset: str, rows: Rows) -> str:
    """A data set's name and, in brackets, that of its stand-in."""
    other, title = stand_in(dataset, rows), DATA_SETS[dataset].title
    return f"{title} ({other.title})" if other else title


def rows_of(dataset: str, rows: Rows) -> Rows:
    """The rows on a data set."""
    return {row: summary for row, summary in rows.items() if row.startswith(f"{dataset}/")}


def runs_of(dataset: str, rows: Rows) -> list[Result]:
    """All runs on a data set."""
    return [run for summary in rows_of(dataset, rows).values() for run in summary.runs]


def test_examples(run: Result) -> int | None:
    """The size of the test set; None if unknown."""
    known = STAND_INS.get(run.stand_in) if run.stand_in else DATA_SETS[run.row.partition("/")[0]]
    return known.test if known else None


def batch(run: Result) -> int:
    """The number of sequences per batch."""
    return int(run.parameters.get("BATCH_SIZE", PAPER_BATCH))


def sequences(run: Result) -> int:
    """The number of training sequences, with repetitions, of the whole schedule."""
    return (run.planned or run.updates) * batch(run)


def whose(rows: Iterable[str]) -> str:
    """The models of rows, from their ids, such as "r-LSTM and p-LSTM rows"."""
    kinds = [row.partition("/")[2] for row in rows]
    some = {next(m for prefix, m in _MODELS.items() if kind.startswith(prefix)) for kind in kinds}
    return f"{listed(name for name in _MODELS.values() if name in some)} rows"


def grouped(rows: Rows, key: Callable[[Summary], Hashable]) -> dict[Hashable, list[str]]:
    """The ids of rows grouped by the value of `key`, the most frequent value first."""
    groups: dict[Hashable, list[str]] = {}
    for row, summary in rows.items():
        groups.setdefault(key(summary), []).append(row)
    return dict(sorted(groups.items(), key=lambda group: -len(group[1])))


def merged(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Merges pairs of a title and a text: each text with a list of its titles."""
    titles: dict[str, list[str]] = {}
    for title, text in pairs:
        titles.setdefault(text, []).append(title)
    return [(text, listed(some)) for text, some in titles.items()]


def batch_sizes(dataset: str, rows: Rows) -> str:
    """The numbers of sequences per batch, such as "8 or 32"."""
    return listed(sorted({str(batch(run)) for run in runs_of(dataset, rows)}), "or")


def batches(dataset: str, rows: Rows) -> tuple[int, str]:
    """Sequences per batch of most rows, and others as " (8 in the Transformer's rows)"."""
    some = rows_of(dataset, rows)
    (size, _), *others = grouped(some, lambda summary: batch(summary.runs[0])).items()
    others = [f"{other} in {whose(whom)}" for other, whom in others]
    return size, f" ({listed(others)})" if others else ""


def title(experiment: Experiment) -> str:
    """The number in the paper, such as "Table 2", or the name of our own experiment."""
    kind, number = re.fullmatch("([a-z]+)([0-9]*)", experiment.name).groups()
    return f"{kind.capitalize()} {number}".rstrip()


def label(cell: Cell) -> str:
    """The name of a cell's row, as in its tables."""
    if cell.column in DATA_SETS or cell.column in ("lost", "accuracy"):
        return cell.line
    if isinstance(cell.column, str):
        return f"r-LSTM {cell.column}, supervised BPTT {cell.line}"
    if cell.row and cell.row.side is not None:
        return f"{cell.line}, length {cell.column:,}"
    return f"{cell.line}, supervised BPTT {cell.column} step{'s' * (cell.column != 1)}"


def names() -> dict[str, str]:
    """The name of every row by id, with the first table or figure that contains it."""
    found: dict[str, str] = {}
    for experiment in EXPERIMENTS.values():
        for cell in experiment.cells:
            if cell.row:
                found.setdefault(cell.row.id, f"{label(cell)} ({title(experiment)})")
    return found
