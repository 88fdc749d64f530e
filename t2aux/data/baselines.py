"""Baselines: what simple models reach on a data set, for comparison with a recurrent one."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import logging

from t2aux import text_tables
from t2aux.data.pixels import picture
from t2aux.data.split import Split
from t2aux.data.table import subset
from t2aux.errors import shorten

if TYPE_CHECKING:
    from sklearn.base import ClassifierMixin

# What keeps the regression within seconds: the examples that it is fitted to, and measured on; of
# real values the products (examples x features x classes) of an iteration, and of all of them; of
# texts the characters; the pixels of an image's side.
MAX_EXAMPLES = 10_000
_FEWEST_EXAMPLES = 100
_PER_CLASS = 10
_MAX_PRODUCTS = 150_000_000
_MAX_PRODUCTS_OF_ALL = 6_000_000_000
_ITERATIONS = (20, 1000)
_MAX_TOKENS = 2_500_000
_MAX_PIXELS = 32
_STEPS = 64
_MAX_TERMS = 20_000


@dataclasses.dataclass(frozen=True)
class Regression:
    """How well a logistic regression does.

    Attributes:
        features: What it is given of each sequence, in words.
        accuracy: The share of correct predictions, in [0, 1].
        examples: How many sequences it was measured on.
        of_examples: How many there are in that split.
        training_examples: How many sequences it was fitted to.
        of_training_examples: How many there are in the training split.
        seconds: How long all took.
    """

    features: str
    accuracy: float
    examples: int
    of_examples: int
    training_examples: int
    of_training_examples: int
    seconds: float

    def describe(self, split: str) -> str:
        """The line below its accuracy: features and numbers of examples.

        Args:
            split: The name of the split that it was measured on.
        """
        trained = _share(self.training_examples, self.of_training_examples)
        line = f"{self.features}; fitted to {trained} training examples"
        if self.examples < self.of_examples:
            line += f", measured on {_share(self.examples, self.of_examples)} {split} examples"
        return f"{line}; {self.seconds:.1f} s"

    def to_json(self) -> dict[str, Any]:
        """All but the time, which differs from run to run."""
        found = dataclasses.asdict(self)
        del found["seconds"]
        return found


def majority(counts: np.ndarray) -> tuple[int, float]:
    """The most frequent class: no model that always predicts the same class does better.

    Args:
        counts: The examples of each class, int64 [K].

    Returns:
        Its label, and its share of the examples in [0, 1].
    """
    label = int(np.argmax(counts))
    return label, float(counts[label] / counts.sum())


def to_json(classes: Sequence[str], counts: np.ndarray, regression: Regression | None) -> Any:
    """The baselines as JSON can hold them; the arguments are those of `table`."""
    label, accuracy = majority(counts)
    return {
        "majority_class": {"class": classes[label], "accuracy": accuracy},
        "logistic_regression": None if regression is None else regression.to_json(),
    }


def table(
    split: str, classes: Sequence[str], counts: np.ndarray, regression: Regression | None = None
) -> str:
    """The baselines for a terminal, a line each below a heading.

    Args:
        split: What they were measured on, "test" or another.
        classes: The names of the classes, K of them.
        counts: The examples of each class in it, int64 [K].
        regression: What `logistic_regression` gave, if it was asked.
    """
    label, accuracy = majority(counts)
    name = shorten(classes[label])
    rows = [("majority class", accuracy, f"the answer is always {name!r}")]
    if regression is not None:
        rows.append(("logistic regression", regression.accuracy, regression.describe(split)))
    lines = [[name, f"{100 * share:.2f} %", about] for name, share, about in rows]
    shown = text_tables.table(lines, left=(0, 2), indent="  ")
    return f"Baselines, accuracy on the {split} examples:\n{shown}"


def better(accuracy: float, counts: np.ndarray, regression: Regression | None) -> str | None:
    """The name of the best baseline if it beats a model; None if none does.

    Args:
        accuracy: The model's, in [0, 1].
        counts: As for `table`.
        regression: As for `table`.
    """
    found = {"majority class": majority(counts)[1]}
    if regression is not None:
        found["logistic regression"] = regression.accuracy
    best = max(found, key=found.__getitem__)
    return best if found[best] > accuracy else None


def logistic_regression(train: Split, other: Split) -> Regression | None:
    """Fits a logistic regression to simple features, and measures it.

    Of real-valued sequences it gets the mean and the standard deviation of each channel, and 64
    values at even distances from the first step to the last; of images the pixels, averaged to 32 x
    32 where they are larger; of texts tf-idf of words and of three characters each; of ids, tf-idf.
    Both splits are cut, by a fixed random choice, so that it takes seconds.

    Args:
        train: The training split.
        other: What it is measured on; `train` again is allowed.

    Returns:
        How well it does; None where the training examples are of one class only.
    """
    # Comes with scikit-learn.
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    started = time.monotonic()
    chosen = subset(len(train), _most_examples(train))
    if len(np.unique(train.labels[chosen])) < 2:
        return None
    logging.info("Fitting a logistic regression to %d training examples.", len(chosen))
    if train.info.reads_ids:
        features, read, model = _of_text(train)
    elif train.info.kind == "image":
        features, read, model = _of_images(train, len(chosen))
    else:
        features, read, model = _of_series(train, chosen)
    # One thread is as fast for products of this size, far faster where other processes are busy,
    # and rounds the same whatever the number of cores.
    with threadpool_limits(1), warnings.catch_warnings():
        # The number of iterations is limited on purpose.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(read(train, chosen), train.labels[chosen])
    measured = subset(len(other), MAX_EXAMPLES)
    right = model.predict(read(other, measured)) == other.labels[measured]
    return Regression(
        features,
        float(right.mean()),
        len(measured),
        len(other),
        len(chosen),
        len(train),
        time.monotonic() - started,
    )


_Read = Callable[[Split, np.ndarray], Any]


def _of_text(train: Split) -> tuple[str, _Read, ClassifierMixin]:
    """The name of the features, what reads a sequence's text, and the model of texts."""
    # scikit-learn takes more than a second to import.
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline, make_union

    def terms(**parameters: Any) -> TfidfVectorizer:
        return TfidfVectorizer(sublinear_tf=True, max_features=_MAX_TERMS, **parameters)

    # saga gets near the optimum of sparse features in a few passes.
    regression = LogisticRegression(solver="saga", C=10.0, max_iter=20, random_state=0)
    if train.info.is_text:
        union = make_union(
            terms(token_pattern=r"(?u)\b\w+\b"), terms(analyzer="char_wb", ngram_range=(3, 3))
        )
        return (
            "tf-idf of words and of three characters each",
            lambda split, chosen: [split.info.text(split.example(i)) for i in chosen],
            make_pipeline(union, regression),
        )
    return (
        "tf-idf of ids and of pairs of them",
        lambda split, chosen: [" ".join(map(str, split.example(i))) for i in chosen],
        make_pipeline(terms(token_pattern=r"\S+", ngram_range=(1, 2)), regression),
    )


def _of_images(train: Split, examples: int) -> tuple[str, _Read, ClassifierMixin]:
    """The name of the features, what makes them [N, F], and the model of images."""
    averaged = _width(train) > _MAX_PIXELS
    name = f"pixels, averaged to {_MAX_PIXELS} x {_MAX_PIXELS}" if averaged else "pixels"
    return name, _each(_pixels), _dense(train, examples)


def _of_series(train: Split, chosen: np.ndarray) -> tuple[str, _Read, ClassifierMixin]:
    """The name of the features, what makes them [N, F], and the model of series."""
    made = _each(_series)(train, chosen)
    center = made.mean(axis=0)
    # By channel: of series that are normalised each by itself, the means are all 0 but for
    # rounding, which a division by their own deviation would make as large as the values.
    spread = made[:, 2:].std(axis=(0, 1))
    spread[spread == 0] = 1.0

    def read(split: Split, chosen: np.ndarray) -> np.ndarray:
        features = (_each(_series)(split, chosen) - center) / spread
        return features.reshape(len(features), -1)

    name = f"mean and standard deviation of each channel, and {_STEPS} of its values"
    return name, read, _dense(train, len(chosen))


def _dense(train: Split, examples: int) -> ClassifierMixin:
    """The model of real values, with as many iterations as there is time for."""
    from sklearn.linear_model import LogisticRegression

    fewest, most = _ITERATIONS
    products = examples * _features(train) * train.info.num_classes
    return LogisticRegression(max_iter=min(max(fewest, _MAX_PRODUCTS_OF_ALL // products), most))


def _each(features: Callable[[Split, np.ndarray], np.ndarray]) -> _Read:
    return lambda split, chosen: np.stack([features(split, split.example(i)) for i in chosen])


def _pixels(split: Split, sequence: np.ndarray) -> np.ndarray:
    """The pixels of an image, as the steps have them, or averaged where there are many."""
    if _width(split) <= _MAX_PIXELS:
        return sequence.ravel()
    from PIL import Image

    image = np.round(255 * picture(split.info, sequence)).astype(np.uint8)
    small = Image.fromarray(image if image.shape[2] == 3 else image[..., 0])
    size = (_MAX_PIXELS, _MAX_PIXELS)
    return np.asarray(small.resize(size, Image.Resampling.BOX)).ravel() / np.float32(255)


def _series(split: Split, sequence: np.ndarray) -> np.ndarray:
    """[66, C]: mean, standard deviation and 64 values, from the first step to the last."""
    del split
    steps = np.arange(len(sequence))
    places = np.linspace(0, len(sequence) - 1, _STEPS)
    values = [np.interp(places, steps, channel) for channel in sequence.T]
    return np.stack([sequence.mean(axis=0), sequence.std(axis=0), *np.transpose(values)])


def _most_examples(train: Split) -> int:
    """How many examples the regression is fitted to."""
    classes = train.info.num_classes
    if train.info.reads_ids:
        most = _MAX_TOKENS / train.lengths.mean()
    else:
        most = _MAX_PRODUCTS / (_features(train) * classes)
    return min(max(int(most), _FEWEST_EXAMPLES, _PER_CLASS * classes), MAX_EXAMPLES)


def _features(split: Split) -> int:
    """How many features a sequence of real values has."""
    if split.info.kind == "image":
        return min(_width(split), _MAX_PIXELS) ** 2 * split.info.channels
    return (_STEPS + 2) * split.info.channels


def _width(split: Split) -> int:
    """Pixels of an image's side, its border included."""
    return split.info.side + 2 * split.info.border


def _share(some: int, of: int) -> str:
    return f"all {of:,}" if some == of else f"{some:,} of {of:,}"
