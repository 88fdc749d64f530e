"""The data sets of tensorflow-datasets: some by their own names, all others by `Tfds`.

`tfds_source`, which is slow to import, reads them.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import ClassVar

import gin

from t2aux.data.source import (
    GreyImageSource,
    ImageSource,
    Source,
    TextSource,
    check_images,
    check_texts,
    sources,
)
from t2aux.data.table import Examples, Options
from t2aux.errors import UserError
from t2aux_ondevice.preprocessing import DatasetInfo


class TfdsSource(Source):
    """A data set of tensorflow-datasets.

    Attributes:
        builder: Its name there, possibly with configuration and version, as "emnist/letters".
    """

    builder: ClassVar[str]
    has_named_splits: ClassVar[bool] = True
    has_other_splits: ClassVar[bool] = True

    def read(self, split: str, options: Options) -> tuple[DatasetInfo, Examples]:
        """Reads a split of the prepared data; see `tfds_source.read`."""
        from t2aux.data import tfds_source

        return tfds_source.read(split, options, self.builder, tuple(sources()))

    def prepare(self, data_dir: pathlib.Path | None) -> bool:
        """Downloads and prepares the data; see `tfds_source.prepare`."""
        from t2aux.data import tfds_source

        tfds_source.prepare(self.builder, data_dir, tuple(sources()))
        return True


@gin.configurable("mnist")
@dataclasses.dataclass(frozen=True)
class Mnist(GreyImageSource, TfdsSource):
    """Handwritten digits, 28 x 28 grey, 10 classes."""

    builder: ClassVar[str] = "mnist"


@gin.configurable("pmnist")
@dataclasses.dataclass(frozen=True)
class PMnist(Mnist):
    """MNIST with its pixels in one fixed random order.

    The paper does not publish its own; this seed gives ours (numpy's
    PCG64(92916).permutation(784)).
    """

    permutation_seed: int | None = 92916


@gin.configurable("fashion_mnist")
@dataclasses.dataclass(frozen=True)
class FashionMnist(GreyImageSource, TfdsSource):
    """Articles of clothing, 28 x 28 grey, 10 classes."""

    builder: ClassVar[str] = "fashion_mnist"


@gin.configurable("kmnist")
@dataclasses.dataclass(frozen=True)
class Kmnist(GreyImageSource, TfdsSource):
    """Cursive Japanese characters, 28 x 28 grey, 10 classes."""

    builder: ClassVar[str] = "kmnist"


@gin.configurable("emnist")
@dataclasses.dataclass(frozen=True)
class Emnist(GreyImageSource, TfdsSource):
    """Handwritten letters and digits, 28 x 28 grey, 62 classes."""

    builder: ClassVar[str] = "emnist"


@gin.configurable("cifar10")
@dataclasses.dataclass(frozen=True)
class Cifar10(ImageSource, TfdsSource):
    """Photographs, 32 x 32 colour, 10 classes."""

    builder: ClassVar[str] = "cifar10"


@gin.configurable("cifar100")
@dataclasses.dataclass(frozen=True)
class Cifar100(ImageSource, TfdsSource):
    """Photographs, 32 x 32 colour, 100 classes."""

    builder: ClassVar[str] = "cifar100"


@gin.configurable("svhn_cropped")
@dataclasses.dataclass(frozen=True)
class SvhnCropped(ImageSource, TfdsSource):
    """House numbers, 32 x 32 colour, 10 classes."""

    builder: ClassVar[str] = "svhn_cropped"


@gin.configurable("stanford_dogs")
@dataclasses.dataclass(frozen=True)
class StanfordDogs(ImageSource, TfdsSource):
    """Breeds of dogs, colour, 120 classes; set its side."""

    builder: ClassVar[str] = "stanford_dogs"


@gin.configurable("imagenette")
@dataclasses.dataclass(frozen=True)
class Imagenette(ImageSource, TfdsSource):
    """Photographs, colour, 10 classes; set its side."""

    builder: ClassVar[str] = "imagenette"


@gin.configurable("ag_news_subset")
@dataclasses.dataclass(frozen=True)
class AgNewsSubset(TextSource, TfdsSource):
    """News texts, 4 classes."""

    builder: ClassVar[str] = "ag_news_subset"


@gin.configurable("imdb_reviews")
@dataclasses.dataclass(frozen=True)
class ImdbReviews(TextSource, TfdsSource):
    """Film reviews, 2 classes."""

    builder: ClassVar[str] = "imdb_reviews"


@gin.configurable("yelp_polarity_reviews")
@dataclasses.dataclass(frozen=True)
class YelpPolarityReviews(TextSource, TfdsSource):
    """Reviews of businesses, 2 classes."""

    builder: ClassVar[str] = "yelp_polarity_reviews"


@gin.configurable("tfds")
@dataclasses.dataclass(frozen=True)
class Tfds(TfdsSource):
    """Any other image or text classification data set of tensorflow-datasets, by its name.

    Attributes:
        name: What tensorflow-datasets calls it, such as "svhn_cropped".
        side: Of images: height and width that they are resized to (bilinear, antialiased). None
            keeps square images of one size as they are.
        border: Of images: black pixels that are put around them, on each side.
        grey: Of images: whether to turn colour into grey.
        permutation_seed: Of images: seed of a fixed permutation of the pixels; None for raster
            order.
        tokens: Of texts: what a step is, "characters" (Unicode code points) or "bytes" (of UTF-8).
        max_length: Of texts: where they are cut, in tokens; None for nowhere.
        vocabulary_size: Of texts: the largest number of different characters, as for `TextSource`.
    """

    name: str = ""
    side: int | None = None
    border: int = 0
    grey: bool = False
    permutation_seed: int | None = None
    tokens: str = "characters"
    max_length: int | None = None
    vocabulary_size: int = 256

    def __post_init__(self) -> None:
        """Raises UserError where a parameter is out of its range."""
        if not isinstance(self.name, str) or not self.name:
            raise UserError(f"tfds.name is {self.name!r}: give the name of a data set.")
        check_images(self)
        check_texts(self)

    @property
    def builder(self) -> str:
        """The name."""
        return self.name

    @property
    def title(self) -> str:
        """The name."""
        return self.name
