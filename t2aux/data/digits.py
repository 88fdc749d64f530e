"""`digits`: 1,797 real handwritten digits of 8 x 8 pixels, embedded in scikit-learn.

Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
Repository, 1998. It needs no internet. scikit-learn provides no split, so this project defines one:
a fifth of each class, drawn with a fixed seed, is the test split.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import gin
import numpy as np

from t2aux.data.pixels import image_info, image_rows
from t2aux.data.source import GreyImageSource
from t2aux.data.table import Options, Table, subset
from t2aux_ondevice.preprocessing import DatasetInfo

SIDE = 8
CLASSES = tuple("0123456789")
_SPLIT_SEED = 1797
_LARGEST_VALUE = 16  # scikit-learn's pixels are counts from 0 to 16.


@gin.configurable("digits")
@dataclasses.dataclass(frozen=True)
class Digits(GreyImageSource):
    """1,797 real handwritten digits, 8 x 8 grey, 10 classes; embedded.

    1,438 of them are for training, 359 for testing.
    """

    in_folder: ClassVar[bool] = False

    def read(self, split: str, options: Options) -> tuple[DatasetInfo, Table]:
        """Reads a split of `digits`, 1,438 training and 359 test images."""
        # scikit-learn takes a second to import, and only this source needs it.
        from sklearn.datasets import load_digits

        digits = load_digits()
        whole = split_indices(digits.target)[split]
        chosen = whole[subset(len(whole), options.max_examples)]
        pixels = _pixels(digits.images[chosen])
        info = image_info("digits", CLASSES, 1, (SIDE, SIDE), options)
        images = ((f"digit {index}", image) for index, image in zip(chosen, pixels, strict=True))
        options = dataclasses.replace(options, resize=True)
        table = image_rows(images, digits.target[chosen], info, options).table()
        return info, dataclasses.replace(table, counts=np.bincount(digits.target[whole]))


def test_image(index: int) -> tuple[np.ndarray, str]:
    """Returns an image of the test split, uint8 [8, 8], and the name of its class."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    chosen = split_indices(digits.target)["test"][index]
    return _pixels(digits.images[chosen]), CLASSES[digits.target[chosen]]


def _pixels(images: np.ndarray) -> np.ndarray:
    return np.round(images * (255 / _LARGEST_VALUE)).astype(np.uint8)


def split_indices(labels: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the fixed split: int64 indices, ascending, by "train" and "test"."""
    generator = np.random.Generator(np.random.PCG64(_SPLIT_SEED))
    is_test = np.zeros(len(labels), bool)
    for label in range(len(CLASSES)):
        members = generator.permutation(np.flatnonzero(labels == label))
        is_test[members[: round(len(members) / 5)]] = True
    return {"train": np.flatnonzero(~is_test), "test": np.flatnonzero(is_test)}
