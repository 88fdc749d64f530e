"""Data sources: `load(source, split)` reads any of them and returns a `Split` of batches.

Each source is a class and a gin configurable: the embedded `Digits`; the data sets of
tensorflow-datasets, such as `Mnist`; a user's own `ImageFolder`, `Csv`, `Npz`, `Ts` and `Idx`
files; `ShardFolder`, for the shards that `convert.convert` writes from any of these; and a user's
own subclasses of `Source`.
"""

from t2aux.data.digits import Digits
from t2aux.data.idx import Idx
from t2aux.data.image_folder import ImageFolder
from t2aux.data.loading import configured, load, named, prepare
from t2aux.data.npz import Npz
from t2aux.data.series import Series
from t2aux.data.shards import ShardFolder
from t2aux.data.source import GreyImageSource, ImageSource, Source, TextSource
from t2aux.data.split import Batch, Split, user_errors
from t2aux.data.summary import log_summary
from t2aux.data.table import Options, Table
from t2aux.data.text_csv import Csv, DBpedia
from t2aux.data.tfds_sets import Cifar10, Mnist, PMnist, StanfordDogs, Tfds
from t2aux.data.ts import Ts
from t2aux_ondevice.preprocessing import DatasetInfo

__all__ = [
    "Batch",
    "Cifar10",
    "Csv",
    "DBpedia",
    "DatasetInfo",
    "Digits",
    "GreyImageSource",
    "Idx",
    "ImageFolder",
    "ImageSource",
    "Mnist",
    "Npz",
    "Options",
    "PMnist",
    "Series",
    "ShardFolder",
    "Source",
    "Split",
    "StanfordDogs",
    "Table",
    "TextSource",
    "Tfds",
    "Ts",
    "configured",
    "load",
    "log_summary",
    "named",
    "prepare",
    "user_errors",
]
