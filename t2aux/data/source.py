"""`Source`, the base class of data sources, and base classes with common parameters."""

from __future__ import annotations

import abc
import dataclasses
import inspect
import pathlib
from typing import Any, ClassVar

from gin import config as gin_config

from t2aux.data import places
from t2aux.data.table import Examples, Options
from t2aux.errors import SettingError
from t2aux_ondevice.preprocessing import TOKENS, DatasetInfo


class Source(abc.ABC):
    """A data set: where its examples come from, and how they are prepared.

    Every source is a gin configurable, so that a configuration can name it:
    `train.data = @mnist()`. A source has only the parameters that apply to it. The parameters that
    apply to any source (the folder, the number of examples, ...) are passed to `t2aux.data.load`.

    To define your own source, write a subclass in your own module. Its parameters are those of its
    constructor:

        @gin.configurable
        @dataclasses.dataclass(frozen=True)
        class Waves(data.Source):
            steps: int = 100

            def read(self, split, options):
                inputs, labels = make_waves(split, self.steps)  # float32 [N, T, 1], int [N]
                info = data.DatasetInfo(
                    "waves", "vectors", ("sine", "square"), channels=1, length=self.steps
                )
                return info, data.Table.of_rows(inputs, labels)

    Two lines of gin train on it: `import my_package.waves` and `train.data = @Waves()`. Do not
    normalise vectors, since the network does so (`train.normalize`).

    Attributes:
        in_folder: Whether the source reads files in the `data_dir`.
        has_named_splits: Whether `read` uses `Options.splits`.
        has_other_splits: Whether `read` supports splits other than "train" and "test", such as
            "validation".
        split_suffixes: The suffixes of the splits' files or folders, if these are named as in
            `places.NAMES`.
    """

    in_folder: ClassVar[bool] = True
    has_named_splits: ClassVar[bool] = False
    has_other_splits: ClassVar[bool] = False
    split_suffixes: ClassVar[tuple[str, ...]] = ()

    @abc.abstractmethod
    def read(self, split: str, options: Options) -> tuple[DatasetInfo, Examples]:
        """Reads a split.

        Args:
            split: "train" or "test", or another split if the source has it.
            options: The arguments of `load`, and the source's own parameters of the same names. A
                source that returns a `Table` may read all examples: `load` then takes
                `max_examples` of them.

        Returns:
            The description of the data, which is the same for both splits, and the examples:
            `Table.of_rows` for sequences of equal length, otherwise `Table.of_lengths`.

        Raises:
            UserError: The data is missing or damaged.
        """

    def has_validation(self, data_dir: pathlib.Path | None) -> bool:
        """Whether the file names of a user's own data include a split "validation".

        Args:
            data_dir: The data's folder.
        """
        return "validation" in places.splits_in(data_dir, self.split_suffixes)

    def prepare(self, data_dir: pathlib.Path | None) -> bool:
        """Downloads the data, if the source supports this.

        Args:
            data_dir: The folder to write to.

        Returns:
            Whether there was anything to do.
        """
        del data_dir
        return False

    @property
    def gin_name(self) -> str:
        """The source's name in gin files, such as "mnist"."""
        return gin_name(type(self))

    @property
    def title(self) -> str:
        """The source's name in results."""
        return self.gin_name

    def parameters(self) -> dict[str, Any]:
        """The source's parameters and their values."""
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}


def gin_name(source: type[Source]) -> str:
    """The name of a source in gin files."""
    names = (name for name, registered in sources().items() if registered is source)
    return next(names, source.__name__)


def sources() -> dict[str, type[Source]]:
    """All sources that are gin configurables, by their names in gin files."""
    return {
        gin_config._REGISTRY.minimal_selector(selector): configurable.wrapped
        for selector, configurable in gin_config._REGISTRY.items()
        if isinstance(configurable.wrapped, type) and issubclass(configurable.wrapped, Source)
    }


def about(source: type[Source]) -> str:
    """The first line of a source's description."""
    return (inspect.getdoc(source) or "").partition("\n")[0].rstrip(".")


@dataclasses.dataclass(frozen=True)
class GreyImageSource(Source):
    """A source of grey images, one pixel per step.

    Attributes:
        side: Height and width that images are resized to (bilinear, antialiased). None keeps the
            size of the images, which must be square and all of the same size.
        border: Number of black pixels to add on each side of the resized images. MNIST has such a
            border around its digits, so that the last steps of a sequence hold no information.
        permutation_seed: Seed of a fixed permutation of the pixels, the same for every image and
            split (pMNIST); None for raster order.
    """

    side: int | None = None
    border: int = 0
    permutation_seed: int | None = None

    def __post_init__(self) -> None:
        """Raises UserError where a parameter is out of its range."""
        name = self.gin_name
        check_whole_number(f"{name}.side", self.side, least=1, optional=True)
        check_whole_number(f"{name}.border", self.border, least=0)
        seed = f"{name}.permutation_seed"
        check_whole_number(seed, self.permutation_seed, least=0, optional=True)


@dataclasses.dataclass(frozen=True)
class ImageSource(GreyImageSource):
    """A source of colour images, one pixel per step.

    Attributes:
        side: As for `GreyImageSource`; so are `border` and `permutation_seed`.
        grey: Whether to convert colour images to grey, with one channel instead of three.
    """

    grey: bool = False

    def __post_init__(self) -> None:
        """Raises UserError where a parameter is out of its range."""
        super().__post_init__()
        if not isinstance(self.grey, bool):
            raise SettingError(f"{self.gin_name}.grey is {self.grey!r}: give True or False.")


@dataclasses.dataclass(frozen=True)
class TextSource(Source):
    """A source of texts, one character or byte per step.

    Attributes:
        tokens: The kind of tokens: "characters" (Unicode code points) or "bytes" (of UTF-8).
        max_length: The length in tokens at which texts are cut; None for no limit.
        vocabulary_size: The maximum number of different characters, including the unknown
            character. The most frequent characters of the training split are kept; the others
            become the unknown character.
    """

    tokens: str = "characters"
    max_length: int | None = None
    vocabulary_size: int = 256

    def __post_init__(self) -> None:
        """Raises UserError where a parameter is out of its range."""
        name = self.gin_name
        if self.tokens not in TOKENS:
            raise SettingError(f"{name}.tokens is {self.tokens!r}: give {' or '.join(TOKENS)}.")
        check_whole_number(f"{name}.max_length", self.max_length, least=1, optional=True)
        check_whole_number(f"{name}.vocabulary_size", self.vocabulary_size, least=2)


def check_whole_number(name: str, value: object, *, least: int, optional: bool = False) -> None:
    """Raises UserError if a parameter is not a whole number, or too small."""
    if optional and value is None:
        return
    if type(value) is not int or value < least:
        none = ", or None" if optional else ""
        raise SettingError(f"{name} is {value!r}: give a whole number of at least {least}{none}.")
