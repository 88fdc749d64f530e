"""Data, one door: `load(split, name, ...)` gives a `Split`, whose `batches` feed the training.

The sources, a module each: the embedded `digits`; the data sets of tensorflow-datasets, by their
names; a user's own `image_folder`, `csv`, `npz` and `idx` files; and `shards`, which
`convert.convert` writes of any of these.
"""

from t2aux.data.loading import SOURCES, load, prepare
from t2aux.data.split import Batch, Split, user_errors
from t2aux.data.summary import log_summary
from t2aux.data.table import Table

__all__ = ["SOURCES", "Batch", "Split", "Table", "load", "log_summary", "prepare", "user_errors"]
