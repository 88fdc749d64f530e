"""Baselines: the accuracy of simple models on a data set, for comparison with a recurrent one."""

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

# Limits that keep the regression within seconds: the examples to fit and to measure; for real
# values, the products (examples x features x classes) per iteration and in total; for texts, the
# characters; for images, the pixels per side.
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
    """The result of a logistic regression.

    Attributes:
        features: A description of the features.
        accuracy: The share of correct predictions, in [0, 1].
        examples: The number of sequences that it was measured on.
        of_examples: The number of sequences in that split.
        training_examples: The number of sequences that it was fitted to.
        of_training_examples: The number of sequences in the training split.
        seconds: The total time.
    """

    features: str
    accuracy: float
    examples: int
    of_examples: int
    training_examples: int
    of_training_examples: int
    seconds: float

    def describe(self, split: str) -> str:
        """The line shown with its accuracy: the features and the numbers of examples.

        Args:
            split: The name of the split that it was measured on.
        """
        trained = _share(self.training_examples, self.of_training_examples)
        line = f"{self.features}; fitted to {trained} training examples"
        if self.examples < self.of_examples:
            line += f", measured on {_share(self.examples, self.of_examples)} {split} examples"
        return f"{line}; {self.seconds:.1f} s"

    def to_json(self) -> dict[str, Any]:
        """All attributes except the time, which differs from run to run."""
        found = dataclasses.asdict(self)
        del found["seconds"]
        return found


def majority(counts: np.ndarray) -> tuple[int, float]:
    """The most frequent class, which is the best constant prediction.

    Args:
        counts: The number of examples of each class, int64 [K].

    Returns:
        The label of the class, and its share of the examples in [0, 1].
    """
    label = int(np.argmax(counts))
    return label, float(counts[label] / counts.sum())


def to_json(classes: Sequence[str], counts: np.ndarray, regression: Regression | None) -> Any:
    """The baselines in a form that JSON can hold. The arguments are those of `table`."""
    label, accuracy = majority(counts)
    return {
        "majority_class": {"class": classes[label], "accuracy": accuracy},
        "logistic_regression": None if regression is None else regression.to_json(),
    }


def table(
    split: str, classes: Sequence[str], counts: np.ndarray, regression: Regression | None = None
) -> str:
    """Formats the baselines for a terminal: a heading, then a line for each.

    Args:
        split: The split that they were measured on, such as "test".
        classes: The names of the K classes.
        counts: The number of examples of each class in the split, int64 [K].
        regression: The result of `logistic_regression`, if it was run.
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
    """The name of the best baseline if it is better than a model, or None.

    Args:
        accuracy: The model's accuracy, in [0, 1].
        counts: As for `table`.
        regression: As for `table`.
    """
    found = {"majority class": majority(counts)[1]}
    if regression is not None:
        found["logistic regression"] = regression.accuracy
    best = max(found, key=found.__getitem__)
    return best if found[best] > accuracy else None


def logistic_regression(train: Split, other: Split) -> Regression | None:
    """Fits a logistic regression to simple features and measures its accuracy.

    The features of real-valued sequences are the mean and the standard deviation of each channel,
    and 64 evenly spaced values from the first to the last step; of images, the pixels, averaged to
    32 x 32 if there are more; of texts, the tf-idf of words and of character trigrams; of ids, the
    tf-idf. Both splits are subsampled with a fixed seed, so that it takes only seconds.

    Args:
        train: The training split.
        other: The split to measure on; may be `train`.

    Returns:
        The result; None if all training examples are of one class.
    """
    # A dependency of scikit-learn.
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
    # One thread is as fast for products of this size, much faster if other processes are busy, and
    # makes the rounding independent of the number of cores.
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
    """The description of the features, the reader of texts, and the model for texts."""
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
    """The description of the features, the function that makes them [N, F], and the model."""
    averaged = _width(train) > _MAX_PIXELS
    name = f"pixels, averaged to {_MAX_PIXELS} x {_MAX_PIXELS}" if averaged else "pixels"
    return name, _each(_pixels), _dense(train, examples)


def _of_series(train: Split, chosen: np.ndarray) -> tuple[str, _Read, ClassifierMixin]:
    """The description of the features, the function that makes them [N, F], and the model."""
    made = _each(_series)(train, chosen)
    center = made.mean(axis=0)
    # By channel: the means of individually normalised series are all 0 except for rounding errors,
    # and dividing those by their own deviation would make them as large as the values.
    spread = made[:, 2:].std(axis=(0, 1))
    spread[spread == 0] = 1.0

    def read(split: Split, chosen: np.ndarray) -> np.ndarray:
        features = (_each(_series)(split, chosen) - center) / spread
        return features.reshape(len(features), -1)

    name = f"mean and standard deviation of each channel, and {_STEPS} of its values"
    return name, read, _dense(train, len(chosen))


def _dense(train: Split, examples: int) -> ClassifierMixin:
    """The model for real values, with as many iterations as the time limit allows."""
    from sklearn.linear_model import LogisticRegression

    fewest, most = _ITERATIONS
    products = examples * _features(train) * train.info.num_classes
    return LogisticRegression(max_iter=min(max(fewest, _MAX_PRODUCTS_OF_ALL // products), most))


def _each(features: Callable[[Split, np.ndarray], np.ndarray]) -> _Read:
    return lambda split, chosen: np.stack([features(split, split.example(i)) for i in chosen])


def _pixels(split: Split, sequence: np.ndarray) -> np.ndarray:
    """The pixels of an image, in the order of the steps, or averaged if there are many."""
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
    """The number of examples to fit the regression to."""
    classes = train.info.num_classes
    if train.info.reads_ids:
        most = _MAX_TOKENS / train.lengths.mean()
    else:
        most = _MAX_PRODUCTS / (_features(train) * classes)
    return min(max(int(most), _FEWEST_EXAMPLES, _PER_CLASS * classes), MAX_EXAMPLES)


def _features(split: Split) -> int:
    """The number of features of a real-valued sequence."""
    if split.info.kind == "image":
        return min(_width(split), _MAX_PIXELS) ** 2 * split.info.channels
    return (_STEPS + 2) * split.info.channels


def _width(split: Split) -> int:
    """The side of an image in pixels, including its border."""
    return split.info.side + 2 * split.info.border


def _share(some: int, of: int) -> str:
    return f"all {of:,}" if some == of else f"{some:,} of {of:,}"
