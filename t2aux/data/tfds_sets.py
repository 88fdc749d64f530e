"""The data sets of tensorflow-datasets: some under their own names, all others as `Tfds`.

`tfds_source`, which is slow to import, reads them.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import ClassVar

import gin

from t2aux.data.source import GreyImageSource, ImageSource, Source, TextSource, sources
from t2aux.data.table import Examples, Options
from t2aux.errors import SettingError
from t2aux_ondevice.preprocessing import DatasetInfo


class TfdsSource(Source):
    """A data set of tensorflow-datasets.

    Attributes:
        builder: Its name there, optionally with configuration and version: "emnist/letters".
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


def _named(name: str, base: type[Source], about: str) -> type[TfdsSource]:
    """A data set of tensorflow-datasets with its own name in gin files."""
    made = dataclasses.make_dataclass(
        "".join(part.capitalize() for part in name.split("_")),
        (),
        bases=(base, TfdsSource),
        namespace={"__doc__": about, "__module__": __name__, "builder": name},
        frozen=True,
    )
    return gin.configurable(name)(made)


Mnist = _named("mnist", GreyImageSource, "Handwritten digits, 28 x 28 grey, 10 classes.")
FashionMnist = _named(
    "fashion_mnist", GreyImageSource, "Articles of clothing, 28 x 28 grey, 10 classes."
)
Kmnist = _named("kmnist", GreyImageSource, "Cursive Japanese characters, 28 x 28 grey, 10 classes.")
Emnist = _named("emnist", GreyImageSource, "Letters and digits, 28 x 28 grey, 62 classes.")
Cifar10 = _named("cifar10", ImageSource, "Photographs, 32 x 32 colour, 10 classes.")
Cifar100 = _named("cifar100", ImageSource, "Photographs, 32 x 32 colour, 100 classes.")
SvhnCropped = _named("svhn_cropped", ImageSource, "House numbers, 32 x 32 colour, 10 classes.")
StanfordDogs = _named("stanford_dogs", ImageSource, "Dogs, colour, 120 breeds; set its side.")
Imagenette = _named("imagenette", ImageSource, "Photographs, colour, 10 classes; set its side.")
AgNewsSubset = _named("ag_news_subset", TextSource, "News texts, 4 classes.")
ImdbReviews = _named("imdb_reviews", TextSource, "Film reviews, 2 classes.")
YelpPolarityReviews = _named("yelp_polarity_reviews", TextSource, "Reviews of firms, 2 classes.")


@gin.configurable("pmnist")
@dataclasses.dataclass(frozen=True)
class PMnist(Mnist):
    """MNIST with its pixels in one fixed random order.

    The paper does not publish its permutation; ours comes from this seed (numpy's
    PCG64(92916).permutation(784)).
    """

    permutation_seed: int | None = 92916


@dataclasses.dataclass(frozen=True)
class _ByName(TfdsSource):
    # A separate class, so that the name is the first parameter.
    name: str = ""


@gin.configurable("tfds")
@dataclasses.dataclass(frozen=True)
class Tfds(ImageSource, TextSource, _ByName):
    """Any other image or text classification data set of tensorflow-datasets, by its name.

    Attributes:
        name: Its name in tensorflow-datasets, such as "svhn_cropped".
        side: For images, as for `ImageSource`; so are `border`, `permutation_seed` and `grey`.
        tokens: For texts, as for `TextSource`; so are `max_length` and `vocabulary_size`.
    """

    def __post_init__(self) -> None:
        """Raises UserError where a parameter is out of its range."""
        if not isinstance(self.name, str) or not self.name:
            raise SettingError(f"tfds.name is {self.name!r}: give the name of a data set.")
        ImageSource.__post_init__(self)
        TextSource.__post_init__(self)

    @property
    def builder(self) -> str:
        """The name."""
        return self.name

    @property
    def title(self) -> str:
        """The name."""
        return self.name
