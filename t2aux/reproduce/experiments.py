"""The experiments: the rows of each table and figure, and their places in it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from t2aux.reproduce import published
from t2aux.reproduce.rows import Row


@dataclasses.dataclass(frozen=True)
class Cell:
    """A cell of a table or a point of a figure.

    Attributes:
        line: The table's line or the figure's curve.
        column: The table's column or the figure's abscissa.
        row: The row that is trained for it; None: there is only a published number.
        published: The paper's number; None: there is only a measured number.
    """

    line: str
    column: str | int
    row: Row | None
    published: float | None


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A table or figure.

    Attributes:
        name: The name, such as "table2".
        title: The first sentence of the caption.
        measure: The kind of its numbers: "accuracy", "error" or "lost".
        cells: The cells, in order.
    """

    name: str
    title: str
    measure: str
    cells: list[Cell]

    @property
    def rows(self) -> list[Row]:
        """The rows that it trains, each once, in order."""
        return list(dict.fromkeys(cell.row for cell in self.cells if cell.row is not None))

    @property
    def lines(self) -> dict[str, list[Cell]]:
        """The cells of each line, by the line's name."""
        names = dict.fromkeys(cell.line for cell in self.cells)
        return {name: [cell for cell in self.cells if cell.line == name] for name in names}


_IMAGES = ("mnist", "pmnist", "cifar10")
# The names of rows in Tables 2 and 3 of the paper, and our rows.
_TABLE_2 = {
    "iRNN": ("iRNN", None),
    "uRNN": ("uRNN", None),
    "lstm_full": ("LSTM, full BPTT", {"model": "lstm", "full": True}),
    "lstm": ("LSTM, truncated 300", {"model": "lstm"}),
    "r_lstm": ("r-LSTM, truncated 300", {"model": "r_lstm"}),
    "p_lstm": ("p-LSTM, truncated 300", {"model": "p_lstm"}),
    "r_lstm_full": ("r-LSTM, full BPTT", {"model": "r_lstm", "full": True}),
    "p_lstm_full": ("p-LSTM, full BPTT", {"model": "p_lstm", "full": True}),
    "transformer": ("Transformer", {"model": "transformer"}),
}
_MODELS = {"lstm": "", "r_lstm": "r-", "p_lstm": "p-"}
# Lines that are not in the paper: is the auxiliary loss orthogonal to the architecture?
_OURS = [
    (f"{prefix}{title}, truncated 300", {"model": model, "core": core})
    for core, title in (
        ("lstm_chrono", "LSTM, chrono initialisation"),
        ("gru", "GRU"),
        ("mingru", "minGRU"),
    )
    for model, prefix in _MODELS.items()
]
_FULL = ("lstm_full", "r_lstm_full", "p_lstm_full", "transformer")


def _images(keys: Iterable[str]) -> list[Cell]:
    """The cells of Tables 2 and 3."""
    return [
        Cell(title, dataset, Row(dataset, **row) if row else None, published.TABLE_2[key][dataset])
        for key in keys
        for title, row in [_TABLE_2[key]]
        for dataset in _IMAGES
    ]


def _table2() -> list[Cell]:
    ours = [
        Cell(title, dataset, Row(dataset, **row), None)
        for title, row in _OURS
        for dataset in _IMAGES
    ]
    return _images(_TABLE_2) + ours


def _table4() -> list[Cell]:
    titles = {
        "lstm": "LSTM",
        "lm_lstm": "LM-LSTM",
        "sa_lstm": "SA-LSTM",
        "r_lstm": "r-LSTM 20x15",
        "p_lstm": "p-LSTM",
        "rp_lstm": "rp-LSTM 20x15",
    }
    return [
        Cell(title, "dbpedia", Row("dbpedia", model), published.TABLE_4.get(model))
        for model, title in titles.items()
    ]


def _table6() -> list[Cell]:
    cells = []
    for bptt, line in published.TABLE_6.items():
        for (n, length), value in line.items():
            # 1x600, the default of the data set, is the run of Figure 4.
            varied = {"anchors": n, "length": length} if n > 1 else {}
            row = Row("cifar10", "r_lstm", bptt=bptt, **varied)
            cells.append(Cell(f"{bptt} step{'s' * (bptt != 1)}", f"{n}x{length}", row, value))
    return cells


_FIGURE_3 = {
    "lstm_full": ("LSTM, full BPTT", {"model": "lstm", "full": True}),
    "transformer": ("Transformer", {"model": "transformer"}),
    "r_lstm": ("r-LSTM 1x600", {"model": "r_lstm"}),
    "r_lstm_20x30": ("r-LSTM 20x30", {"model": "r_lstm", "anchors": 20, "length": 30}),
    "p_lstm": ("p-LSTM", {"model": "p_lstm"}),
}


def _figure3() -> list[Cell]:
    return [
        Cell(title, side * side, Row("stanford_dogs", side=side, **row), value)
        for key, (title, row) in _FIGURE_3.items()
        for side in published.FIGURE_3_SIDES
        for value in [published.FIGURE_3_ACCURACY[key][side * side]]
        # The time of the Transformer is quadratic in the length.
        if key != "transformer" or value is not None
    ]


def _figure4() -> list[Cell]:
    titles = {"r_lstm": "r-LSTM", "p_lstm": "p-LSTM"}
    return [
        # 300 steps are the run of Table 2.
        Cell(title, steps, Row("cifar10", model, bptt=None if steps == 300 else steps), value)
        for model, title in titles.items()
        for steps, value in published.FIGURE_4[model].items()
    ]


# Our experiment: the paper varies the supervised BPTT only of r- and p-LSTM.
_TRUNCATIONS = (300, 100, 50, 1, 0)


def _truncation() -> list[Cell]:
    return [
        # 300 steps are the run of Table 2.
        Cell(
            f"{prefix}LSTM{initialisation}",
            steps,
            Row("mnist", model, core, bptt=None if steps == 300 else steps),
            None,
        )
        for core, initialisation in ((None, ""), ("lstm_chrono", ", chrono initialisation"))
        for model, prefix in _MODELS.items()
        for steps in _TRUNCATIONS
    ]


def _figure5() -> list[Cell]:
    return [
        Cell(_TABLE_2[key][0], updates, Row("cifar10", **_TABLE_2[key][1]), test)
        for key, line in published.FIGURE_5.items()
        for updates, (_, test) in line.items()
    ]


def _figure6() -> list[Cell]:
    cells = [Cell("full setting", "accuracy", Row("cifar10", "rp_lstm"), None)]
    for part, lost in published.FIGURE_6.items():
        # Without predicting the future, it is the r-LSTM of Table 2.
        row = Row("cifar10", "rp_lstm", off=part)
        if part == "predict future":
            row = Row("cifar10", "r_lstm")
        cells.append(Cell(f"without {part}", "lost", row, lost))
    return cells


EXPERIMENTS = {
    experiment.name: experiment
    for experiment in (
        Experiment("table2", "Test accuracy, %, on pixel sequences", "accuracy", _table2()),
        Experiment("table3", "Full BPTT and the Transformer, %", "accuracy", _images(_FULL)),
        Experiment("table4", "Test error, %, on documents by character", "error", _table4()),
        Experiment(
            "table6",
            "CIFAR10, r-LSTM: n x l at a constant product, by supervised BPTT",
            "accuracy",
            _table6(),
        ),
        Experiment(
            "figure3", "Accuracy, time and memory against the length", "accuracy", _figure3()
        ),
        Experiment("figure4", "CIFAR10: supervised BPTT length", "accuracy", _figure4()),
        Experiment(
            "truncation",
            "MNIST: supervised BPTT length, with and without the auxiliary loss",
            "accuracy",
            _truncation(),
        ),
        Experiment("figure5", "CIFAR10: accuracy against updates", "accuracy", _figure5()),
        Experiment("figure6", "CIFAR10: what each part contributes", "lost", _figure6()),
    )
}


def rows_of(name: str) -> list[Row]:
    """The rows of an experiment, or of all experiments for "all", each once."""
    names = EXPERIMENTS if name == "all" else [name]
    return list(dict.fromkeys(row for one in names for row in EXPERIMENTS[one].rows))
