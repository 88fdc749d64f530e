"""All numbers that the paper publishes, by table and figure.

Trinh, Dai, Luong and Le, "Learning Longer-term Dependencies in RNNs with Auxiliary Losses", ICML
2018. Accuracies and errors are in %, times in seconds per training batch of 128. The numbers of
figures were read off plots, with the accuracy in `FIGURE_ERROR`.
"""

from __future__ import annotations

# Tables 2 and 3: test accuracy. None: not published.
TABLE_2: dict[str, dict[str, float | None]] = {
    "iRNN": {"mnist": 97.0, "pmnist": 82.0, "cifar10": None},
    "uRNN": {"mnist": 95.1, "pmnist": 91.4, "cifar10": None},
    "lstm_full": {"mnist": 98.3, "pmnist": 89.4, "cifar10": 58.8},
    "lstm": {"mnist": 11.3, "pmnist": 88.8, "cifar10": 49.0},
    "r_lstm": {"mnist": 96.4, "pmnist": 92.8, "cifar10": 65.9},
    "p_lstm": {"mnist": 95.4, "pmnist": 92.5, "cifar10": 64.7},
    "r_lstm_full": {"mnist": 98.4, "pmnist": 95.2, "cifar10": 72.2},
    "p_lstm_full": {"mnist": 98.0, "pmnist": 92.8, "cifar10": 67.6},
    "transformer": {"mnist": 98.9, "pmnist": 97.9, "cifar10": 62.2},
}

# Table 4: test error on DBpedia, characters, truncated 100.
TABLE_4: dict[str, float] = {"lm_lstm": 4.04, "sa_lstm": 3.89, "r_lstm": 3.84, "p_lstm": 2.85}

# Table 6: accuracy on CIFAR10 by supervised BPTT steps and (n, l).
_ANCHORS = ((1, 600), (10, 60), (20, 30), (50, 12), (100, 6), (200, 3))
TABLE_6: dict[int, dict[tuple[int, int], float]] = {
    1: dict(zip(_ANCHORS, (46.0, 46.0, 48.0, 47.7, 47.2, 46.2), strict=True)),
    0: dict(zip(_ANCHORS, (37.4, 40.6, 41.6, 41.0, 40.1, 37.9), strict=True)),
}

# The sides of StanfordDogs images; the lengths of sequences are their squares.
FIGURE_3_SIDES = (40, 48, 56, 72, 80, 96, 112, 128)
_LENGTHS = tuple(side * side for side in FIGURE_3_SIDES)


def _by_length(*values: float | None) -> dict[int, float | None]:
    return dict(zip(_LENGTHS, values, strict=True))


# Figure 3: accuracy by length. None: no point in the plot, presumably out of memory.
FIGURE_3_ACCURACY: dict[str, dict[int, float | None]] = {
    "lstm_full": _by_length(3.80, 2.92, 2.12, 1.45, 1.87, 1.07, 1.03, None),
    "transformer": _by_length(11.81, 10.34, 6.81, 4.39, 2.88, 1.91, None, None),
    "r_lstm": _by_length(6.77, 6.23, 5.85, 4.93, 4.88, 4.01, 3.34, 3.67),
    "r_lstm_20x30": _by_length(10.46, 9.80, 9.00, 8.87, 8.23, 7.31, 5.02, 4.88),
    "p_lstm": _by_length(6.48, 6.82, 5.75, 6.48, 4.19, 4.59, 2.96, 2.10),
}

# Figure 3: seconds per training batch of 128, on the authors' hardware. The point at 2,304 was not
# read off.
FIGURE_3_SECONDS: dict[str, dict[int, float | None]] = {
    "r_lstm": _by_length(2.05, None, 3.0, 5.1, 4.1, 4.5, 6.0, 7.0),
    "r_lstm_20x30": _by_length(0.96, None, 1.44, 2.17, 3.86, 4.34, 4.58, 6.76),
    "p_lstm": _by_length(2.89, None, 4.34, 3.62, 4.83, 4.83, 6.16, 8.09),
    "lstm_full": _by_length(3.50, None, 5.79, 10.14, 12.32, 19.09, 26.46, None),
}

# Figure 4: accuracy on CIFAR10 by supervised BPTT steps.
FIGURE_4: dict[str, dict[int, float]] = {
    "r_lstm": {300: 65.9, 200: 63.0, 100: 60.5, 50: 57.6, 1: 46.0, 0: 37.4},
    "p_lstm": {300: 64.7, 200: 62.3, 100: 60.4, 50: 58.6, 1: 47.0, 0: 34.7},
}

# Figure 5: (train, test) accuracy on CIFAR10 by updates.
_UPDATES = (50_000, 100_000, 200_000, 390_000)
FIGURE_5: dict[str, dict[int, tuple[float, float]]] = {
    name: dict(zip(_UPDATES, accuracies, strict=True))
    for name, accuracies in {
        "lstm_full": ((45.5, 39.4), (49.2, 48.6), (54.7, 52.6), (60.5, 58.8)),
        "p_lstm": ((54.0, 56.0), (57.6, 59.6), (62.5, 61.7), (64.9, 64.7)),
        "r_lstm": ((54.6, 47.7), (58.1, 59.3), (62.1, 63.3), (64.9, 65.9)),
    }.items()
}

# Figure 6: points of accuracy on CIFAR10 that r-LSTM loses if one part is turned off.
FIGURE_6: dict[str, float] = {
    "joint training": 3.6,
    "scheduled sampling": 3.4,
    "pretraining": 2.9,
    "predict future": 1.8,
    "distant past": 1.7,
    "input projection": 1.5,
    "reversed reconstruction": 1.2,
    "second auxiliary layer": 1.05,
}

# The accuracy with which the figures were read off.
FIGURE_ERROR = {
    "figure3": "±0.05 points of accuracy, ±0.1 s",
    "figure4": "±0.4 points",
    "figure5": "±0.4 points",
    "figure6": "read off bars",
}
