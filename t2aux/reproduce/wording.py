"""Names and numbers in the report, and its data sets."""

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
    """What the paper trains on.

    Attributes:
        title: Its name.
        chance: A clause on what guessing gets.
        epochs: The paper's, pretraining and joint; None: not known.
        examples: Its training set's.
        test: The test set's, of StanfordDogs the public one's.
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
# How rows' ids begin after the data set, longest first, and whose rows they are.
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
    """What was trained on instead.

    Attributes:
        title: Short, for a column.
        text: What it is.
        chance: What guessing gets.
        test: The test set's examples; None: not known.
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
    """With a proper minus sign."""
    return f"{value:,.{digits}f}".replace("-", _MINUS)


def signed(value: float, digits: int = 1) -> str:
    """A difference, with its sign."""
    return f"{value:+,.{digits}f}".replace("-", _MINUS)


def percent(share: float) -> str:
    """A share of 1, with two digits."""
    value = 100 * share
    return f"{value:.0f} %" if value >= 10 else f"{value:.2g} %"


def listed(texts: Iterable[str], last: str = "and") -> str:
    """In words: "a, b and c"."""
    *others, end = texts
    return f"{', '.join(others)} {last} {end}" if others else end


def span(values: Iterable[int]) -> str:
    """The least to the largest."""
    ends = sorted(values)
    return " to ".join(f"{value:,}" for value in dict.fromkeys((ends[0], ends[-1])))


def minutes(values: Iterable[float]) -> str:
    """A range of minutes: "9 to 50 min"; hours where they are many."""
    values = sorted(values)
    unit, scale = ("h", 60) if values[0] >= 120 else ("min", 1)
    ends = list(dict.fromkeys(f"{value / scale:,.0f}" for value in (values[0], values[-1])))
    return f"{' to '.join(ends)} {unit}"


def stand_in(dataset: str, rows: Rows) -> StandIn | None:
    """What was trained on instead of a data set; None: itself, or nothing was."""
    names = {run.stand_in for run in runs_of(dataset, rows) if run.stand_in}
    known = [STAND_INS.get(name, StandIn(name, name, "")) for name in sorted(names)]
    return known[0] if known else None


def title_of(dataset: str, rows: Rows) -> str:
    """A data set's name and, in brackets, what stood in for it."""
    other, title = stand_in(dataset, rows), DATA_SETS[dataset].title
    return f"{title} ({other.title})" if other else title


def rows_of(dataset: str, rows: Rows) -> Rows:
    """The rows on a data set."""
    return {row: summary for row, summary in rows.items() if row.startswith(f"{dataset}/")}


def runs_of(dataset: str, rows: Rows) -> list[Result]:
    """All runs on a data set."""
    return [run for summary in rows_of(dataset, rows).values() for run in summary.runs]


def test_examples(run: Result) -> int | None:
    """The size of the test set; None: not known."""
    known = STAND_INS.get(run.stand_in) if run.stand_in else DATA_SETS[run.row.partition("/")[0]]
    return known.test if known else None


def batch(run: Result) -> int:
    """Its sequences a batch."""
    return int(run.parameters.get("BATCH_SIZE", PAPER_BATCH))


def sequences(run: Result) -> int:
    """The training sequences, with repetitions, of its whole schedule."""
    return (run.planned or run.updates) * batch(run)


def whose(rows: Iterable[str]) -> str:
    """Whose rows they are, by their ids: "r-LSTM and p-LSTM rows"."""
    kinds = [row.partition("/")[2] for row in rows]
    some = {next(m for prefix, m in _MODELS.items() if kind.startswith(prefix)) for kind in kinds}
    return f"{listed(name for name in _MODELS.values() if name in some)} rows"


def grouped(rows: Rows, key: Callable[[Summary], Hashable]) -> dict[Hashable, list[str]]:
    """The ids of rows by what `key` says of them, the value of the most rows first."""
    groups: dict[Hashable, list[str]] = {}
    for row, summary in rows.items():
        groups.setdefault(key(summary), []).append(row)
    return dict(sorted(groups.items(), key=lambda group: -len(group[1])))


def merged(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Of pairs of a title and a text, each text with its titles, listed."""
    titles: dict[str, list[str]] = {}
    for title, text in pairs:
        titles.setdefault(text, []).append(title)
    return [(text, listed(some)) for text, some in titles.items()]


def batch_sizes(dataset: str, rows: Rows) -> str:
    """The numbers of sequences a batch: "8 or 32"."""
    return listed(sorted({str(batch(run)) for run in runs_of(dataset, rows)}), "or")


def batches(dataset: str, rows: Rows) -> tuple[int, str]:
    """Sequences a batch: most rows', and in brackets others': " (8 in the Transformer's rows)"."""
    some = rows_of(dataset, rows)
    (size, _), *others = grouped(some, lambda summary: batch(summary.runs[0])).items()
    others = [f"{other} in {whose(whom)}" for other, whom in others]
    return size, f" ({listed(others)})" if others else ""


def title(experiment: Experiment) -> str:
    """As the paper numbers it: "Table 2"; an experiment of ours by its name."""
    kind, number = re.fullmatch("([a-z]+)([0-9]*)", experiment.name).groups()
    return f"{kind.capitalize()} {number}".rstrip()


def label(cell: Cell) -> str:
    """A row's name, as in its tables."""
    if cell.column in DATA_SETS or cell.column in ("lost", "accuracy"):
        return cell.line
    if isinstance(cell.column, str):
        return f"r-LSTM {cell.column}, supervised BPTT {cell.line}"
    if cell.row and cell.row.side is not None:
        return f"{cell.line}, length {cell.column:,}"
    return f"{cell.line}, supervised BPTT {cell.column} step{'s' * (cell.column != 1)}"


def names() -> dict[str, str]:
    """Every row's name, by id, with the first table or figure that it is of."""
    found: dict[str, str] = {}
    for experiment in EXPERIMENTS.values():
        for cell in experiment.cells:
            if cell.row:
                found.setdefault(cell.row.id, f"{label(cell)} ({title(experiment)})")
    return found
