"""`Source`: what every data source is, and the parameters that several of them have."""

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

    Every source is a gin configurable, so that a configuration names one:
    `train.data = @mnist()`. Its parameters are those that mean something to it. What holds for any
    source (the folder, how many examples, ...) is given to `t2aux.data.load`.

    Your own source is a subclass in a module of yours. Its parameters are its constructor's:

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

    Two lines of gin train on it, `import my_package.waves` and `train.data = @Waves()`. Vectors are
    given as they are: the network normalises them (`train.normalize`).

    Attributes:
        in_folder: Whether it reads files, which lie in the `data_dir`.
        has_named_splits: Whether `read` uses `Options.splits`.
        has_other_splits: Whether `read` may be asked for other splits than "train" and "test", such
            as "validation".
        split_suffixes: What the names of the splits' files or folders end in, where they are called
            as in `places.NAMES`.
    """

    in_folder: ClassVar[bool] = True
    has_named_splits: ClassVar[bool] = False
    has_other_splits: ClassVar[bool] = False
    split_suffixes: ClassVar[tuple[str, ...]] = ()

    @abc.abstractmethod
    def read(self, split: str, options: Options) -> tuple[DatasetInfo, Examples]:
        """Reads a split.

        Args:
            split: "train" or "test", or another one where it has them.
            options: What `load` was given, and the source's own parameters of the same names. A
                source may read all examples of a `Table`: `load` takes `max_examples` of them.

        Returns:
            What the data is, equal for both splits, and its examples: `Table.of_rows` of sequences
            of one length, or `Table.of_lengths`.

        Raises:
            UserError: The data is missing or damaged.
        """

    def has_validation(self, data_dir: pathlib.Path | None) -> bool:
        """Whether a user's own data has a split "validation", by the names of its files.

        Args:
            data_dir: The data's folder.
        """
        return "validation" in places.splits_in(data_dir, self.split_suffixes)

    def prepare(self, data_dir: pathlib.Path | None) -> bool:
        """Downloads the data, if it is that kind of source.

        Args:
            data_dir: Where to put it.

        Returns:
            Whether there was anything to do.
        """
        del data_dir
        return False

    @property
    def gin_name(self) -> str:
        """What gin files call it, such as "mnist"."""
        return gin_name(type(self))

    @property
    def title(self) -> str:
        """What results call it."""
        return self.gin_name

    def parameters(self) -> dict[str, Any]:
        """Its parameters and their values."""
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}


def gin_name(source: type[Source]) -> str:
    """What gin files call a source."""
    names = (name for name, registered in sources().items() if registered is source)
    return next(names, source.__name__)


def sources() -> dict[str, type[Source]]:
    """All sources that are gin configurables, by the names that gin files call them."""
    return {
        gin_config._REGISTRY.minimal_selector(selector): configurable.wrapped
        for selector, configurable in gin_config._REGISTRY.items()
        if isinstance(configurable.wrapped, type) and issubclass(configurable.wrapped, Source)
    }


def about(source: type[Source]) -> str:
    """The first line of its description."""
    return (inspect.getdoc(source) or "").partition("\n")[0].rstrip(".")


@dataclasses.dataclass(frozen=True)
class GreyImageSource(Source):
    """A source of grey images, one pixel a step.

    Attributes:
        side: Height and width that images are resized to (bilinear, antialiased). None keeps
            square images of one size as they are.
        border: Black pixels that are put around the resized images, on each side: what MNIST has
            around its digits, so that the last steps of a sequence hold no information.
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
    """A source of colour images, one pixel a step.

    Attributes:
        side: As for `GreyImageSource`; so are `border` and `permutation_seed`.
        grey: Whether to turn colour images into grey ones, with one channel instead of three.
    """

    grey: bool = False

    def __post_init__(self) -> None:
        """Raises UserError where a parameter is out of its range."""
        super().__post_init__()
        if not isinstance(self.grey, bool):
            raise SettingError(f"{self.gin_name}.grey is {self.grey!r}: give True or False.")


@dataclasses.dataclass(frozen=True)
class TextSource(Source):
    """A source of texts, one character or byte a step.

    Attributes:
        tokens: What a step is: "characters" (Unicode code points) or "bytes" (of UTF-8).
        max_length: Where texts are cut, in tokens; None for nowhere.
        vocabulary_size: The largest number of different characters, the most frequent ones of the
            training split; the others become the unknown character, which is counted too.
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
